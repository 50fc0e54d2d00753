from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.policies.fleet import Fleet
from controller.policies.parts import ENGINE, FROZEN_S, count
from controller.policies.speed import DOUBT_S, LEAP, SEEN_MOST_S, SENT_S, WARM_ANSWERS, learn, sent
from tests.controller.policies.fleets import NOW_S, any_fleets, measured

STEP_S = 0.05


def step_s(pool: Fleet, at: int) -> float:
    context = pool.in_flight[at] * (pool.mean_prompt_tokens + 0.5 * pool.mean_output_tokens)
    return float(ENGINE.step_s + ENGINE.sequence_s * pool.in_flight[at] + ENGINE.kv_token_s * context)


def live(pool: Fleet, slow: list[float], seconds: float, seed: int = 1, noise: float = 0.03) -> None:
    """The pods decode at these speeds, and that is measured with some noise."""
    rng = Random(seed)
    for _ in range(round(seconds / STEP_S)):
        pool.now_s += STEP_S
        pool.kernel_at_s[:] = pool.now_s
        for at, factor in enumerate(slow):
            pool.low_gap_s[at] = step_s(pool, at) * factor * rng.gauss(1.0, noise)
        learn(pool)


def test_equal_pods_are_equally_fast_whatever_engine_they_run() -> None:
    pool = measured([8, 12, 4, 9])
    live(pool, [4.0] * 4, 10.0)

    assert pool.speed.tolist() == [1.0] * 4
    assert pool.pool_pace == pytest.approx(4.0, rel=0.05)


def test_a_pod_that_gets_slow_is_known_within_two_seconds_and_forgiven_as_fast() -> None:
    pool = measured([8, 8, 8, 8])
    live(pool, [1, 1, 1, 1], 5.0)
    live(pool, [1, 1, 2, 1], 2.0)
    assert pool.speed[2] == pytest.approx(2.0, rel=0.12)

    live(pool, [1, 1, 1, 1], 3.0)
    assert pool.speed[2] == pytest.approx(1.0, rel=0.12)


def test_a_mixed_pool_is_told_apart() -> None:
    pool = measured([8] * 8)
    live(pool, [1.0] * 4 + [1.87] * 4, 10.0)

    assert (pool.speed[4:] / pool.speed[:4]).tolist() == pytest.approx([1.87] * 4, rel=0.1)


def test_the_lower_quartile_goes_before_the_mean() -> None:
    pool = measured([8, 8], low_gap_s=[0.01, 0.01], gap_s=[0.01, 0.1])
    pool.now_s += 1.0
    pool.kernel_at_s[:] = pool.now_s
    learn(pool)

    assert pool.speed.tolist() == [1.0, 1.0]


def test_an_old_count_teaches_nothing() -> None:
    pool = measured([8, 8], low_gap_s=[0.01, 0.05])
    pool.now_s += 1.0
    learn(pool)

    assert pool.speed.tolist() == [1.0, 1.0]


def test_what_is_sent_fades() -> None:
    pool = measured([1, 1])
    for _ in range(200):
        sent(pool, 0, 500.0)
        pool.now_s += 0.1
        learn(pool)
    assert pool.sent_rate[0] == pytest.approx(5000.0, rel=0.05)

    pool.now_s += 5 * SENT_S
    learn(pool)
    assert pool.sent_rate[0] < 50


@given(any_fleets(), st.floats())
def test_no_numbers_make_a_speed_senseless(pool: Fleet, tokens: float) -> None:
    pool.speed[:] = 1.0
    pool.pace[:] = np.nan
    pool.sent_rate[:] = 0.0
    for _ in range(3):
        sent(pool, 0, tokens)
        pool.now_s += 0.1
        learn(pool)

    assert (pool.speed > 0).all()
    assert np.isfinite(pool.speed).all()
    assert (pool.sent_rate >= 0).all()
    assert pool.pool_pace > 0


def frozen(in_flight: float, answers: bool) -> Fleet:
    """One endpoint whose counts stand still while requests are sent to it, for two seconds."""
    pool = measured([in_flight, 4], answered=[0.0, 0.0])
    for step in range(20):
        pool.now_s += 0.1
        pool.kernel_at_s[:] = pool.now_s
        pool.in_flight[1] = 4 + step % 2
        pool.answered[0] += answers
        sent(pool, 0, 100.0)
        sent(pool, 1, 100.0)
        learn(pool)
    return pool


@pytest.mark.parametrize(("in_flight", "answers", "believed"), [(3, False, False), (3, True, True), (500, True, False)])
def test_counts_that_do_not_move_with_what_is_sent_are_not_believed(
    in_flight: float, answers: bool, believed: bool
) -> None:
    pool = frozen(in_flight, answers)

    assert (pool.unmoved_s < FROZEN_S).tolist() == [believed, True]
    assert bool(count(pool.matrix, pool.now_s, 0.0).fresh[0]) is believed


@pytest.mark.parametrize(
    ("in_flight", "output_tokens", "believed"), [(300, 200, False), (300, 5e4, True), (3, 200, True)]
)
def test_that_no_request_ends_for_two_seconds_may_be_chance_or_not(
    in_flight: float, output_tokens: float, believed: bool
) -> None:
    pool = measured([in_flight, 4], gap_s=0.02, answered=[0.0, 0.0])
    pool.mean_output_tokens = output_tokens
    for _ in range(20):
        pool.now_s += 0.1
        learn(pool)

    assert (pool.unmoved_s[0] < FROZEN_S) == believed


@pytest.mark.parametrize("ours", [True, False])
def test_what_we_sent_or_what_began_is_no_leap(ours: bool) -> None:
    pool = measured([10, 4], answered=[0.0, 0.0])
    pool.now_s += 0.1
    learn(pool)
    for _ in range(200 * ours):
        sent(pool, 0, 100.0)
    pool.in_flight[0] += 200
    pool.waiting[0] += 200 * (not ours)
    pool.now_s += 0.1
    learn(pool)

    assert pool.unmoved_s[0] == 0


@pytest.mark.parametrize(("leap", "believed"), [(4 * LEAP, False), (-4 * LEAP, False), (0.2 * LEAP, True)])
def test_a_count_that_leaps_is_doubted_for_a_while(leap: float, believed: bool) -> None:
    pool = measured([5 * LEAP, 4], answered=[0.0, 0.0])
    pool.now_s += 0.1
    learn(pool)
    pool.in_flight[0] += leap
    for step in range(int(DOUBT_S / 0.1) + 5):
        pool.now_s += 0.1
        pool.in_flight[0] += 1 - 2 * (step % 2)
        learn(pool)
        if step * 0.1 < DOUBT_S - 0.2:
            assert (pool.unmoved_s[0] < FROZEN_S) == believed
    assert pool.unmoved_s[0] < FROZEN_S


def test_counts_that_move_again_are_believed_again_and_idle_ones_may_stand_still() -> None:
    pool = frozen(3, False)
    pool.in_flight[0] = 4
    pool.now_s += 0.1
    learn(pool)
    assert pool.unmoved_s[0] == 0

    pool.in_flight[0] = 0
    for seconds in (0.1, 60.0):
        pool.now_s += seconds
        learn(pool)
    assert pool.unmoved_s[0] == 0


def test_a_new_pod_that_has_answered_is_cold_no_more() -> None:
    pool = measured([1, 1], answered=[100.0, 100.0], ready_at_s=[np.nan, NOW_S])
    for answered in (100, 101, 100 + WARM_ANSWERS):
        pool.now_s += 0.1
        pool.answered[1] = answered
        learn(pool)
        assert np.isnan(pool.ready_at_s[1]) == (answered == 100 + WARM_ANSWERS)


def test_a_pod_taken_for_slow_is_forgiven_though_nothing_is_sent_to_it() -> None:
    """Else nothing would ever tell that it is not: who is slow gets nothing, and who gets nothing shows no gaps."""
    pool = measured([8, 8, 8, 8])
    live(pool, [1, 1, 3, 1], 5.0)
    assert pool.speed[2] == pytest.approx(3.0, rel=0.12)

    pool.in_flight[2] = 0.0
    live(pool, [1, 1, 3, 1], 15.0)
    assert pool.speed[2] == pytest.approx(1.0, rel=0.15)


def test_the_first_gaps_of_a_pod_do_not_make_its_name() -> None:
    pool = measured([8, 8, 8, 1])
    live(pool, [1, 1, 1, 4], 0.2)

    assert pool.speed[3] < 1.5


def test_long_contexts_are_no_slowness() -> None:
    pool = measured([8, 8, 8, 8])
    pool.own_in_flight[:] = 8.0
    pool.own_tokens[:] = [8 * 500.0, 8 * 500.0, 8 * 500.0, 8 * 12_000.0]
    for _ in range(100):
        pool.now_s += STEP_S
        pool.kernel_at_s[:] = pool.now_s
        context = pool.own_tokens + 8 * 0.5 * pool.mean_output_tokens
        pool.low_gap_s[:] = ENGINE.step_s + ENGINE.sequence_s * 8 + ENGINE.kv_token_s * context
        learn(pool)

    assert pool.speed.tolist() == [1.0] * 4


def test_what_is_seen_after_a_long_time_is_not_taken_to_have_been_so_all_the_time() -> None:
    """A controller that was held up, or had nothing to look at, does not doubt a count because of that."""
    pool = measured([4, 4], [1, 1], low_gap_s=[step_s(measured([4]), 0)] * 2)
    live(pool, [1, 1], 2.0)
    pool.low_gap_s[1] *= 3.0
    pool.now_s += 5.0
    pool.kernel_at_s[:] = pool.now_s
    sent(pool, 0, 100.0)
    before = pool.queue_busy_s.copy()
    learn(pool)

    assert pool.unmoved_s[0] < FROZEN_S
    assert (pool.queue_busy_s <= before + SEEN_MOST_S).all()
    assert pool.pace[1] < 2.0
