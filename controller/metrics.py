"""The controller's Prometheus page: the field's own names, so that its dashboards work, and Sonde's beside them.

Endpoints' series are made from a snapshot of the table at each scrape, so they go with their endpoint. Knows names,
labels and base units; refuses to know how a value came about.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controller.health import State
from controller.model import Reason, Request, Source
from controller.table import Row, Table

MODEL_LIMIT = 1000  # model names come from clients; what is more is counted as "other"
MODEL_NAME_LIMIT = 256
OTHER = "other"

# of the field's scheduler, with two finer ones: a pick here costs some ten microseconds
DECISION_BUCKETS = (1e-5, 2.5e-5, 5e-5, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint at one instant."""

    namespace: str
    pod: str
    port: int
    ready: bool
    source: Source
    load: int
    kernel_in_flight: int | None  # None, as below: not freshly known
    engine_requests: int | None
    own: int
    running: int | None
    waiting: int | None
    kv_cache_usage: float | None
    state: State
    usual_ttft_s: float | None
    usual_gap_s: float | None
    kernel_age_s: float | None
    engine_age_s: float | None
    unshown: int
    picks: dict[Reason, int]
    misses: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """What is counted for the controller as a whole."""

    exchanges_open: int = 0
    agents_connected: int = 0
    frames: int = 0
    agent_reconnects: int = 0
    scrapes_good: int = 0
    scrapes_failed: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    pool: str
    endpoints: tuple[EndpointView, ...]
    totals: Totals


def snapshot(table: Table, totals: Totals, now: float) -> Snapshot:
    """To be taken by the table's owner; the page is then written elsewhere."""
    table.refresh(now)
    return Snapshot(table.name, tuple(_view(row, now) for row in table.rows), totals)


def _view(row: Row, now: float) -> EndpointView:
    kernel, engine = row.fresh_kernel(now), row.fresh_engine(now)
    waiting = engine.waiting if engine else None
    return EndpointView(
        namespace=row.endpoint.namespace,
        pod=row.endpoint.pod,
        port=row.endpoint.port,
        ready=row.endpoint.ready and not row.endpoint.terminating,
        source=row.source,
        load=row.load,
        kernel_in_flight=kernel.in_flight if kernel else None,
        engine_requests=engine.requests if engine else None,
        own=row.ledger.own,
        running=engine.running if engine else None,
        waiting=kernel.waiting if kernel else waiting,
        kv_cache_usage=engine.kv_cache_usage if engine else None,
        state=row.vigil.state,
        usual_ttft_s=kernel.usual_ttft_s if kernel else None,
        usual_gap_s=kernel.usual_gap_s if kernel else None,
        kernel_age_s=now - row.kernel.true_at_s if row.kernel else None,
        engine_age_s=now - row.engine.true_at_s if row.engine else None,
        unshown=row.ledger.unshown,
        picks=dict(row.picks),
        misses=row.misses,
    )


class Counts:
    """What the request path counts itself. One for each registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("model_name", "target_model_name", "priority")
        self._requests = Counter(
            "inference_objective_request_total", "Requests that asked for an endpoint.", labels, registry=registry
        )
        self._errors = Counter(
            "inference_objective_request_error_total",
            "Requests that the picker answered itself.",
            (*labels, "error_code"),
            registry=registry,
        )
        self._duration = Histogram(
            "inference_extension_scheduler_e2e_duration_seconds",
            "Time from a whole request to its endpoint.",
            buckets=DECISION_BUCKETS,
            registry=registry,
        )
        self.faults = Counter(
            "sonde_controller_faults",
            "Requests that met a fault of the controller itself and were answered by the pool's failureMode.",
            registry=registry,
        )
        info = Gauge("inference_extension_info", "Constant 1.", ("commit", "build_ref"), registry=registry)
        info.labels(os.environ.get("SONDE_COMMIT", "unknown"), f"sonde-{_version()}").set(1)
        self._children: dict[Labels, Counter] = {}

    def picked(self, request: Request, duration_s: float) -> None:
        """A request came to the point of its pick."""
        self._child(_labels(request)).inc()
        self._duration.observe(duration_s)

    def refused(self, status: int, request: Request | None = None) -> None:
        labels = _labels(request) if request else NO_LABELS
        known = labels if labels in self._children else NO_LABELS
        self._errors.labels(*known, str(status)).inc()

    def _child(self, labels: Labels) -> Counter:
        child = self._children.get(labels)
        if child is not None:
            return child
        if len(self._children) >= MODEL_LIMIT or max(map(len, labels)) > MODEL_NAME_LIMIT:
            labels = (OTHER, OTHER, labels[2])
        child = self._requests.labels(*labels)
        if len(self._children) < MODEL_LIMIT or labels[0] == OTHER:
            self._children[labels] = child
        return child


Labels = tuple[str, str, str]  # model, target model, priority
NO_LABELS: Labels = ("", "", "0")


def _labels(request: Request) -> Labels:
    resolved = request.resolved
    if resolved is None:
        return (request.model or "", request.model or "", "0")
    return (resolved.model or "", resolved.target or "", str(resolved.priority))


def _version() -> str:
    try:
        return version("sonde")
    except PackageNotFoundError:
        return "unknown"


class TableCollector(Collector):
    """Writes the table's series. `take` gives the snapshot and may be called from any thread."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def describe(self) -> list[Metric]:
        return []  # so that registering asks for no snapshot

    def collect(self) -> Iterator[Metric]:
        taken = self._take()
        yield from _pool(taken)
        yield from _endpoints(taken)
        yield _picks(taken)
        yield from _totals(taken.totals)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _pool(taken: Snapshot) -> Iterator[Metric]:
    ends = taken.endpoints
    values: list[tuple[str, str, float | None]] = [
        (
            "inference_pool_ready_pods",
            "Pods of the pool that are ready.",
            len({(e.namespace, e.pod) for e in ends if e.ready}),
        ),
        (
            "inference_pool_average_queue_size",
            "Mean of requests that wait for their first token.",
            _mean([e.waiting for e in ends if e.waiting is not None]),
        ),
        (
            "inference_pool_average_running_requests",
            "Mean of requests that the engines say are running.",
            _mean([e.running for e in ends if e.running is not None]),
        ),
        (
            "inference_pool_average_kv_cache_utilization",
            "Mean share of KV cache in use, 0..1.",
            _mean([e.kv_cache_usage for e in ends if e.kv_cache_usage is not None]),
        ),
    ]
    for name, text, value in values:
        gauge = GaugeMetricFamily(name, text, labels=("name",))
        if value is not None:
            gauge.add_metric((taken.pool,), value)
        yield gauge
    queue = GaugeMetricFamily(
        "inference_pool_per_pod_queue_size",
        "Requests of the pod that wait for their first token.",
        labels=("name", "model_server_pod"),
    )
    pods: dict[str, int] = {}
    for end in ends:
        if end.waiting is not None:
            pods[end.pod] = pods.get(end.pod, 0) + end.waiting
    for pod, waiting in pods.items():
        queue.add_metric((taken.pool, pod), waiting)
    yield queue


ENDPOINT = ("namespace", "pod", "port")


def _endpoints(taken: Snapshot) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily(
        "sonde_controller_endpoint_in_flight",
        "Requests in flight as each source counts them; own: picks of this controller that are not over.",
        labels=(*ENDPOINT, "source"),
    )
    load = GaugeMetricFamily(
        "sonde_controller_endpoint_load",
        "Requests the picks go by, with the source they were taken from.",
        labels=(*ENDPOINT, "source"),
    )
    age = GaugeMetricFamily(
        "sonde_controller_signal_age_seconds", "How long ago the signal was true.", labels=(*ENDPOINT, "source")
    )
    for end in taken.endpoints:
        labels = (end.namespace, end.pod, str(end.port))
        load.add_metric((*labels, end.source.value), end.load)
        counts = ((Source.KERNEL, end.kernel_in_flight), (Source.ENGINE, end.engine_requests), (Source.OWN, end.own))
        for source, count in counts:
            if count is not None:
                in_flight.add_metric((*labels, source.value), count)
        for source, age_s in ((Source.KERNEL, end.kernel_age_s), (Source.ENGINE, end.engine_age_s)):
            if age_s is not None:
                age.add_metric((*labels, source.value), age_s)
    misses = CounterMetricFamily(
        "sonde_controller_endpoint_misses",
        "Requests that the gateway brought to another endpoint than the one picked.",
        labels=ENDPOINT,
    )
    for end in taken.endpoints:
        misses.add_metric((end.namespace, end.pod, str(end.port)), end.misses)
    yield from (in_flight, load, age, misses)
    yield from (_gauge(taken, name, text, value) for name, text, value in GAUGES)


def _gauge(
    taken: Snapshot, name: str, text: str, value_of: Callable[[EndpointView], float | None]
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(f"sonde_controller_{name}", text, labels=ENDPOINT)
    for end in taken.endpoints:
        value = value_of(end)
        if value is not None:
            gauge.add_metric((end.namespace, end.pod, str(end.port)), value)
    return gauge


GAUGES: tuple[tuple[str, str, Callable[[EndpointView], float | None]], ...] = (
    ("endpoint_waiting", "Requests without a byte of answer data, by kernel, else by engine.", lambda e: e.waiting),
    ("endpoint_ready", "1 if the pod is ready and not terminating.", lambda e: float(e.ready)),
    (
        "endpoint_stalled",
        "1 if the endpoint owes answers and is silent for too long, or was and has not answered since.",
        lambda e: float(e.state is not State.FINE),
    ),
    ("endpoint_usual_ttft_seconds", "Recent mean time to first token, by kernel.", lambda e: e.usual_ttft_s),
    ("endpoint_usual_gap_seconds", "Recent mean gap between chunks, by kernel.", lambda e: e.usual_gap_s),
    ("endpoint_kv_cache_usage", "Share of KV cache in use, 0..1, by engine.", lambda e: e.kv_cache_usage),
    ("reservations", "Own picks that the kernel cannot have counted yet.", lambda e: e.unshown),
)


def _picks(taken: Snapshot) -> Metric:
    picks = CounterMetricFamily("sonde_controller_picks", "Picks by pod and reason.", labels=("endpoint_pod", "reason"))
    counts: dict[tuple[str, str], int] = {}
    for end in taken.endpoints:
        for reason, count in end.picks.items():
            key = (end.pod, reason.value)
            counts[key] = counts.get(key, 0) + count
    for key, count in counts.items():
        picks.add_metric(key, count)
    return picks


def _totals(totals: Totals) -> Iterator[Metric]:
    yield GaugeMetricFamily("sonde_controller_exchanges_open", "Open ext_proc streams.", value=totals.exchanges_open)
    yield GaugeMetricFamily(
        "sonde_controller_agents_connected", "Agents whose stream is open.", value=totals.agents_connected
    )
    yield CounterMetricFamily("sonde_controller_frames_received", "Frames from agents.", value=totals.frames)
    yield CounterMetricFamily(
        "sonde_controller_agent_reconnects", "Streams to agents that ended.", value=totals.agent_reconnects
    )
    scrapes = CounterMetricFamily(
        "sonde_controller_engine_scrapes", "Engine pages that this controller read itself.", labels=("outcome",)
    )
    scrapes.add_metric(("good",), totals.scrapes_good)
    scrapes.add_metric(("failed",), totals.scrapes_failed)
    yield scrapes
