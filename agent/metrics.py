"""Turns a snapshot of the agent's state into Prometheus metrics; reads no map and keeps no count of its own.

Labels are namespace and pod, the ports of a pod summed; a pod's series go with the pod. Names and units are here alone.

Histograms. The kernel's buckets hold whole microseconds, eight to a power of two, and their bounds include each power
of two. The `le` values are such powers, 1.024 ms to 134.2 s, so that each cumulative count is a sum of whole kernel
buckets and nothing is interpolated. A kernel bucket excludes its upper bound: a sample of exactly `le` is counted in
the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.kernel import layout
from agent.programs import Programs
from agent.signals import Row, accept_overflows, connections, gauge, progress_age_ns, value
from agent.slots import Owner

Histogram = npt.NDArray[np.uint32]

_POD = ("namespace", "pod")
_BOUNDS_US = tuple(1 << exponent for exponent in range(10, 28))
_UPPER_US = [layout.bucket_upper_us(index) for index in range(layout.BUCKETS)]
_BUCKETS = tuple((repr(bound / 1e6), _UPPER_US.index(bound)) for bound in _BOUNDS_US)


@dataclass(frozen=True, slots=True)
class SlotState:
    owner: Owner
    row: Row
    histograms: Mapping[str, Histogram]  # by field of struct sonde_slot


@dataclass(frozen=True, slots=True)
class PodState:
    namespace: str
    pod: str
    slots: Sequence[SlotState]


@dataclass(frozen=True, slots=True)
class AgentState:
    drops: Mapping[str, int]
    owners_used: int
    owners_capacity: int
    slots_used: int
    slots_retired: int
    slots_capacity: int
    endpoints: Mapping[str, int]  # by which signals are known of them
    rows_sampled: int
    watchers: int
    pages_read: int
    pages_failed: int
    cpu_s: float
    rss_bytes: int
    programs: Programs = field(default_factory=dict)
    sample_age_s: float | None = None  # None: no slot was ever read


@dataclass(frozen=True, slots=True)
class Snapshot:
    now_ns: int
    pods: Sequence[PodState]
    agent: AgentState


@dataclass(frozen=True, slots=True)
class _Sum:
    """A metric whose value is the sum of one field over a pod's slots; `label` tells several fields of a name apart."""

    name: str
    help: str
    fields: Mapping[str, str]  # label value -> field; "" where there is no such label
    label: str | None = None


_COUNTERS = (
    _Sum("sonde_pod_connections_opened", "Connections accepted", {"": "connections_opened"}),
    _Sum("sonde_pod_connections_opaque", "Connections that are no HTTP/1 in clear text", {"": "connections_opaque"}),
    _Sum("sonde_pod_requests_started", "Requests begun, without health checks and scrapes", {"": "started"}),
    _Sum(
        "sonde_pod_requests_finished",
        "Requests ended: as framed, or by the FIN or RST of one side",
        {"complete": "completed", "client_abort": "client_aborted", "server_abort": "server_aborted"},
        "outcome",
    ),
    _Sum("sonde_pod_requests_lost", "Requests not followed to their end", {"": "lost"}),
    _Sum("sonde_pod_requests_excluded", "Health checks and scrapes", {"": "excluded"}),
    _Sum("sonde_pod_requests_pipelined", "Requests sent before the previous response ended", {"": "pipelined"}),
    _Sum(
        "sonde_pod_error_responses",
        "Responses with a status of 400 or more",
        {"4xx": "status_4xx", "5xx": "status_5xx"},
        "class",
    ),
    _Sum("sonde_pod_response_chunks", "Response segments that carried data", {"": "chunks"}),
    _Sum("sonde_pod_tcp_retransmits", "Segments that the pod sent again", {"": "retransmits"}),
    _Sum("sonde_pod_tcp_resets", "RST segments", {"in": "resets_in", "out": "resets_out"}, "direction"),
    _Sum("sonde_pod_tcp_syns", "SYN segments at the listener", {"": "syns"}),
    _Sum("sonde_pod_tcp_syn_acks", "SYN-ACK segments of the listener", {"": "syn_acks"}),
    _Sum("sonde_pod_received_bytes", "TCP payload received, duplicates not counted", {"": "rx_bytes"}),
    _Sum("sonde_pod_sent_bytes", "TCP payload sent, retransmissions not counted", {"": "tx_bytes"}),
)


@dataclass(frozen=True, slots=True)
class _Times:
    name: str
    help: str
    histogram: str
    sum_ns: str


_HISTOGRAMS = (
    _Times("sonde_pod_request_upload_seconds", "First to last byte of a request", "upload_hist", "upload_ns_sum"),
    _Times("sonde_pod_response_header_seconds", "Request start to response header", "header_hist", "header_ns_sum"),
    _Times("sonde_pod_time_to_first_token_seconds", "Request start to first response data", "ttft_hist", "ttft_ns_sum"),
    _Times("sonde_pod_inter_chunk_seconds", "Between two chunks of response data", "gap_hist", "gap_ns_sum"),
    _Times(
        "sonde_pod_request_duration_seconds",
        "Request start to response end, complete ones",
        "duration_hist",
        "duration_ns_sum",
    ),
)


class AgentCollector(Collector):
    """Asks for a new snapshot at each scrape. collect() may run in any thread, and in several at once."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._overflows: dict[Owner, int] = {}

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot()
        yield from _gauges(snapshot)
        for description in _COUNTERS:
            yield _counter(description, snapshot.pods)
        yield self._overflow_counter(snapshot.pods)
        for times in _HISTOGRAMS:
            yield _histogram(times, snapshot.pods)
        yield from _agent_metrics(snapshot.agent)

    def _overflow_counter(self, pods: Iterable[PodState]) -> Metric:
        """A SYN-ACK sent again lessens the difference of SYNs and SYN-ACKs, and a counter may not fall."""
        family = CounterMetricFamily(
            "sonde_pod_accept_queue_overflows",
            "SYNs not answered, the queue being full",
            labels=_POD,
        )
        now: dict[Owner, int] = {}
        for pod in pods:
            for slot in pod.slots:
                now[slot.owner] = max(self._overflows.get(slot.owner, 0), accept_overflows(slot.row))
            family.add_metric((pod.namespace, pod.pod), sum(now[slot.owner] for slot in pod.slots))
        self._overflows = now
        return family


def _gauges(snapshot: Snapshot) -> Iterator[Metric]:
    opened = GaugeMetricFamily("sonde_pod_connections_open", "Connections open now", labels=_POD)
    in_flight = GaugeMetricFamily("sonde_pod_requests_in_flight", "Requests begun and not ended", labels=_POD)
    waiting = GaugeMetricFamily("sonde_pod_requests_waiting", "Requests in flight without any answer yet", labels=_POD)
    stalled = GaugeMetricFamily(
        "sonde_pod_stalled_seconds", "Since the last response byte while a request is in flight, else 0", labels=_POD
    )
    rtt = GaugeMetricFamily("sonde_pod_tcp_rtt_seconds", "Smoothed round trip of a recent connection", labels=_POD)
    for pod in snapshot.pods:
        labels = (pod.namespace, pod.pod)
        rows = [slot.row for slot in pod.slots]
        opened.add_metric(labels, sum(map(connections, rows)))
        in_flight.add_metric(labels, sum(gauge(row, "in_flight") for row in rows))
        waiting.add_metric(labels, sum(gauge(row, "waiting") for row in rows))
        stalled.add_metric(labels, max(progress_age_ns(row, snapshot.now_ns) or 0 for row in rows) / 1e9)
        known_us = [value(row, "srtt_us") for row in rows if value(row, "srtt_us")]
        if known_us:
            rtt.add_metric(labels, max(known_us) / 1e6)
    return iter((opened, in_flight, waiting, stalled, rtt))


def _counter(description: _Sum, pods: Iterable[PodState]) -> Metric:
    labels = _POD if description.label is None else (*_POD, description.label)
    family = CounterMetricFamily(description.name, description.help, labels=labels)
    for pod in pods:
        for kind, name in description.fields.items():
            total = sum(value(slot.row, name) for slot in pod.slots)
            family.add_metric((pod.namespace, pod.pod, kind)[: len(labels)], total)
    return family


def _histogram(times: _Times, pods: Iterable[PodState]) -> Metric:
    family = HistogramMetricFamily(times.name, times.help, labels=_POD)
    for pod in pods:
        counts = sum((slot.histograms[times.histogram].astype(np.int64) for slot in pod.slots), np.int64(0))
        sum_s = sum(value(slot.row, times.sum_ns) for slot in pod.slots) / 1e9
        family.add_metric((pod.namespace, pod.pod), cumulative(np.asarray(counts)), sum_s)
    return family


def cumulative(counts: npt.NDArray[np.int64]) -> list[tuple[str, float]]:
    """(le, samples up to there) of the kernel's buckets, as Prometheus has it."""
    up_to = np.cumsum(counts)
    return [*((bound, int(up_to[index])) for bound, index in _BUCKETS), ("+Inf", int(up_to[-1]))]


def _program_metrics(programs: Programs) -> Iterator[Metric]:
    attached = GaugeMetricFamily("sonde_agent_program_attached", "Whether a program is at the hook", labels=("hook",))
    seconds = CounterMetricFamily(
        "sonde_agent_program_run_seconds",
        "Time in the program; there once the kernel measures it, by sysctl kernel.bpf_stats_enabled=1",
        labels=("hook",),
    )
    runs = CounterMetricFamily("sonde_agent_program_runs", "Runs of the program that were timed", labels=("hook",))
    for hook, program in programs.items():
        attached.add_metric((hook,), program is not None)
        if program is not None and program.time_ns is not None and program.count is not None:
            seconds.add_metric((hook,), program.time_ns / 1e9)
            runs.add_metric((hook,), program.count)
    return iter((attached, seconds, runs))


def _agent_metrics(agent: AgentState) -> Iterator[Metric]:
    yield from _program_metrics(agent.programs)
    drops = CounterMetricFamily("sonde_agent_drops", "What the kernel programs could not follow", labels=("cause",))
    for cause, count in agent.drops.items():
        drops.add_metric((cause,), count)
    entries = GaugeMetricFamily("sonde_agent_map_entries", "Entries in use of a kernel map", labels=("map", "state"))
    entries.add_metric(("owners", "used"), agent.owners_used)
    entries.add_metric(("slots", "used"), agent.slots_used)
    entries.add_metric(("slots", "retired"), agent.slots_retired)
    capacity = GaugeMetricFamily("sonde_agent_map_capacity", "Entries that a kernel map can hold", labels=("map",))
    capacity.add_metric(("owners",), agent.owners_capacity)
    capacity.add_metric(("slots",), agent.slots_capacity)
    level = GaugeMetricFamily("sonde_agent_endpoints", "Endpoints by the signals known of them", labels=("level",))
    for name, count in agent.endpoints.items():
        level.add_metric((name,), count)
    yield from (drops, entries, capacity, level)
    yield CounterMetricFamily("sonde_agent_rows_sampled", "Slots read out of shared memory", value=agent.rows_sampled)
    if agent.sample_age_s is not None:
        yield GaugeMetricFamily(
            "sonde_agent_sample_age_seconds", "Since the slots were last read", value=agent.sample_age_s
        )
    yield GaugeMetricFamily("sonde_agent_watchers", "Streams open now", value=agent.watchers)
    yield CounterMetricFamily("sonde_agent_engine_pages_read", "Engine metrics pages read", value=agent.pages_read)
    yield CounterMetricFamily(
        "sonde_agent_engine_scrape_failures", "Engine metrics pages that could not be read", value=agent.pages_failed
    )
    yield CounterMetricFamily("sonde_agent_cpu_seconds", "Processor time used", value=agent.cpu_s)
    yield GaugeMetricFamily("sonde_agent_resident_memory_bytes", "Memory of this process", value=agent.rss_bytes)


def serve(collector: Collector, bind: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serves the metrics from threads of its own; returns the port and what ends it. Raises OSError."""
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, bind, registry)
    except OSError as error:
        raise OSError(f"cannot listen at {bind}:{port} for metrics: {error.strerror or error}") from error

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, close
