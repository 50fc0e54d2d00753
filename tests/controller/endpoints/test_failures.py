from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.endpoints.failures import IN_A_ROW, PAUSE_S, PAUSES_MOST, Failures, Trust


def ejected(now: float = 0.0) -> Failures:
    made = Failures()
    made.failed(now, IN_A_ROW)
    return made


def test_failures_in_a_row_eject_for_a_pause_and_then_there_is_a_trial() -> None:
    made = Failures()
    made.failed(0.0)
    made.failed(0.1)
    assert made.trust(0.1) is Trust.FULL

    made.failed(0.2)
    assert made.trust(0.2) is Trust.EJECTED
    assert made.due_s(0.2) == pytest.approx(0.2 + PAUSE_S)
    assert made.trust(0.2 + PAUSE_S) is Trust.TRIAL


def test_a_success_in_between_forgives() -> None:
    made = Failures()
    for step in range(20):
        made.failed(step, 1)
        made.succeeded(step + 0.5, 2)

    assert made.trust(21.0) is Trust.FULL


def test_more_failures_than_successes_eject_too() -> None:
    made = Failures()
    for step in range(20):
        made.failed(step * 0.01, 2)
        if made.trust(step * 0.01) is Trust.EJECTED:
            return
        made.succeeded(step * 0.01, 1)
    pytest.fail("it was never ejected")


def test_a_trial_that_succeeds_ends_it_and_one_that_fails_lengthens_the_pause() -> None:
    made = ejected()
    assert made.trust(PAUSE_S) is Trust.TRIAL
    made.failed(PAUSE_S)
    assert made.trust(PAUSE_S) is Trust.EJECTED
    assert made.due_s(PAUSE_S) == pytest.approx(PAUSE_S + 2 * PAUSE_S)

    made.trust(4 * PAUSE_S)
    made.succeeded(4 * PAUSE_S)
    assert made.trust(4 * PAUSE_S) is Trust.FULL


def test_what_was_under_way_and_fails_later_does_not_lengthen_a_pause() -> None:
    made = ejected()
    due = made.due_s(0.0)
    made.failed(1.0, 5)

    assert made.due_s(1.0) == due


def test_pauses_grow_to_a_limit() -> None:
    made, now = ejected(), 0.0
    for _ in range(20):
        now = made.until_s
        assert made.trust(now) is Trust.TRIAL
        made.failed(now)

    assert made.until_s - now == pytest.approx(PAUSE_S * PAUSES_MOST)


def test_a_rate_fades() -> None:
    made = ejected()

    assert made.rate(0.0) > 0.4
    assert made.rate(300.0) < 0.001


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.floats(0.0, 20.0))))
def test_a_rate_is_a_share_and_a_success_always_restores_trust(plan: list[tuple[bool, int, float]]) -> None:
    made, now = Failures(), 0.0
    for fails, times, passed_s in plan:
        now += passed_s
        (made.failed if fails else made.succeeded)(now, times)
        made.trust(now)
        assert 0.0 <= made.rate(now) <= 1.0
        assert made.until_s <= now + PAUSE_S * PAUSES_MOST
    made.succeeded(now)

    assert made.trust(now) is Trust.FULL
