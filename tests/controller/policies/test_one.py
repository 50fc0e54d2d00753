"""The formula written out for one endpoint is the formula for all, to the last bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controller.policies.fleet import Fleet
from controller.policies.one import count_of, part_of
from controller.policies.parts import ENGINE, Pool, count, part
from tests.controller.policies.fleets import NOW_S, any_fleets

pools = st.builds(
    Pool,
    mean_prompt_tokens=st.floats(0.0, 1e5),
    mean_uncached_tokens=st.floats(0.0, 1e5),
    mean_output_tokens=st.floats(1.0, 1e5),
    pool_pace=st.floats(0.01, 100.0),
    usual=st.floats(0.0, 100.0),
    foreign=st.floats(0.0, 100.0),
    measured=st.booleans(),
)
shares = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])


@given(any_fleets(12), shares)
def test_requests_are_counted_alike(fleet: Fleet, share: float) -> None:
    with np.errstate(all="ignore"):
        of_all = np.array(count(fleet.matrix, NOW_S, share), np.float64)

    of_each = [count_of(fleet.matrix[:, at].tolist(), NOW_S, share) for at in range(len(fleet))]
    np.testing.assert_array_equal(np.array(of_each, np.float64).T, of_all)


@given(any_fleets(12), shares, pools, st.floats(-1.0, 100.0))
def test_parts_of_prices_are_alike(fleet: Fleet, share: float, pool: Pool, later_s: float) -> None:
    now_s = NOW_S + later_s
    fleet.ready_at_s[::2] = now_s - 10.0
    with np.errstate(all="ignore"):
        of_all = np.array(part(fleet.matrix, count(fleet.matrix, now_s, share), now_s, pool, ENGINE), np.float64)

    of_each = [part_of(fleet.matrix[:, at].tolist(), now_s, share, pool, ENGINE) for at in range(len(fleet))]
    np.testing.assert_array_equal(np.array(of_each, np.float64).T, of_all)
