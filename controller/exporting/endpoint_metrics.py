"""The metrics of the pool, its endpoints, the agents and the streams: names, meanings, and samples of a snapshot. Pure.

The names `inference_pool_*` and `inference_extension_*` are the field's, so that its dashboards and autoscaling guides
work; `sonde_controller_*` is ours. A series goes with its endpoint. What nobody measured has no sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from agent.exporting.exposition import Family, counter, gauge, labels_of, written
from controller.endpoints.health import State
from controller.exporting.snapshot import EndpointView, Snapshot
from controller.model import Source

# a pod that holds so much is called full, as the field's own detector does by default
FULL_QUEUE = 5
FULL_KV_CACHE = 0.8

_ENDPOINT = ("namespace", "pod", "port")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def saturation(end: EndpointView) -> float | None:
    """How near an endpoint is to full, 1 and more when it is; None: nothing that tells is measured."""
    shares = []
    if end.waiting is not None:
        shares.append(end.waiting / FULL_QUEUE)
    if end.kv_cache_usage is not None:
        shares.append(end.kv_cache_usage / FULL_KV_CACHE)
    return max(shares, default=None)


@dataclass(frozen=True, slots=True)
class _Of:
    """A metric of the pool, or of each endpoint."""

    family: Family
    of: Callable[[Snapshot], float | None]


_POOL = (
    _Of(
        gauge("inference_pool_ready_pods", "Pods of the pool that are ready.", "name"),
        lambda taken: len({(e.namespace, e.pod) for e in taken.endpoints if e.ready}),
    ),
    _Of(
        gauge(
            "inference_pool_average_queue_size",
            "Mean over the pool's measured pods of the requests that wait for their first token.",
            "name",
        ),
        lambda taken: _mean(e.waiting for e in taken.endpoints),
    ),
    _Of(
        gauge(
            "inference_pool_average_running_requests",
            "Mean over the pool's pods of the requests that their engines say are running.",
            "name",
        ),
        lambda taken: _mean(e.running for e in taken.endpoints),
    ),
    _Of(
        gauge(
            "inference_pool_average_kv_cache_utilization",
            "Mean over the pool's pods of the share of the KV cache in use, 0 to 1, as their engines say.",
            "name",
        ),
        lambda taken: _mean(e.kv_cache_usage for e in taken.endpoints),
    ),
    _Of(
        gauge(
            "inference_extension_flow_control_pool_saturation",
            "How near the pool is to full: mean over its ready pods of the larger of waiting requests / 5 and KV "
            "cache usage / 0.8. 1 is full; scale out before.",
            "inference_pool",
        ),
        lambda taken: _mean(saturation(e) for e in taken.endpoints if e.ready),
    ),
)
_QUEUE = gauge(
    "inference_pool_per_pod_queue_size",
    "Requests of each pod that wait for their first token.",
    "name",
    "model_server_pod",
)

_IN_FLIGHT = gauge(
    "sonde_controller_endpoint_in_flight",
    "Requests in flight at an endpoint as each source counts them: kernel (of its node), engine (its own page), own "
    "(picks of this controller that are not over).",
    *_ENDPOINT,
    "source",
)
_LOAD = gauge(
    "sonde_controller_endpoint_load",
    "The number of requests the picks go by, and the source it was taken from: the best one that is fresh.",
    *_ENDPOINT,
    "source",
)
_AGE = gauge(
    "sonde_controller_signal_age_seconds",
    "How long ago an endpoint's signal was true, by source. A kernel's count is some milliseconds to 0.15 s old; from "
    "0.25 s on it is not used, from 2 s on nothing is. An engine's page is as old as the kernel's word that nothing "
    "has happened since.",
    *_ENDPOINT,
    "source",
)


def _each(name: str, text: str, of: Callable[[EndpointView], float | None]) -> _Each:
    return _Each(gauge(f"sonde_controller_{name}", text, *_ENDPOINT), of)


@dataclass(frozen=True, slots=True)
class _Each:
    family: Family
    of: Callable[[EndpointView], float | None]


_EACH = (
    _each(
        "endpoint_waiting",
        "Requests at an endpoint without any answer data yet: by the kernel, else by the engine's queue.",
        lambda e: e.waiting,
    ),
    _each("endpoint_ready", "1 if the endpoint's pod is ready and not terminating.", lambda e: e.ready),
    _each(
        "endpoint_stalled",
        "1 if the endpoint owes answers and has been silent for too long, or was so and has not proved itself since. "
        "It gets no requests while another can take them.",
        lambda e: e.state is not State.FINE,
    ),
    _each(
        "endpoint_speed_ratio",
        "Time the endpoint takes for a decode step as a ratio to the pool's median, learned from its own gaps between "
        "tokens: above 1 is slower. Differences within 13 % count as none.",
        lambda e: e.speed,
    ),
    _each(
        "endpoint_ejected",
        "1 if requests to the endpoint failed several times in a row, so that it gets none for a while.",
        lambda e: e.ejected,
    ),
    _each("endpoint_failure_ratio", "Share of failures among the endpoint's last requests.", lambda e: e.failures),
    _each("endpoint_cold", "1 while the endpoint is new and gets less than its share.", lambda e: e.cold),
    _each(
        "endpoint_weight",
        "What the endpoint is told to get of the connections that agents steer, relative to the others; 0: nothing "
        "new. There with --weights-port.",
        lambda e: e.weight,
    ),
    _each("endpoint_usual_ttft_seconds", "Recent mean time to first token, by the kernel.", lambda e: e.usual_ttft_s),
    _each(
        "endpoint_usual_gap_seconds",
        "Recent mean time between chunks of an answer, by the kernel.",
        lambda e: e.usual_gap_s,
    ),
    _each(
        "endpoint_kv_cache_usage", "Share of the KV cache in use, 0 to 1, by the engine.", lambda e: e.kv_cache_usage
    ),
    _each(
        "reservations",
        "Picks of this controller that the kernel cannot have counted yet. More than a few for more than a moment: "
        "requests do not arrive where they are sent.",
        lambda e: e.unshown,
    ),
)
_MISSES = counter(
    "sonde_controller_endpoint_misses_total",
    "Requests that were picked for an endpoint and that the gateway brought to another one, having failed to reach it.",
    *_ENDPOINT,
)
_PICKS = counter(
    "sonde_controller_picks_total",
    "Picks by pod and reason: cheapest (by price), prefix or adapter (for what is cached or loaded there), least-work "
    "(too few kernels tell), tie (drawn among several), only (one endpoint there), stalled or lost (nothing better "
    "left: it is silent or ejected, or has lost an accelerator), rule (by another policy).",
    "endpoint_pod",
    "reason",
)

_FRAME_AGE = gauge(
    "sonde_controller_agent_frame_age_seconds",
    "Time since the agent of a node last sent anything. Frames come eight times a second; from 0.25 s on its counts "
    "are not used.",
    "node",
)
_ALIVE = gauge("sonde_controller_agent_alive", "1 while the numbers of a node's agent are used.", "node")


@dataclass(frozen=True, slots=True)
class _Total:
    family: Family
    of: Callable[[Snapshot], float]


_TOTALS = (
    _Total(
        gauge("sonde_controller_exchanges_open", "Open ext_proc streams of gateways."),
        lambda taken: taken.totals.exchanges_open,
    ),
    _Total(
        gauge(
            "sonde_controller_requests_held",
            "Requests that wait in the controller because no endpoint could answer them in time.",
        ),
        lambda taken: taken.totals.waiting,
    ),
    _Total(
        gauge(
            "sonde_controller_body_bytes",
            "Bytes of request bodies that are held: they have not come whole, or wait, or are on their way back.",
        ),
        lambda taken: taken.totals.body_bytes,
    ),
    _Total(
        counter(
            "sonde_controller_bodies_dropped_total",
            "Requests that got 503 because too many bodies were held (--body-memory) and theirs had not grown for the "
            "longest time.",
        ),
        lambda taken: taken.totals.bodies_dropped,
    ),
    _Total(
        gauge("sonde_controller_endpoints", "Endpoints of the pool: pods times serving ports."),
        lambda taken: len(taken.endpoints),
    ),
    _Total(
        gauge("sonde_controller_agents_known", "Agents that the cluster's objects name."),
        lambda taken: taken.totals.agents_known,
    ),
    _Total(
        gauge("sonde_controller_agents_connected", "Agents whose stream is open."),
        lambda taken: taken.totals.agents_connected,
    ),
    _Total(
        counter("sonde_controller_frames_received_total", "Frames received from agents."),
        lambda taken: taken.totals.frames,
    ),
    _Total(
        counter("sonde_controller_agent_reconnects_total", "Streams to agents that ended or could not be opened."),
        lambda taken: taken.totals.agent_reconnects,
    ),
    _Total(
        gauge("sonde_controller_weight_watchers", "Agents that get weights for connections from this controller."),
        lambda taken: taken.totals.weight_watchers,
    ),
    _Total(
        counter("sonde_controller_weight_frames_total", "Frames of weights sent to agents."),
        lambda taken: taken.totals.weight_frames,
    ),
    _Total(
        counter(
            "sonde_controller_weight_changes_total",
            "Times the pool's weights were told anew: a few a minute while nothing changes.",
        ),
        lambda taken: taken.totals.weight_moves,
    ),
)
_SCRAPES = counter(
    "sonde_controller_engine_scrapes_total",
    "Engines' metrics pages this controller tried to read itself because no agent does, by outcome: good, failed.",
    "outcome",
)

FAMILIES: tuple[Family, ...] = (
    *(each.family for each in _POOL),
    _QUEUE, _IN_FLIGHT, _LOAD, _AGE,
    *(each.family for each in _EACH),
    _MISSES, _PICKS, _FRAME_AGE, _ALIVE,
    *(each.family for each in _TOTALS),
    _SCRAPES,
)  # fmt: skip


def endpoint_metrics(taken: Snapshot) -> Iterator[str]:
    yield from _pool(taken)
    yield from _endpoints(taken)
    yield written(_PICKS, _picks(taken).items())
    yield written(_FRAME_AGE, (((node.node,), node.frame_age_s) for node in taken.nodes))
    yield written(_ALIVE, (((node.node,), node.alive) for node in taken.nodes))
    for total in _TOTALS:
        yield written(total.family, [((), total.of(taken))])
    totals = taken.totals
    yield written(_SCRAPES, [(("good",), totals.scrapes_good), (("failed",), totals.scrapes_failed)])


def _pool(taken: Snapshot) -> Iterator[str]:
    for one in _POOL:
        value = one.of(taken)
        yield written(one.family, [] if value is None else [((taken.pool,), value)])
    pods: Counter[str] = Counter()
    for end in taken.endpoints:
        if end.waiting is not None:
            pods[end.pod] += end.waiting
    yield written(_QUEUE, (((taken.pool, pod), waiting) for pod, waiting in pods.items()))


def _endpoints(taken: Snapshot) -> Iterator[str]:
    ends = [(labels_of(_ENDPOINT, (end.namespace, end.pod, str(end.port))), end) for end in taken.endpoints]
    yield written(
        _IN_FLIGHT,
        ((labels.and_one("source", source), count) for labels, end in ends for source, count in _in_flight(end)),
    )
    yield written(_LOAD, ((labels.and_one("source", end.source.value), end.load) for labels, end in ends))
    yield written(
        _AGE, ((labels.and_one("source", source), age_s) for labels, end in ends for source, age_s in _ages_s(end))
    )
    yield written(_MISSES, ((labels, end.misses) for labels, end in ends))
    for one in _EACH:
        values = ((labels, one.of(end)) for labels, end in ends)
        yield written(one.family, ((labels, value) for labels, value in values if value is not None))


def _in_flight(end: EndpointView) -> Iterator[tuple[str, int]]:
    counts = ((Source.KERNEL, end.kernel_in_flight), (Source.ENGINE, end.engine_requests), (Source.OWN, end.own))
    return ((source.value, count) for source, count in counts if count is not None)


def _ages_s(end: EndpointView) -> Iterator[tuple[str, float]]:
    ages_s = ((Source.KERNEL, end.kernel_age_s), (Source.ENGINE, end.engine_age_s))
    return ((source.value, age_s) for source, age_s in ages_s if age_s is not None)


def _picks(taken: Snapshot) -> Counter[tuple[str, str]]:
    """Endpoints come and go with their counts, as a counter's series may."""
    counts: Counter[tuple[str, str]] = Counter()
    for end in taken.endpoints:
        for reason, count in end.picks.items():
            counts[end.pod, reason.value] += count
    return counts
