"""What the scalars of one slot mean now: gauges and ages. Pure; time is an argument.

A row is the scalars of one slot in the order of FIELDS, as Python integers. Times are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.kernel import layout
from agent.proto.telemetry_pb2 import KernelSignal
from agent.recent import Gaps, Sums, Usual

Row = Sequence[int]

# the scalars of struct sonde_slot stand before its histograms: one run of 64 bit words
FIELDS = tuple(name for name in layout.SLOT.names or () if layout.SLOT[name].subdtype is None)
HISTOGRAMS = tuple(name for name in layout.SLOT.names or () if name not in FIELDS)
COLUMN = {name: column for column, name in enumerate(FIELDS)}

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
