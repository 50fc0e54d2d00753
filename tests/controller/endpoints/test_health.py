from __future__ import annotations

import pytest

from controller.endpoints.health import SUSPECT_S, State, Vigil, limit_s
from tests.controller.known import kernel


@pytest.mark.parametrize(
    ("signal", "limit"),
    [
        (kernel(2, usual_gap_s=0.02), 0.3),
        (kernel(2, usual_gap_s=0.2), 2.0),
        (kernel(2, waiting=1, usual_ttft_s=9.0), 0.3),
        (kernel(2, waiting=2, usual_ttft_s=0.15), 0.45),
        (kernel(2, waiting=2, usual_ttft_s=2.0), 6.0),
        (kernel(2), 0.3),
    ],
    ids=["streaming", "slow stream", "one streams", "all wait", "all wait long as usual", "nothing usual known"],
)
def test_the_limit_follows_what_is_usual_for_the_pod(signal: object, limit: float) -> None:
    assert limit_s(signal) == pytest.approx(limit)  # type: ignore[arg-type]


def test_silence_beyond_the_limit_is_a_stall_by_our_own_clock() -> None:
    vigil = Vigil()
    signal = kernel(1, at=10.0)

    assert vigil.watch(signal, 10.29) is State.FINE
    assert vigil.due_s(signal) == pytest.approx(10.3)
    assert vigil.watch(signal, 10.3) is State.STALLED


def test_an_idle_endpoint_never_stalls() -> None:
    assert Vigil().watch(kernel(0), 1e6) is State.FINE


def test_a_byte_ends_a_stall() -> None:
    vigil = Vigil()
    vigil.watch(kernel(1, progress=1), 1.0)

    assert vigil.watch(kernel(1, at=1.1, progress=2), 1.1) is State.FINE


def stalled_then_empty() -> Vigil:
    vigil = Vigil()
    vigil.watch(kernel(1, progress=1), 1.0)
    vigil.watch(kernel(0, at=2.0, progress=1), 2.0)
    return vigil


def test_a_stalled_pod_whose_clients_gave_up_is_suspect_then_tried() -> None:
    vigil = stalled_then_empty()
    idle = kernel(0, at=2.0, progress=1)

    assert vigil.state is State.SUSPECT
    assert vigil.due_s(idle) == 2.0 + SUSPECT_S
    assert vigil.watch(idle, 2.0 + SUSPECT_S) is State.TRIAL


def test_a_trial_that_is_answered_clears_the_pod() -> None:
    vigil = stalled_then_empty()
    vigil.watch(kernel(0, at=7.0, progress=1), 7.0)

    assert vigil.watch(kernel(1, at=7.1, progress=2), 7.1) is State.FINE


def test_a_trial_that_is_not_answered_stalls_again() -> None:
    vigil = stalled_then_empty()
    vigil.watch(kernel(0, at=7.0, progress=1), 7.0)

    assert vigil.watch(kernel(1, at=7.1, progress=1), 7.2) is State.TRIAL
    assert vigil.watch(kernel(1, at=7.1, progress=1), 7.5) is State.STALLED


def test_a_new_request_right_after_the_others_gave_up_is_no_proof() -> None:
    vigil = Vigil()
    vigil.watch(kernel(1, progress=1), 1.0)

    assert vigil.watch(kernel(1, at=1.1, progress=1, waiting=1), 1.1) is State.SUSPECT


def test_without_a_fresh_signal_nothing_is_held_against_a_pod() -> None:
    vigil = Vigil()
    vigil.watch(kernel(1), 1.0)

    assert vigil.watch(None, 2.0) is State.FINE
