"""What a row of a slot means."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from agent.kernel.layout import BUCKETS, bucket_index
from agent.signals import (
    GAPS_LEAST,
    Gaps,
    Sums,
    accept_overflows,
    begin_usual,
    connections,
    follow_gaps,
    follow_usual,
    gauge,
    kernel_signal,
    progress_age_ns,
)
from tests.agent.rows import MS, S, row


def test_progress_counts_from_the_last_byte_or_from_when_it_became_busy() -> None:
    assert progress_age_ns(row(in_flight=1, last_byte_ns=5 * S, busy_since_ns=3 * S), 7 * S) == 2 * S
    assert progress_age_ns(row(in_flight=1, last_byte_ns=5 * S, busy_since_ns=6 * S), 7 * S) == 1 * S


def test_what_is_idle_makes_no_progress_and_lacks_none() -> None:
    assert progress_age_ns(row(last_byte_ns=5 * S), 7 * S) is None
    assert not kernel_signal(row(), begin_usual(0), Gaps(), 0, 0).HasField("progress_age_us")


def test_gauges_are_never_below_zero() -> None:
    assert gauge(row(in_flight=-1), "in_flight") == 0
    assert connections(row(connections_opened=1, connections_closed=2)) == 0
    assert accept_overflows(row(syns=1, syn_acks=2)) == 0


def test_ages_are_of_the_time_of_sending() -> None:
    signal = kernel_signal(row(in_flight=2, last_byte_ns=9 * S), begin_usual(0), Gaps(), 10 * S, 10 * S + 15 * MS)
    assert (signal.age_us, signal.progress_age_us, signal.in_flight) == (15_000, 1_015_000, 2)


def test_an_unknown_round_trip_is_absent() -> None:
    assert not kernel_signal(row(), begin_usual(0), Gaps(), 0, 0).HasField("srtt_us")
    assert kernel_signal(row(srtt_us=70), begin_usual(0), Gaps(), 0, 0).srtt_us == 70


def test_the_usual_times_are_means_of_the_last_ten_seconds() -> None:
    usual = begin_usual(0)
    assert (usual.ttft_us, usual.gap_us) == (None, None)
    for second in range(1, 31):
        # until 15 s each first token takes 100 ms, then 20 ms
        slow, quick = min(second, 15), max(0, second - 15)
        total_ns = slow * 100 * MS + quick * 20 * MS
        usual = follow_usual(usual, Sums(second * S, total_ns, second, 0, 0))
    assert usual.ttft_us == 20_000
    assert usual.gap_us is None
    assert len(usual.sums) <= 12


def test_a_mean_stays_while_nothing_new_ends() -> None:
    usual = follow_usual(begin_usual(0), Sums(S, 50 * MS, 1, 0, 0))
    for second in range(2, 40):
        usual = follow_usual(usual, Sums(second * S, 50 * MS, 1, 0, 0))
    assert usual.ttft_us == 50_000


def histogram(*values_us: int) -> npt.NDArray[np.uint32]:
    counts = np.zeros(BUCKETS, np.uint32)
    for value in values_us:
        counts[bucket_index(value)] += 1
    return counts


def test_the_quartile_of_the_gaps_is_that_of_the_new_ones() -> None:
    before = histogram(*[1_000] * 500)
    gaps = follow_gaps(Gaps(), before)
    assert gaps.quartile_us is None

    steps, stretched = [10_000] * 30, [200_000] * 70
    gaps = follow_gaps(gaps, before + histogram(*steps, *stretched))
    assert gaps.quartile_us == pytest.approx(10_000, rel=0.07)
    assert kernel_signal(row(), begin_usual(0), gaps, 0, 0).low_gap_us == gaps.quartile_us


def test_too_few_gaps_wait_for_more() -> None:
    gaps = follow_gaps(Gaps(), histogram())
    few = histogram(*[5_000] * (GAPS_LEAST - 1))
    assert follow_gaps(gaps, few).quartile_us is None

    assert follow_gaps(follow_gaps(gaps, few), few + histogram(5_000)).quartile_us == pytest.approx(5_000, rel=0.07)


def test_counts_that_wrap_are_no_matter() -> None:
    gaps = follow_gaps(Gaps(), np.full(BUCKETS, (1 << 32) - 1, np.uint32))
    after = np.full(BUCKETS, (1 << 32) - 1, np.uint32)
    with np.errstate(over="ignore"):
        after[bucket_index(300)] += np.uint32(20)

    assert follow_gaps(gaps, after).quartile_us == pytest.approx(300, rel=0.07)
