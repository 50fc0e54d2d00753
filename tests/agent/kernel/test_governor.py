"""What is left out when the kernel programs cost too much, and when it comes back."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel import layout
from agent.kernel.governor import CALM_SAMPLES, ORDER, Governor, State, bits, decide
from tests.conftest import run

LIMIT = 0.1


class Maps:
    def __init__(self, shed: int = 0) -> None:
        self.shed = shed
        self.carried: list[int] = []

    def set_shed(self, bits: int) -> None:
        self.carried.append(bits)


def after(*shares: float) -> State:
    state = State()
    for share in shares:
        state = decide(state, share, LIMIT)
    return state


def test_one_thing_more_is_left_out_for_each_sample_above_the_limit() -> None:
    assert [after(*[0.2] * n).shed for n in range(7)] == [0, 1, 2, 3, 4, 4, 4]


def test_nothing_changes_a_little_below_the_limit() -> None:
    assert after(0.2, *[0.09] * 20).shed == 1


def test_one_thing_comes_back_after_some_calm_samples() -> None:
    assert after(0.2, 0.2, *[0.01] * (CALM_SAMPLES - 1)).shed == 2
    assert after(0.2, 0.2, *[0.01] * CALM_SAMPLES).shed == 1
    assert after(0.2, 0.2, *[0.01] * 2 * CALM_SAMPLES).shed == 0


def test_calm_begins_anew_after_a_busy_sample() -> None:
    assert after(0.2, *[0.01] * (CALM_SAMPLES - 1), 0.09, *[0.01] * (CALM_SAMPLES - 1)).shed == 1


@given(st.lists(st.floats(0, 10), max_size=40))
def test_there_is_never_more_to_leave_out_than_there_is(shares: list[float]) -> None:
    assert 0 <= after(*shares).shed <= len(ORDER)


def test_the_bits_are_those_of_the_programs_in_the_stated_order() -> None:
    assert ORDER == ("http2", "calls", "turns", "histograms")
    assert bits(1) == layout.NUMBERS["SONDE_SHED_HTTP2"]
    assert [bits(n) for n in range(5)] == [0, 1, 3, 7, 15]


def test_a_decision_is_carried_out_once_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    maps = Maps()
    governor = Governor(LIMIT, dict, maps)
    with caplog.at_level(logging.WARNING):
        for share in (0.05, 0.25, 0.09, 0.05):
            governor.act(share)
    assert maps.carried == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "kernel programs took 25.0 % of a core, allowed are 10.0 %: left out is now http2"
    ]
    assert (governor.shed, governor.share) == (("http2",), 0.05)


def test_what_an_earlier_agent_left_out_is_taken_over() -> None:
    maps = Maps(bits(2))
    governor = Governor(LIMIT, dict, maps)
    assert governor.shed == ("http2", "calls")
    for _ in range(CALM_SAMPLES):
        governor.act(0.0)
    assert maps.carried == [bits(1)]


def test_without_a_bound_everything_is_measured_again() -> None:
    maps = Maps(bits(3))
    run(Governor(0, dict, maps).run())
    assert maps.carried == [0]


def test_without_programs_there_is_nothing_to_time() -> None:
    maps = Maps()
    run(Governor(LIMIT, dict, maps).run())
    assert maps.carried == []
