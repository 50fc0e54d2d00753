"""That weights settle though prices are seen late."""

from __future__ import annotations

import numpy as np
import pytest

from tests.controller.weights.loop import Direct, Ours, run

SLOW = (1.0, 2.5, 1.0, 1.0)
CAPACITY = np.array([1 / slow for slow in SLOW]) / sum(1 / slow for slow in SLOW)


@pytest.mark.parametrize("delay_s", [0.3, 1.5, 3.0])
def test_near_saturation_shares_come_to_what_the_pods_can_do_and_stay_there(delay_s: float) -> None:
    later = run(Ours(4), SLOW, 0.85, delay_s, 150).later()
    assert np.abs(later.mean - CAPACITY).max() < 0.04
    assert later.swing < 0.07
    assert run(Direct(), SLOW, 0.85, delay_s, 150).later().swing > 0.2  # prices alone swing


def test_at_half_load_they_hardly_move() -> None:
    later = run(Ours(4), SLOW, 0.5, 1.0, 100).later()
    assert np.abs(later.mean - CAPACITY).max() < 0.03
    assert later.swing < 0.03


def test_no_queue_of_requests_is_left_that_equal_shares_would_have_left() -> None:
    """At 0.85 of all pods' capacity the slow one cannot take an equal share: there its queue grows without end."""

    class Equal(Ours):
        def weights(self, now: float) -> np.ndarray:  # type: ignore[type-arg]
            return np.ones(4)

    ours, equal = (run(rule, SLOW, 0.85, 1.0, 100).requests[-1] for rule in (Ours(4), Equal(4)))
    assert ours.sum() < equal.sum() / 10
