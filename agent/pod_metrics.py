"""The metrics of the node's pods: names, meanings and units, and how slots become samples. Pure.

Labels are namespace and pod, the ports of a pod summed; never an address or a flow. A pod's series go with the pod.

Histograms. The kernel's buckets hold whole microseconds, eight to a power of two, and their bounds include each power
of two and each one and a half times a power of two. The `le` values are such bounds, 1.024 ms to 134.2 s and twice as
many of them where answers of language models lie, so that each cumulative count is a sum of whole kernel buckets and
nothing is interpolated. A kernel bucket excludes its upper bound: a sample of exactly `le` is counted in the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent.exposition import (
    Distribution,
    Family,
    Labels,
    counter,
    gauge,
    histogram,
    labels_of,
    written,
    written_histogram,
)
from agent.kernel import layout
from agent.signals import COLUMN, Row, accept_overflows, connections, progress_age_ns, value
from agent.signals import gauge as level
from agent.slots import Owner
from agent.snapshot import PodState

_POD = ("namespace", "pod")
_UPPER_US = [layout.bucket_upper_us(index) for index in range(layout.BUCKETS)]


def bounds_us(finer_from: int = 0, finer_to: int = 0) -> tuple[int, ...]:
    """Powers of two from 1.024 ms to 134.2 s, and between two given ones (exponents) also those in the middle."""
    return tuple(sorted([*(1 << e for e in range(10, 28)), *(3 << e - 1 for e in range(finer_from, finer_to))]))


_TIMES_US = bounds_us(15, 22)  # finer from 33 ms to 4.2 s: prompts of usual length
_STEPS_US = bounds_us()
_GAPS_US = bounds_us(13, 18)  # finer from 8 ms to 262 ms: decode steps


@dataclass(frozen=True, slots=True)
class _Gauge:
    family: Family
    of: Callable[[Sequence[Row], int], float | None]  # the rows of a pod and the time; None: unknown, so no sample


@dataclass(frozen=True, slots=True)
class _Sum:
    """A counter whose value is the sum of one field over a pod's slots; a label tells several fields of it apart."""

    family: Family
    fields: Mapping[str, str]  # label value -> field; "" where there is no such label


@dataclass(frozen=True, slots=True)
class _Times:
    family: Family
    bounds_us: tuple[int, ...]
    histogram: str
    sum_ns: str


def _stalled_s(rows: Sequence[Row], now_ns: int) -> float:
    return max(progress_age_ns(row, now_ns) or 0 for row in rows) / 1e9


def _rtt_s(rows: Sequence[Row], _now_ns: int) -> float | None:
    known_us = [value(row, "srtt_us") for row in rows if value(row, "srtt_us")]
    return max(known_us) / 1e6 if known_us else None


_GAUGES = (
    _Gauge(
        gauge("sonde_pod_connections_open", "TCP connections to the pod's serving ports that are open now.", *_POD),
        lambda rows, _: sum(map(connections, rows)),
    ),
    _Gauge(
        gauge(
            "sonde_pod_requests_in_flight",
            "Requests the pod has begun to receive and not finished answering, as the node's kernel counts them. "
            "Health checks and metrics scrapes are left out.",
            *_POD,
        ),
        lambda rows, _: sum(level(row, "in_flight") for row in rows),
    ),
    _Gauge(
        gauge(
            "sonde_pod_requests_waiting",
            "Of the requests in flight, those that have not got a first token (first byte of answer data) yet: "
            "queued or in prefill. The others are streaming.",
            *_POD,
        ),
        lambda rows, _: sum(level(row, "waiting") for row in rows),
    ),
    _Gauge(
        gauge(
            "sonde_pod_stalled_seconds",
            "How long the pod has sent no byte of any answer although a request is in flight; 0 while nothing is. "
            "Grows without end when an engine hangs. Normal values are below the time to first token.",
            *_POD,
        ),
        _stalled_s,
    ),
    _Gauge(
        gauge(
            "sonde_pod_tcp_rtt_seconds",
            "Smoothed TCP round trip time between the pod and its client, of the connection that last finished an "
            "answer.",
            *_POD,
        ),
        _rtt_s,
    ),
)

_COUNTERS = (
    _Sum(
        counter("sonde_pod_connections_opened_total", "TCP connections accepted on the pod's serving ports.", *_POD),
        {"": "connections_opened"},
    ),
    _Sum(
        counter(
            "sonde_pod_connections_opaque_total",
            "Connections whose requests cannot be followed because they are not HTTP/1.x in clear text (TLS, HTTP/2, "
            "other protocols, or framing out of step). Requests on them are in no other metric.",
            *_POD,
        ),
        {"": "connections_opaque"},
    ),
    _Sum(
        counter(
            "sonde_pod_requests_started_total",
            "Requests begun, without health checks and metrics scrapes.",
            *_POD,
        ),
        {"": "started"},
    ),
    _Sum(
        counter(
            "sonde_pod_requests_finished_total",
            "Requests ended, by outcome: complete (the answer was whole), client_abort (the client closed first), "
            "server_abort (the pod closed before the answer was whole).",
            *_POD,
            "outcome",
        ),
        {"complete": "completed", "client_abort": "client_aborted", "server_abort": "server_aborted"},
    ),
    _Sum(
        counter(
            "sonde_pod_requests_lost_total",
            "Requests whose end could not be seen because their connection stopped being HTTP/1.x. They are no "
            "longer in flight.",
            *_POD,
        ),
        {"": "lost"},
    ),
    _Sum(
        counter(
            "sonde_pod_requests_excluded_total",
            "Health checks and metrics scrapes, which are left out of every other request metric.",
            *_POD,
        ),
        {"": "excluded"},
    ),
    _Sum(
        counter(
            "sonde_pod_requests_pipelined_total",
            "Requests sent on a connection before the previous answer had ended.",
            *_POD,
        ),
        {"": "pipelined"},
    ),
    _Sum(
        counter(
            "sonde_pod_error_responses_total",
            "Answers with a status of 400 or more, by class (4xx: the request is at fault, 5xx: the pod is).",
            *_POD,
            "class",
        ),
        {"4xx": "status_4xx", "5xx": "status_5xx"},
    ),
    _Sum(
        counter(
            "sonde_pod_response_chunks_total",
            "TCP segments of answers that carried data. For a streaming engine about one for each token or batch of "
            "tokens.",
            *_POD,
        ),
        {"": "chunks"},
    ),
    _Sum(
        counter(
            "sonde_pod_tcp_retransmits_total",
            "Segments the pod had to send again because the network lost them.",
            *_POD,
        ),
        {"": "retransmits"},
    ),
    _Sum(
        counter(
            "sonde_pod_tcp_resets_total",
            "Connections cut by a RST segment, by direction: in (the client cut it), out (the pod or its kernel did).",
            *_POD,
            "direction",
        ),
        {"in": "resets_in", "out": "resets_out"},
    ),
    _Sum(
        counter(
            "sonde_pod_tcp_syns_total", "Connection attempts (SYN segments) that reached the pod's listeners.", *_POD
        ),
        {"": "syns"},
    ),
    _Sum(
        counter("sonde_pod_tcp_syn_acks_total", "Answers (SYN-ACK segments) of the pod's listeners to them.", *_POD),
        {"": "syn_acks"},
    ),
    _Sum(
        counter("sonde_pod_received_bytes_total", "TCP payload the pod received; duplicates count once.", *_POD),
        {"": "rx_bytes"},
    ),
    _Sum(
        counter("sonde_pod_sent_bytes_total", "TCP payload the pod sent; retransmissions do not count.", *_POD),
        {"": "tx_bytes"},
    ),
)

_OVERFLOWS = counter(
    "sonde_pod_accept_queue_overflows_total",
    "Connection attempts the kernel dropped because the pod did not accept connections fast enough (its queue of "
    "accepted connections was full). Clients see them as delays of a second and more.",
    *_POD,
)


def _times(name: str, text: str, field: str, bounds: tuple[int, ...] = _TIMES_US) -> _Times:
    family = histogram(f"sonde_pod_{name}_seconds", text, [bound / 1e6 for bound in bounds], *_POD)
    return _Times(family, bounds, f"{field}_hist", f"{field}_ns_sum")


_HISTOGRAMS = (
    _times("request_upload", "Time from the first to the last byte of a request as it reached the pod.", "upload"),
    _times(
        "response_header",
        "Time from a request's first byte to the first byte of the response header. Many engines send it long before "
        "the first token.",
        "header",
        _STEPS_US,
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
)

FAMILIES: tuple[Family, ...] = (
    *(each.family for each in _GAUGES),
    *(each.family for each in _COUNTERS),
    _OVERFLOWS,
    *(each.family for each in _HISTOGRAMS),
)


class PodMetrics:
    """Writes the pods' part of the page; remembers only what keeps a difference of two counters from falling."""

    def __init__(self) -> None:
        self._overflows: dict[Owner, int] = {}

    def written(self, pods: Sequence[PodState], now_ns: int) -> Iterator[str]:
        pods = [pod for pod in pods if pod.slots]
        names = [labels_of(_POD, (pod.namespace, pod.pod)) for pod in pods]
        rows = [(labels, [slot.row for slot in pod.slots]) for labels, pod in zip(names, pods, strict=True)]
        for one in _GAUGES:
            values = ((labels, one.of(of_pod, now_ns)) for labels, of_pod in rows)
            yield written(one.family, ((labels, known) for labels, known in values if known is not None))
        for sums in _COUNTERS:
            yield written(sums.family, _sums(sums, rows))
        yield written(_OVERFLOWS, zip(names, self._overflow_values(pods), strict=True))
        for times in _HISTOGRAMS:
            yield written_histogram(times.family, zip(names, _distributions(times, pods), strict=True))

    def _overflow_values(self, pods: Sequence[PodState]) -> list[int]:
        """A SYN-ACK sent again lessens the difference of SYNs and SYN-ACKs, and a counter may not fall."""
        now = {
            slot.owner: max(self._overflows.get(slot.owner, 0), accept_overflows(slot.row))
            for pod in pods
            for slot in pod.slots
        }
        self._overflows = now
        return [sum(now[slot.owner] for slot in pod.slots) for pod in pods]


def _sums(sums: _Sum, rows: Sequence[tuple[Labels, Sequence[Row]]]) -> Iterator[tuple[Labels, int]]:
    for kind, field in sums.fields.items():
        column = COLUMN[field]
        for labels, of_pod in rows:
            told = labels.and_one(sums.family.labels[-1], kind) if kind else labels
            yield told, of_pod[0][column] if len(of_pod) == 1 else sum(row[column] for row in of_pod)


def _distributions(times: _Times, pods: Sequence[PodState]) -> list[Distribution]:
    if not pods:
        return []
    slots = np.stack([slot.histograms[times.histogram] for pod in pods for slot in pod.slots]).astype(np.int64)
    firsts = np.cumsum([0, *(len(pod.slots) for pod in pods[:-1])])
    up_to = np.cumsum(np.add.reduceat(slots, firsts, axis=0), axis=1)
    columns = [*(_UPPER_US.index(bound) for bound in times.bounds_us), layout.BUCKETS - 1]
    sums_ns = [sum(value(slot.row, times.sum_ns) for slot in pod.slots) for pod in pods]
    return [
        Distribution(counts, sum_ns / 1e9) for counts, sum_ns in zip(up_to[:, columns].tolist(), sums_ns, strict=True)
    ]
