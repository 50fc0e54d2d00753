"""The metrics of the node's pods: names, meanings and units, and how slots become samples. Pure.

Labels are namespace and pod, the ports of a pod summed; never an address or a flow. A pod's series go with the pod.

Histograms. The kernel's buckets hold whole microseconds, eight to a power of two, and their bounds include each power
of two and each one and a half times a power of two. The `le` values are such bounds, 1.024 ms to 134.2 s and twice as
many of them where answers of language models lie, so that each cumulative count is a sum of whole kernel buckets and
nothing is interpolated. A kernel bucket excludes its upper bound: a sample of exactly `le` is counted in the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.exporting.exposition import (
    Distribution,
    Family,
    Labels,
    counter,
    gauge,
    histogram,
    labels_of,
    written,
    written_counts,
    written_histogram,
)
from agent.exporting.pod_counters import COUNTERS, POD
from agent.exporting.snapshot import PodState
from agent.kernel import layout
from agent.placing.slots import Owner
from agent.signals import COLUMN, FIELDS, Row, accept_overflows, connections, progress_age_ns, value
from agent.signals import gauge as level

_UPPER_US = [layout.bucket_upper_us(index) for index in range(layout.BUCKETS)]


def bounds_us(finer_from: int = 0, finer_to: int = 0) -> tuple[int, ...]:
    """Powers of two from 1.024 ms to 134.2 s, and between two given ones (exponents) also those in the middle."""
    return tuple(sorted([*(1 << e for e in range(10, 28)), *(3 << e - 1 for e in range(finer_from, finer_to))]))


_TIMES_US = bounds_us(15, 22)  # finer from 33 ms to 4.2 s: prompts of usual length
# for what is looked at rarely: each bound is a line for each pod and scrape
_COARSE_US = (*bounds_us()[::2], bounds_us()[-1])
_GAPS_US = bounds_us(13, 18)  # finer from 8 ms to 262 ms: decode steps


@dataclass(frozen=True, slots=True)
class _Gauge:
    family: Family
    of: Callable[[Sequence[Row], int], float | None]  # the rows of a pod and the time; None: unknown, so no sample


@dataclass(frozen=True, slots=True)
class _Times:
    family: Family
    firsts: tuple[int, ...]  # the kernel bucket that each of ours begins with
    histogram: str
    sum_ns: str
    rare: bool = False  # most pods have none: then there is no series rather than one of zeros


def _stalled_s(rows: Sequence[Row], now_ns: int) -> float:
    return max(progress_age_ns(row, now_ns) or 0 for row in rows) / 1e9


def _rtt_s(rows: Sequence[Row], _now_ns: int) -> float | None:
    known_us = [value(row, "srtt_us") for row in rows if value(row, "srtt_us")]
    return max(known_us) / 1e6 if known_us else None


_OPEN = gauge(
    "sonde_pod_connections_open",
    "TCP connections to the pod's serving ports that are open now, also those opened before it was measured.",
    *POD,
)
_GAUGES = (
    _Gauge(
        gauge(
            "sonde_pod_requests_in_flight",
            "Requests the pod has begun to receive and not finished answering, as the node's kernel counts them. "
            "Health checks and metrics scrapes are left out.",
            *POD,
        ),
        lambda rows, _: sum(level(row, "in_flight") for row in rows),
    ),
    _Gauge(
        gauge(
            "sonde_pod_requests_waiting",
            "Of the requests in flight, those that have not got a first token (first byte of answer data) yet: "
            "queued or in prefill. The others are streaming.",
            *POD,
        ),
        lambda rows, _: sum(level(row, "waiting") for row in rows),
    ),
    _Gauge(
        gauge(
            "sonde_pod_stalled_seconds",
            "How long the pod has sent no byte of any answer although a request is in flight; 0 while nothing is. "
            "Grows without end when an engine hangs. Normal values are below the time to first token.",
            *POD,
        ),
        _stalled_s,
    ),
    _Gauge(
        gauge(
            "sonde_pod_tcp_rtt_seconds",
            "Smoothed TCP round trip time between the pod and its client, of the connection that last finished an "
            "answer.",
            *POD,
        ),
        _rtt_s,
    ),
)

_LENGTH = gauge(
    "sonde_pod_accept_queue_length",
    "Connections established that the pod has not accepted yet, about a second ago at most. Absent where the agent may "
    "not look into the pod's network namespace.",
    *POD,
)
_LIMIT = gauge("sonde_pod_accept_queue_limit", "How long that queue may be (the listen backlog).", *POD)
_LONGEST = gauge(
    "sonde_pod_accept_queue_longest",
    "How long that queue was at most when it was looked at, since the agent began.",
    *POD,
)

_OVERFLOWS = counter(
    "sonde_pod_accept_queue_overflows_total",
    "Connection attempts the kernel dropped because the pod did not accept connections fast enough (its queue of "
    "accepted connections was full). Clients see them as delays of a second and more.",
    *POD,
)


def _times(name: str, text: str, field: str, bounds: tuple[int, ...] = _TIMES_US, rare: bool = False) -> _Times:
    family = histogram(f"sonde_pod_{name}_seconds", text, [bound / 1e6 for bound in bounds], *POD)
    firsts = (0, *(_UPPER_US.index(bound) + 1 for bound in bounds))
    return _Times(family, firsts, f"{field}_hist", f"{field}_ns_sum", rare)


_HISTOGRAMS = (
    _times(
        "request_upload",
        "Time from the first to the last byte of a request as it reached the pod.",
        "upload",
        _COARSE_US,
    ),
    _times(
        "response_header",
        "Time from a request's first byte to the first byte of the response header. Many engines send it long before "
        "the first token.",
        "header",
        _COARSE_US,
    ),
    _times(
        "time_to_first_token",
        "Time from a request's first byte to the first byte of answer data (for event streams the first data: line; "
        "comments and headers do not count), measured at the pod, so without gateway and client network.",
        "ttft",
    ),
    _times(
        "inter_chunk",
        "Time between two segments of answer data of one request: about the time per output token of a streaming "
        "answer.",
        "gap",
        _GAPS_US,
    ),
    _times(
        "request_duration",
        "Time from a request's first byte to the end of its answer, of answers that were completed.",
        "duration",
    ),
    _times(
        "read_delay",
        "Time from the arrival of bytes of a request to the pod having read them: an event loop that stands still. "
        "Needs measurement level 2.",
        "read_delay",
        _COARSE_US,
        rare=True,
    ),
    _times(
        "approximate_first_byte",
        "On opaque connections (TLS): time from a question to its answer. Approximate, told by direction and size "
        "alone.",
        "turn",
        rare=True,
    ),
    _times(
        "approximate_gap",
        "On opaque connections (TLS): time between two segments of an answer. Approximate.",
        "turn_gap",
        _GAPS_US,
        rare=True,
    ),
)

FAMILIES: tuple[Family, ...] = (
    _OPEN,
    *(each.family for each in _GAUGES),
    *(_LENGTH, _LIMIT, _LONGEST),
    *(each.family for each in COUNTERS),
    _OVERFLOWS,
    *(each.family for each in _HISTOGRAMS),
)


class PodMetrics:
    """Writes the pods' part of the page; remembers only what keeps a difference of two counters from falling."""

    def __init__(self) -> None:
        self._overflows: dict[Owner, int] = {}

    def written(self, pods: Sequence[PodState], now_ns: int) -> Iterator[str]:
        pods = [pod for pod in pods if pod.slots]
        names = [labels_of(POD, (pod.namespace, pod.pod)) for pod in pods]
        rows = [(labels, [slot.row for slot in pod.slots]) for labels, pod in zip(names, pods, strict=True)]
        yield written(_OPEN, zip(names, map(_open, pods), strict=True))
        yield from _queue_metrics(names, pods)
        for one in _GAUGES:
            values = ((labels, one.of(of_pod, now_ns)) for labels, of_pod in rows)
            yield written(one.family, ((labels, known) for labels, known in values if known is not None))
        totals = _totals(pods)
        for sums in COUNTERS:
            yield written_counts(sums.family, names, {kind: totals[COLUMN[of]] for kind, of in sums.fields.items()})
        yield written_counts(_OVERFLOWS, names, {"": self._overflow_values(pods)})
        for times in _HISTOGRAMS:
            spreads = zip(names, _distributions(times, pods, totals[COLUMN[times.sum_ns]]), strict=True)
            yield written_histogram(times.family, (each for each in spreads if each[1].counts[-1] or not times.rare))

    def _overflow_values(self, pods: Sequence[PodState]) -> list[int]:
        """A SYN-ACK sent again lessens the difference of SYNs and SYN-ACKs, and a counter may not fall."""
        now = {
            slot.owner: max(self._overflows.get(slot.owner, 0), accept_overflows(slot.row))
            for pod in pods
            for slot in pod.slots
        }
        self._overflows = now
        return [sum(now[slot.owner] for slot in pod.slots) for pod in pods]


def _open(pod: PodState) -> int:
    return sum(connections(slot.row) + slot.sockets.unheard for slot in pod.slots)


def _queue_metrics(names: Sequence[Labels], pods: Sequence[PodState]) -> Iterator[str]:
    queues = [[slot.sockets.queue for slot in pod.slots if slot.sockets.queue is not None] for pod in pods]
    known = [(labels, of_pod) for labels, of_pod in zip(names, queues, strict=True) if of_pod]
    yield written(_LENGTH, ((labels, sum(queue.length for queue in of_pod)) for labels, of_pod in known))
    yield written(_LIMIT, ((labels, sum(queue.limit for queue in of_pod)) for labels, of_pod in known))
    yield written(_LONGEST, ((labels, max(queue.longest for queue in of_pod)) for labels, of_pod in known))


def _totals(pods: Sequence[PodState]) -> Sequence[Sequence[int]]:
    """By field, the sums over each pod's slots; at once, since picking numbers out of rows costs four times as much."""
    if not pods:
        return [()] * len(FIELDS)
    rows = np.array([slot.row for pod in pods for slot in pod.slots], np.int64)
    by_field: list[list[int]] = _by_pod(rows, pods).T.tolist()
    return by_field


def _by_pod(by_slot: npt.NDArray[np.int64], pods: Sequence[PodState]) -> npt.NDArray[np.int64]:
    """The sums of each pod's slots, which stand together."""
    if len(by_slot) == len(pods):
        return by_slot
    return np.add.reduceat(by_slot, np.cumsum([0, *(len(pod.slots) for pod in pods[:-1])]), axis=0)


def _distributions(times: _Times, pods: Sequence[PodState], sums_ns: Sequence[int]) -> list[Distribution]:
    if not pods:
        return []
    slots = np.concatenate([slot.histograms[times.histogram] for pod in pods for slot in pod.slots])
    # fewer buckets first: to add up all of the kernel's takes six times as long
    buckets = np.add.reduceat(slots.reshape(-1, layout.BUCKETS), times.firsts, axis=1, dtype=np.int64)
    counts: list[list[int]] = np.cumsum(_by_pod(buckets, pods), axis=1).tolist()
    return [Distribution(each, sum_ns / 1e9) for each, sum_ns in zip(counts, sums_ns, strict=True)]
