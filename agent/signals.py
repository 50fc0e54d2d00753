"""What the scalars of one slot mean now: gauges, ages and recent means. Pure; time is an argument.

A row is the scalars of one slot in the order of FIELDS, as Python integers. Times are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.kernel import layout
from agent.proto.telemetry_pb2 import KernelSignal

Row = Sequence[int]

# the scalars of struct sonde_slot stand before its histograms: one run of 64 bit words
FIELDS = tuple(name for name in layout.SLOT.names or () if layout.SLOT[name].subdtype is None)
HISTOGRAMS = tuple(name for name in layout.SLOT.names or () if name not in FIELDS)
COLUMN = {name: column for column, name in enumerate(FIELDS)}

WINDOW_NS = 10_000_000_000  # the means are of what ended in about this time
_UINT32_MAX = (1 << 32) - 1

# a change of one of these is news for whoever watches; ages and sums move with them or mean nothing alone
REPORTED = (
    "generation",
    "in_flight",
    "waiting",
    "started",
    "responded",
    "completed",
    "client_aborted",
    "server_aborted",
    "status_5xx",
    "chunks",
    "connections_opened",
    "connections_adopted",
    "connections_closed",
    "resets_out",
    "retransmits",
)
# a change of one of these may have moved the engine's own gauges; the reading of its page changes none of them
ACTIVITY = ("generation", "in_flight", "started", "chunks", "completed", "client_aborted", "server_aborted")


def value(row: Row, field: str) -> int:
    return row[COLUMN[field]]


def gauge(row: Row, field: str) -> int:
    """Never below zero: what began before the programs were loaded may end after."""
    return max(0, value(row, field))


def connections(row: Row) -> int:
    began = value(row, "connections_opened") + value(row, "connections_adopted")
    return max(0, began - value(row, "connections_closed"))


def progress_age_ns(row: Row, now_ns: int) -> int | None:
    """Since the last response byte, or since the slot became busy; None when nothing is in flight."""
    if value(row, "in_flight") <= 0:
        return None
    return max(0, now_ns - max(value(row, "last_byte_ns"), value(row, "busy_since_ns")))


def accept_overflows(row: Row) -> int:
    """SYNs that were not answered: the kernel drops them when the listener's queue is full."""
    return max(0, value(row, "syns") - value(row, "syn_acks"))


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of one slot at one time."""

    at_ns: int
    ttft_ns: int = 0
    ttft_count: int = 0
    gap_ns: int = 0
    gap_count: int = 0


@dataclass(frozen=True, slots=True)
class Usual:
    """Recent means of one slot.

    `sums` are those of the last WINDOW_NS, oldest first, and one older; they begin at zero, so that an agent that just
    started takes the mean of all that was ever counted. A mean stays as it was while nothing new ends.
    """

    sums: tuple[Sums, ...]
    ttft_us: int | None = None
    gap_us: int | None = None


def begin_usual(now_ns: int) -> Usual:
    return Usual((Sums(now_ns),))


def follow_usual(usual: Usual, now: Sums) -> Usual:
    """The means with the sums of now; call about once a second. The slot must be the same pod's as before."""
    oldest = usual.sums[0]
    ttft_us = _mean_us(now.ttft_ns - oldest.ttft_ns, now.ttft_count - oldest.ttft_count, usual.ttft_us)
    gap_us = _mean_us(now.gap_ns - oldest.gap_ns, now.gap_count - oldest.gap_count, usual.gap_us)
    # of those that left the window the youngest stays: the window's own begin
    first = max((i for i, sums in enumerate(usual.sums) if sums.at_ns <= now.at_ns - WINDOW_NS), default=0)
    return Usual((*usual.sums[first:], now), ttft_us, gap_us)


def _mean_us(total_ns: int, count: int, before: int | None) -> int | None:
    return total_ns // count // 1000 if count > 0 and total_ns >= 0 else before


GAPS_LEAST = 16  # a quartile of fewer says little


@dataclass(frozen=True, slots=True)
class Gaps:
    """The lower quartile of recent gaps: decode steps as such, without the prompts that stretch the mean."""

    counts: npt.NDArray[np.uint32] | None = None  # of all gaps by bucket, when the quartile was last taken
    quartile_us: int | None = None


NO_GAPS = Gaps()


def follow_gaps(gaps: Gaps, counts: npt.NDArray[np.uint32]) -> Gaps:
    """The quartile of the gaps since it was last taken; call some times a second. It waits until there are enough."""
    if gaps.counts is None:
        return Gaps(counts, gaps.quartile_us)
    new = counts - gaps.counts  # wraps as the counts do
    if int(new.sum()) < GAPS_LEAST:
        return gaps
    return Gaps(counts, _quartile_us(new))


def _quartile_us(counts: npt.NDArray[np.uint32]) -> int:
    """Values are taken to lie evenly in their bucket."""
    cumulated = np.cumsum(counts, dtype=np.int64)
    wanted = int(cumulated[-1]) / 4
    bucket = int(np.searchsorted(cumulated, wanted))
    upper_us = layout.bucket_upper_us(bucket)
    lower_us = layout.bucket_upper_us(bucket - 1) if bucket else 0
    before = int(cumulated[bucket - 1]) if bucket else 0
    return round(lower_us + (upper_us - lower_us) * (wanted - before) / int(counts[bucket]))


def sums_of(row: Row, now_ns: int) -> Sums:
    return Sums(
        now_ns,
        value(row, "ttft_ns_sum"),
        value(row, "first_data"),
        value(row, "gap_ns_sum"),
        value(row, "gaps"),
    )


def kernel_signal(row: Row, usual: Usual, gaps: Gaps, sampled_ns: int, now_ns: int) -> KernelSignal:
    """The signal of a row that was read at `sampled_ns`, in a frame sent at `now_ns`."""
    age_ns = progress_age_ns(row, now_ns)
    return KernelSignal(
        age_us=max(0, now_ns - sampled_ns) // 1000,
        in_flight=min(gauge(row, "in_flight"), _UINT32_MAX),
        waiting=min(gauge(row, "waiting"), _UINT32_MAX),
        started=value(row, "started"),
        completed=value(row, "completed"),
        client_aborted=value(row, "client_aborted"),
        server_aborted=value(row, "server_aborted"),
        status_5xx=value(row, "status_5xx"),
        chunks=value(row, "chunks"),
        connections=min(connections(row), _UINT32_MAX),
        resets_out=value(row, "resets_out"),
        retransmits=value(row, "retransmits"),
        progress_age_us=None if age_ns is None else age_ns // 1000,
        usual_ttft_us=usual.ttft_us,
        usual_gap_us=usual.gap_us,
        srtt_us=value(row, "srtt_us") or None,
        low_gap_us=gaps.quartile_us,
    )
