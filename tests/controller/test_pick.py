from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model import Reason
from controller.pick import POLICIES, STALLED_STEP, TERMINATING_STEP, UNREADY_STEP, round_robin, sonde


def test_the_fewest_requests_win() -> None:
    assert sonde([3, 1, 2], Random(1), 0) == (1, Reason.FEWEST)


def test_ties_are_drawn_evenly_and_by_the_seed() -> None:
    drawn = [sonde([1, 0, 0, 0], Random(seed), 0) for seed in range(900)]

    counts = Counter(index for index, _ in drawn)
    assert {reason for _, reason in drawn} == {Reason.TIE}
    assert counts.keys() == {1, 2, 3}
    assert min(counts.values()) > 230
    assert drawn == [sonde([1, 0, 0, 0], Random(seed), 0) for seed in range(900)]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([0 + STALLED_STEP, 50], (1, Reason.FEWEST)),
        ([3 + STALLED_STEP, 1 + STALLED_STEP], (1, Reason.STALLED)),
        ([0 + UNREADY_STEP, 9 + STALLED_STEP], (1, Reason.STALLED)),
        ([0 + UNREADY_STEP, 9], (1, Reason.FEWEST)),
        ([2 + UNREADY_STEP, 1 + UNREADY_STEP], (1, Reason.UNREADY)),
        ([0 + TERMINATING_STEP, 9 + UNREADY_STEP + STALLED_STEP], (1, Reason.UNREADY)),
        ([7], (0, Reason.ONLY)),
    ],
)
def test_what_speaks_against_an_endpoint_outweighs_any_load(ranks: list[float], expected: object) -> None:
    assert sonde(ranks, Random(1), 0) == expected


def test_round_robin_takes_ready_endpoints_in_turn() -> None:
    ranks = [5, UNREADY_STEP, 0 + STALLED_STEP]

    assert [round_robin(ranks, Random(1), turn)[0] for turn in range(4)] == [0, 2, 0, 2]


@given(
    st.sampled_from(sorted(POLICIES)),
    st.lists(st.floats(0, 1e10), min_size=1, max_size=50),
    st.integers(0),
    st.integers(),
)
def test_every_policy_picks_something(policy: str, ranks: list[float], seed: int, turn: int) -> None:
    index, reason = POLICIES[policy](ranks, Random(seed), turn)

    assert 0 <= index < len(ranks)
    assert reason in Reason
