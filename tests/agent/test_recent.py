"""What a pod took lately, and what stays of it when nothing new comes."""

from __future__ import annotations

import numpy as np
import pytest

from agent.kernel.layout import BUCKETS, bucket_index
from agent.recent import (
    GAPS_LEAST,
    NO_GAPS,
    RENEW_NS,
    WINDOW_NS,
    Counts,
    Gaps,
    Sums,
    Usual,
    begin_usual,
    follow_gaps,
    follow_usual,
)
from tests.agent.rows import MS, S


def renewed(usual: Usual, begin_ns: int, for_ns: int, each: int, total: Sums) -> tuple[Usual, Sums, int]:
    """Renewed as the agent does, while at each renewal one more first token and gap are there, `each` long."""
    now_ns = begin_ns
    while now_ns < begin_ns + for_ns:
        now_ns += RENEW_NS
        more = 1 if each else 0
        total = Sums(
            now_ns, total.ttft_ns + each, total.ttft_count + more, total.gap_ns + each // 10, total.gap_count + more
        )
        usual = follow_usual(usual, total)
    return usual, total, now_ns


def test_usual_times_are_means_of_the_last_two_seconds() -> None:
    usual, total, now_ns = renewed(begin_usual(Sums(0)), 0, 15 * S, 100 * MS, Sums(0))
    assert (usual.ttft_us, usual.gap_us) == (100_000, 10_000)
    usual, total, now_ns = renewed(usual, now_ns, WINDOW_NS // 2, 20 * MS, total)
    assert (usual.ttft_us, usual.gap_us) == (60_000, 6_000)
    usual, total, now_ns = renewed(usual, now_ns, WINDOW_NS // 2, 20 * MS, total)
    assert (usual.ttft_us, usual.gap_us) == (20_000, 2_000)
    assert len(usual.sums) <= WINDOW_NS // RENEW_NS + 1


def test_what_never_ended_has_no_mean() -> None:
    usual = follow_usual(begin_usual(Sums(0)), Sums(S, 0, 0, 30 * MS, 3))
    assert (usual.ttft_us, usual.gap_us) == (None, 10_000)


def test_means_stay_while_nothing_new_ends_and_there_is_nothing_to_follow() -> None:
    usual, total, now_ns = renewed(begin_usual(Sums(0)), 0, S, 50 * MS, Sums(0))
    assert not usual.settled
    usual, total, now_ns = renewed(usual, now_ns, 40 * S, 0, total)
    assert (usual.ttft_us, usual.gap_us) == (50_000, 5_000)
    assert usual.settled
    assert (
        follow_usual(usual, Sums(now_ns + S, total.ttft_ns, total.ttft_count, total.gap_ns, total.gap_count)) is usual
    )


def test_what_ends_after_a_pause_is_not_mixed_with_what_was_before() -> None:
    usual, total, now_ns = renewed(begin_usual(Sums(0)), 0, 5 * S, 50 * MS, Sums(0))
    usual, total, now_ns = renewed(usual, now_ns, 10 * S, 0, total)
    usual, _, _ = renewed(usual, now_ns, RENEW_NS, 300 * MS, total)
    assert (usual.ttft_us, usual.gap_us) == (300_000, 30_000)


def test_an_agent_that_just_came_takes_all_that_was_ever_counted_until_something_ends() -> None:
    usual = begin_usual(Sums(S, 1000 * 80 * MS, 1000, 0, 0))
    assert (usual.ttft_us, usual.gap_us) == (80_000, None)
    assert follow_usual(usual, Sums(2 * S, 1000 * 80 * MS + 10 * MS, 1001, 0, 0)).ttft_us == 10_000


def histogram(*values_us: int) -> Counts:
    counts = np.zeros(BUCKETS, np.uint32)
    for value in values_us:
        counts[bucket_index(value)] += 1
    return counts


def test_the_quartile_of_the_gaps_is_that_of_the_new_ones() -> None:
    before = histogram(*[1_000] * 500)
    gaps = follow_gaps(NO_GAPS, before, 0)
    assert gaps.quartile_us is None

    steps, stretched = [10_000] * 30, [200_000] * 70
    gaps = follow_gaps(gaps, before + histogram(*steps, *stretched), RENEW_NS)
    assert gaps.quartile_us == pytest.approx(10_000, rel=0.07)


def looked(gaps: Gaps, counts: Counts, begin_ns: int, for_ns: int, each_us: list[int]) -> tuple[Gaps, Counts, int]:
    now_ns = begin_ns
    while now_ns < begin_ns + for_ns:
        now_ns, counts = now_ns + RENEW_NS, counts + histogram(*each_us)
        gaps = follow_gaps(gaps, counts, now_ns)
    return gaps, counts, now_ns


def test_the_quartile_is_of_the_whole_window_and_of_no_more() -> None:
    gaps, counts, now_ns = looked(NO_GAPS, histogram(), 0, 10 * S, [8_000] * 10)
    assert gaps.quartile_us == pytest.approx(8_000, rel=0.07)
    # three quarters of a window that is slow: the quickest quarter is still of before
    gaps, counts, now_ns = looked(gaps, counts, now_ns, WINDOW_NS * 5 // 8, [40_000] * 10)
    assert gaps.quartile_us == pytest.approx(8_000, rel=0.07)
    gaps, counts, now_ns = looked(gaps, counts, now_ns, WINDOW_NS * 3 // 8, [40_000] * 10)
    assert gaps.quartile_us == pytest.approx(40_000, rel=0.07)
    assert len(gaps.looks) <= WINDOW_NS // RENEW_NS + 1


def test_too_few_gaps_wait_for_more() -> None:
    gaps = follow_gaps(NO_GAPS, histogram(), 0)
    few = histogram(*[5_000] * (GAPS_LEAST - 1))
    assert follow_gaps(gaps, few, S).quartile_us is None

    gaps = follow_gaps(follow_gaps(gaps, few, S), few + histogram(5_000), 5 * S)
    assert gaps.quartile_us == pytest.approx(5_000, rel=0.07)


def test_of_a_pod_with_few_gaps_the_last_ones_count_and_no_more_are_kept() -> None:
    gaps, counts, now_ns = looked(NO_GAPS, histogram(), 0, 20 * S, [10_000])
    gaps, counts, now_ns = looked(gaps, counts, now_ns, 20 * RENEW_NS, [400_000])
    assert gaps.quartile_us == pytest.approx(400_000, rel=0.07)
    assert len(gaps.looks) <= GAPS_LEAST + 1


def test_a_histogram_that_stands_still_adds_no_look() -> None:
    gaps, counts, now_ns = looked(NO_GAPS, histogram(), 0, S, [10_000] * 20)
    assert follow_gaps(gaps, counts, now_ns + RENEW_NS) is gaps


def test_counts_that_wrap_are_no_matter() -> None:
    gaps = follow_gaps(NO_GAPS, np.full(BUCKETS, (1 << 32) - 1, np.uint32), 0)
    after = np.full(BUCKETS, (1 << 32) - 1, np.uint32)
    with np.errstate(over="ignore"):
        after[bucket_index(300)] += np.uint32(20)

    assert follow_gaps(gaps, after, S).quartile_us == pytest.approx(300, rel=0.07)
