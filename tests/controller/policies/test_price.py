from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.policies.fleet import EJECTED, STALLED, TERMINATING, UNREADY, Fleet, Job, queue_of
from controller.policies.kept import Prices
from controller.policies.parts import COLD_S, COUNT_LIMIT_S, SIGNAL_LIMIT_S
from controller.policies.price import (
    SONDE,
    _cheapest_of_few,
    _cheapest_of_many,
    choose,
    forecast,
    prices,
    prices_of_few,
)
from tests.controller.policies.fleets import NOW_S, any_fleets, fleet, measured

JOB = Job(1000.0)


def priced(fleet: Fleet, job: Job = JOB) -> np.ndarray[Any, Any]:
    return prices(fleet, job, Prices())


def chosen(fleet: Fleet, job: Job = JOB, seed: int = 1) -> int:
    return choose(fleet, job, Random(seed), Prices())


def test_a_price_is_seconds_to_the_first_token_and_a_share_of_the_decoding() -> None:
    """An idle pool: 1000 tokens at 23.5 us and a step of 7.1 ms, which the request pays 200 times at a twentieth."""
    idle = measured([0, 0])

    step_s = 0.0071 + 1.2e-5 + 1000 * 5.2e-8
    assert priced(idle) == pytest.approx(0.0235 + step_s * (1 + 0.05 * 200))


def test_prompt_tokens_that_wait_cost_their_time() -> None:
    queue = measured([4, 4], [1, 0], own_waiting=[1, 0], queued_tokens=[10_000, 0])

    cost = priced(queue)
    assert cost[0] - cost[1] == pytest.approx(10_000 * 2.35e-5)


def test_requests_that_others_sent_count_as_usual_ones() -> None:
    ours = measured([4, 4], [1, 0], own_waiting=[1, 0], queued_tokens=[512, 0])
    theirs = measured([4, 4], [1, 0])

    assert priced(ours) == pytest.approx(priced(theirs))


def test_a_slow_pod_costs_as_much_more_as_it_is_slower() -> None:
    pool = measured([8, 8, 8], speed=[1.0, 2.0, 1.0])

    cost = priced(pool)
    assert cost[1] / cost[0] == pytest.approx(2.0, rel=0.02)
    assert chosen(pool) != 1


def test_the_gaps_that_an_idle_pod_last_had_are_of_the_past() -> None:
    """Those of a hang among them; while something is in flight they count."""
    idle = measured([0, 4], gap_s=[4.0, 0.02])
    busy = measured([4, 4], gap_s=[4.0, 0.02])

    assert chosen(idle) == 0
    assert chosen(busy) == 1


def test_what_a_pod_has_in_its_cache_is_time_saved() -> None:
    pool = measured([4, 4])
    cached = Job(1000.0, uncached=np.array([1000.0, 100.0]))

    cost = priced(pool, cached)
    assert cost[0] - cost[1] == pytest.approx(900 * 2.35e-5, rel=0.3)
    assert chosen(pool, cached) == 1


def test_an_adapter_that_must_be_loaded_costs_its_time() -> None:
    pool = measured([4, 4])

    cost = priced(pool, Job(1000.0, adapter_wait_s=np.array([0.25, 0.0])))
    assert cost[0] - cost[1] == pytest.approx(0.25)


def test_a_distant_pod_costs_its_round_trip() -> None:
    cost = priced(measured([4, 4], srtt_s=[0.8, 0.001]))

    assert cost[0] - cost[1] == pytest.approx(0.799)


def test_a_pod_whose_memory_is_full_makes_wait_for_another_ones_end() -> None:
    pool = measured([8, 8], kv_usage=[0.99, 0.5], engine_at_s=NOW_S)

    cost = priced(pool)
    assert cost[0] - cost[1] > 0.1


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        ([STALLED, 0], 1),
        ([EJECTED, STALLED], 0),
        ([UNREADY, STALLED + EJECTED], 1),
        ([TERMINATING, UNREADY + STALLED], 1),
        ([TERMINATING, TERMINATING + UNREADY], 0),
    ],
)
def test_what_speaks_against_an_endpoint_outweighs_any_price(standing: list[float], expected: int) -> None:
    pool = measured([500, 500], standing=standing)
    pool.in_flight[1 - expected] = 0

    assert chosen(pool) == expected


def test_equals_are_drawn_evenly_and_by_the_seed() -> None:
    pool = measured([80, 1, 1, 1])
    drawn = [chosen(pool, seed=seed) for seed in range(900)]

    counts = Counter(drawn)
    assert counts.keys() == {1, 2, 3}
    assert min(counts.values()) > 230
    assert drawn == [chosen(pool, seed=seed) for seed in range(900)]


def test_an_old_count_is_not_used_and_an_old_signal_neither() -> None:
    """Endpoint 0 says that it is idle, but it said so too long ago; own requests tell that it is not."""
    pool = measured([0, 40, 40, 40], own_in_flight=[90, 0, 0, 0])
    assert chosen(pool) == 0

    pool.kernel_at_s[0] = NOW_S - COUNT_LIMIT_S - 0.001
    assert chosen(pool) != 0

    slow = measured([4, 4], speed=[3.0, 1.0], own_in_flight=4)
    slow.kernel_at_s[:] = NOW_S - SIGNAL_LIMIT_S - 0.001
    assert priced(slow)[0] == priced(slow)[1]


def test_unknown_is_not_zero() -> None:
    pool = measured([2, 4, 0])
    pool.in_flight[2] = np.nan

    assert chosen(pool) == 0


def test_who_is_not_measured_has_what_we_sent_and_of_others_what_the_rest_has() -> None:
    """Of 4 that the others hold in the mean 1 is ours: the unmeasured one, with 3 of ours, has 6."""
    pool = measured([4, 4, np.nan], own_in_flight=[1, 1, 3])
    memory = SONDE.new()
    SONDE.choose(pool, Job(100.0), Random(1), memory)

    assert memory.parts[5].tolist() == [4, 4, 6]


@pytest.mark.parametrize("size", [4, 400])
def test_huge_prices_do_not_make_all_endpoints_alike(size: int) -> None:
    own = np.where(np.arange(size) == 2, 0.0, 1.0)
    pool = measured([500] * size, [400] * size, own_waiting=own, queued_tokens=1000.0 * own)

    assert {chosen(pool, seed=seed) for seed in range(50)} == {2}


@pytest.mark.parametrize("size", [4, 400])
def test_prices_within_two_percent_are_equal_and_chance_decides(size: int) -> None:
    pool = measured([5] * size, queued_tokens=np.where(np.arange(size) % 2, 0.0, 5.0), own_waiting=1.0)

    assert {chosen(pool, seed=seed) % 2 for seed in range(50)} == {0, 1}


def test_an_engines_page_serves_where_the_kernel_says_nothing() -> None:
    pool = fleet(2, running=[6, 1], queued=[2, 0], engine_at_s=NOW_S - 0.05, own_in_flight=[0, 1])
    assert chosen(pool) == 1

    pool.unpaged[:] = [0, 9]
    assert chosen(pool) == 0


def test_a_count_below_what_we_hold_open_is_a_lie() -> None:
    assert chosen(measured([0, 3], own_open=[9, 3])) == 1


@given(st.lists(st.integers(0, 30), min_size=2, max_size=12), st.integers(0, 4000))
def test_without_any_measurement_it_is_token_weighted_least_request(counts: list[int], tokens: int) -> None:
    """The fewest own requests win, and of equal numbers those with the fewest prompt tokens."""
    pool = fleet(len(counts), own_in_flight=counts, own_tokens=[count * 100.0 for count in counts])
    job = Job(float(tokens))
    cost = priced(pool, job)
    assert sorted(range(len(counts)), key=lambda at: cost[at]) == sorted(range(len(counts)), key=lambda at: counts[at])
    assert counts[chosen(pool, job)] == min(counts)

    pool.own_tokens[0] += 50_000
    assert priced(pool, job)[0] > cost[0]


def test_a_tie_in_requests_is_decided_by_their_tokens() -> None:
    assert chosen(fleet(2, own_in_flight=[2, 2], own_tokens=[9000, 2000])) == 1


def test_a_new_pod_gets_its_share_by_and_by() -> None:
    """The others hold 60 each and queue: at a sixth of its time the new one may have a sixth of the mean."""
    pool = measured([60, 60, 0], [30, 30, 0], ready_at_s=[np.nan, np.nan, NOW_S - COLD_S / 6])
    taken = 0
    while (at := chosen(pool)) == 2:
        pool.in_flight[at] += 1
        taken += 1
    assert 6 <= taken <= 9


def test_the_only_endpoint_is_taken_whatever_is_said_of_it() -> None:
    assert chosen(fleet(1, standing=TERMINATING + UNREADY + STALLED)) == 0


@given(any_fleets(), st.floats(), st.none() | st.floats())
def test_something_is_chosen_whatever_the_numbers_are(pool: Fleet, tokens: float, output: float | None) -> None:
    job = Job(tokens, output)
    cost = priced(pool, job)

    assert np.isfinite(cost).all()
    at = chosen(pool, job)
    assert 0 <= at < len(pool)
    assert pool.standing[at] == pool.standing.min()


@given(any_fleets(), st.data())
def test_absurd_costs_of_the_job_do_not_hide_the_endpoints(pool: Fleet, data: st.DataObject) -> None:
    values = st.lists(st.floats(), min_size=len(pool), max_size=len(pool)).map(np.array)
    job = Job(100.0, uncached=data.draw(values), adapter_wait_s=data.draw(values))

    assert np.isfinite(priced(pool, job)).all()


@given(any_fleets(), any_fleets(), st.data())
def test_what_is_kept_between_choices_is_what_would_be_computed(pool: Fleet, news: Fleet, data: st.DataObject) -> None:
    """Endpoints change one at a time, as the controller notes them; in the end all prices are as if computed anew."""
    memory = Prices()
    prices(pool, JOB, memory)
    pool.tracked, pool.touched = True, set()
    for _ in range(3):
        at = data.draw(st.integers(0, len(pool) - 1))
        pool.matrix[:, at] = news.matrix[:, at % len(news)]
        pool.touch(at)
        pool.now_s += 0.01
        kept = prices(pool, JOB, memory)
    anew = Prices()
    expected = prices(pool, JOB, anew)

    if memory.pool == anew.pool:  # what concerns all endpoints is computed anew now and then only
        assert kept == pytest.approx(expected, rel=1e-6)


def test_a_pick_that_is_noted_raises_that_price_alone() -> None:
    pool, memory = measured([4, 4, 4]), Prices()
    before = prices(pool, JOB, memory).copy()
    pool.tracked, pool.touched = True, set()
    pool.reserved[1] += 1
    pool.own_waiting[1] += 1
    pool.queued_tokens[1] += 1000
    pool.touch(1)
    after = prices(pool, JOB, memory)

    assert after[1] - before[1] > 0.02
    assert after[[0, 2]] == pytest.approx(before[[0, 2]], abs=0.001)


@given(any_fleets(12), st.integers(0, 99))
def test_few_endpoints_and_many_are_chosen_from_alike(pool: Fleet, seed: int) -> None:
    memory = Prices()
    price = prices(pool, JOB, memory)

    few, tied = _cheapest_of_few(price.tolist(), memory, Random(seed)), memory.tied
    assert (few, tied) == (_cheapest_of_many(price, memory, Random(seed)), memory.tied)


@given(any_fleets(12), st.floats(), st.none() | st.floats(), st.none() | st.integers(0, 1 << 20))
def test_few_endpoints_have_the_prices_of_many(
    pool: Fleet, tokens: float, output: float | None, cached: int | None
) -> None:
    uncached = None if cached is None else np.random.default_rng(cached).uniform(-10, 5000, len(pool))
    job, memory = Job(tokens, output, uncached), Prices()
    by_array = prices(pool, job, memory).tolist()

    assert prices_of_few(job, memory) == by_array
    assert memory.few == [tuple(memory.of(at)) for at in range(len(pool))]


def test_when_much_has_changed_all_prices_are_computed_at_once() -> None:
    """And are what they would be one by one."""
    pool, memory = measured([4.0] * 60), Prices()
    prices(pool, JOB, memory)
    pool.tracked, pool.touched = True, set()
    pool.in_flight[:] = np.arange(60)
    for at in range(60):
        pool.touch(at)

    assert prices(pool, JOB, memory) == pytest.approx(priced(pool))
    assert pool.touched == set()


def test_time_alone_makes_a_kept_price_old() -> None:
    pool, memory = measured([0, 8], own_in_flight=[8, 0]), Prices()
    pool.tracked, pool.touched = True, set()
    assert choose(pool, JOB, Random(1), memory) == 0

    pool.now_s += COUNT_LIMIT_S

    assert choose(pool, JOB, Random(1), memory) == 1


def test_four_thousand_endpoints_and_all_alike_are_no_matter() -> None:
    pool = measured([3.0] * 4000)

    assert len({chosen(pool, seed=seed) for seed in range(50)}) > 40


def test_the_forecast_is_of_the_endpoint_that_was_chosen() -> None:
    pool, memory = measured([4, 4], [1, 0], own_waiting=[1, 0], queued_tokens=[10_000, 0]), Prices()
    assert choose(pool, JOB, Random(1), memory) == 1

    near, far = forecast(JOB, memory, 1), forecast(JOB, memory, 0)
    assert far.ttft_s - near.ttft_s == pytest.approx(0.235)
    assert near.gap_s == pytest.approx(0.0071, rel=0.2)
    assert near.measured
    assert far.wait_s - near.wait_s == pytest.approx(0.235)


def test_requests_that_are_answered_whole_are_no_queue() -> None:
    """Of 20 in flight 5 are silent; where a quarter is answered whole, that is what is expected without a queue."""
    pool = measured([20, 20], [5, 0])
    assert priced(pool)[0] > priced(pool)[1] + 0.05

    pool.whole_share = 0.25
    assert priced(pool)[0] == pytest.approx(priced(pool)[1])


@given(st.floats(0.0, 1.0), st.integers(0, 50), st.integers(0, 50))
def test_a_queue_is_never_negative_nor_more_than_what_is_silent(share: float, silent: int, in_flight: int) -> None:
    queue = queue_of(float(min(silent, in_flight)), float(in_flight), share, max)

    assert 0.0 <= queue <= in_flight + 1e-6
