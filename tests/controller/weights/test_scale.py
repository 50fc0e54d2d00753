"""Weights from prices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.policies.fleet import EJECTED, LOST, STALLED, TERMINATING, UNREADY
from controller.policies.parts import ABSURD_S, STANDING_S
from controller.weights.scale import BACK_S, BACK_SHARE, MOST, NOISE, Scale, usable_of

NAMES = "abcdefgh"


def look(
    scale: Scale,
    prices: Sequence[float],
    now: float,
    standing: Sequence[float] | None = None,
    measured: bool = True,
    names: str | None = None,
) -> None:
    against = np.zeros(len(prices)) if standing is None else np.array(standing)
    with_steps = np.array(prices) + against * STANDING_S
    scale.look(tuple(names or NAMES[: len(prices)]), with_steps, against, measured, now)


def over(scale: Scale, prices: Sequence[float], since: float, until: float, **how: object) -> Scale:
    """Looks four times a second and tells once."""
    for quarter in range(int(since * 4), int(until * 4) + 1):
        look(scale, prices, quarter / 4, **how)  # type: ignore[arg-type]
        if quarter % 4 == 0:
            scale.tell(quarter / 4)
    return scale


def test_who_takes_twice_the_time_gets_half() -> None:
    assert over(Scale(), [1.0, 2.0, 1.0], 0, 3).told == pytest.approx([1.0, 0.5, 1.0])


def test_weights_have_bounds() -> None:
    told = over(Scale(), [1.0, 1000.0, 1.0, 0.0001, 1.0], 0, 3).told
    assert told == pytest.approx([1.0, 1 / MOST, 1.0, MOST, 1.0])


@pytest.mark.parametrize("what", [EJECTED, STALLED, LOST, UNREADY, TERMINATING])
def test_whoever_something_is_said_against_drains_at_once(what: float) -> None:
    scale = over(Scale(), [1.0, 1.0, 1.0], 0, 3)
    look(scale, [1.0, 1.0, 1.0], 3.1, [0.0, what, 0.0])
    assert scale.is_off
    assert scale.tell(3.1)
    assert scale.told.tolist()[1] == 0.0
    assert (scale.told[[0, 2]] > 0.0).all()
    assert not scale.is_off


def test_of_a_pool_that_is_bad_as_a_whole_the_least_bad_get_connections() -> None:
    assert usable_of(np.array([STALLED, EJECTED, LOST, UNREADY])).tolist() == [False, True, False, False]
    assert usable_of(np.array([STALLED, STALLED])).tolist() == [True, True]


def test_where_nobody_is_ready_there_is_nothing() -> None:
    scale = over(Scale(), [1.0, 1.0], 0, 3, standing=[UNREADY, TERMINATING])
    assert scale.told.tolist() == [0.0, 0.0]


@given(
    st.lists(
        st.tuples(st.floats(), st.sampled_from([0.0, EJECTED, STALLED, LOST, UNREADY, TERMINATING]), st.booleans())
    ),
    st.booleans(),
)
def test_whatever_comes_weights_are_numbers_and_never_all_zero(
    seen: list[tuple[float, float, bool]], measured: bool
) -> None:
    scale = Scale()
    names = tuple(f"pod-{at}" for at in range(len(seen)))
    prices, standing = np.array([one[0] for one in seen]), np.array([one[1] for one in seen])
    for now in (0.0, 0.3, 5.0, 5.0):
        with np.errstate(all="ignore"):
            scale.look(names, prices, standing, measured, now)
        scale.tell(now)
    assert np.isfinite(scale.told).all()
    assert ((scale.told == 0.0) | ((scale.told >= BACK_SHARE / MOST - 1e-9) & (scale.told <= MOST + 1e-9))).all()
    assert (scale.told > 0.0).any() == bool((standing < UNREADY).any())


def test_noise_moves_nothing() -> None:
    scale = over(Scale(), [1.0, 2.0, 1.0], 0, 3)
    moves = scale.moves
    for second in range(4, 200):
        over(scale, [1.0 + 0.05 * (second % 2), 2.0 - 0.08 * (second % 3 == 0), 1.0], second, second + 0.75)
    assert scale.moves == moves


def test_a_pod_that_grows_slow_comes_to_its_share_step_by_step() -> None:
    scale = over(Scale(), [1.0, 1.0, 1.0], 0, 3)
    before = scale.told[1]
    over(scale, [1.0, 2.5, 1.0], 3.25, 8)
    assert 1 / 1.3 < scale.told[1] / before < 1.0
    over(scale, [1.0, 2.5, 1.0], 8.25, 40)
    assert scale.told[1] == pytest.approx(1 / 2.5, rel=NOISE - 1.0)


def test_prices_that_all_rise_move_no_weight() -> None:
    scale = over(Scale(), [1.0, 2.0, 1.0], 0, 3)
    moves = scale.moves
    over(scale, [5.0, 10.0, 5.0], 3.25, 30)
    assert scale.moves == moves
    assert scale.price_s()[0] == pytest.approx(5.0, rel=0.01)


def test_who_comes_back_begins_with_little() -> None:
    scale = over(Scale(), [1.0, 1.0, 1.0], 0, 3)
    over(scale, [1.0, 1.0, 1.0], 3.25, 5, standing=[0.0, STALLED, 0.0])
    look(scale, [1.0, 1.0, 1.0], 6.0)
    scale.tell(6.0)
    assert scale.told.tolist() == pytest.approx([1.0, BACK_SHARE, 1.0])
    over(scale, [1.0, 1.0, 1.0], 6.25, 6 + BACK_S + 1)
    assert scale.told[1] == pytest.approx(1.0, rel=NOISE - 1.0)


def test_a_new_pod_begins_with_little_and_the_others_keep_what_they_had() -> None:
    scale = over(Scale(), [1.0, 2.0], 0, 3, names="ab")
    look(scale, [1.0, 1.0, 2.0], 3.25, names="cab")
    scale.tell(3.25)
    assert scale.told.tolist() == pytest.approx([BACK_SHARE * scale.told[1], scale.told[1], scale.told[1] / 2], rel=0.3)


def test_without_measurements_weights_go_back_to_equal_and_no_price_is_said() -> None:
    scale = over(Scale(), [1.0, 4.0, 1.0], 0, 3)
    over(scale, [1.0, 4.0, 1.0], 3.25, 60, measured=False)
    assert np.isnan(scale.price_s()).all()
    assert scale.told == pytest.approx([1.0] * 3, rel=NOISE - 1.0)


def test_absurd_prices_are_not_believed() -> None:
    told = over(Scale(), [1.0, 1.0, ABSURD_S, math.nan], 0, 3).told
    assert told.tolist() == [1.0, 1.0, 1.0, 1.0]
