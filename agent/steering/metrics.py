"""The metrics of steering: which connections went where, and what they should have come to. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from agent.exporting.exposition import Family, counter, gauge, written
from agent.steering.state import EndpointState, SteeringState

CONNECTIONS = counter(
    "sonde_steer_connections_total",
    "Connections of this node's pods to addresses of a balanced Service, by what became of them: steered, or untouched "
    "because the agent gave no sign of life for 3 s (stale), nobody was to be steered to (no_endpoint), the client's "
    "pod opted out (client_label) or has a sidecar (client_mesh), or memory was short (no_memory).",
    "namespace", "pool", "reason",
)  # fmt: skip
SENT = counter(
    "sonde_steer_endpoint_connections_total", "Connections of this node's pods that were steered to a pod.",
    "namespace", "pool", "pod",
)  # fmt: skip
INTENDED = counter(
    "sonde_steer_endpoint_intended_connections_total",
    "Connections that a pod's shares come to, of all that were steered since this agent began: what "
    "sonde_steer_endpoint_connections_total should grow by.",
    "namespace", "pool", "pod",
)  # fmt: skip
SHARE = gauge(
    "sonde_steer_endpoint_share_ratio",
    "Share of new connections of this node that a pod is to get now; 0 where it is drained.",
    "namespace", "pool", "pod",
)  # fmt: skip
RTT = gauge(
    "sonde_steer_endpoint_rtt_seconds",
    "Smoothed round trip of the handshakes with a pod from this node. Absent where none was seen.",
    "namespace", "pool", "pod",
)  # fmt: skip
TABLE_AGE = gauge(
    "sonde_steer_table_age_seconds", "Time since the shares of a pool were last changed in the kernel.",
    "namespace", "pool",
)  # fmt: skip
WEIGHTS_AGE = gauge(
    "sonde_steer_weights_age_seconds",
    "How old the prices are that a controller's weights were made from. Absent where no controller's are used.",
    "namespace", "pool",
)  # fmt: skip
SOURCE = gauge(
    "sonde_steer_source",
    "1 for where a pool's shares come from: a controller, equal among Ready pods because no controller says anything, "
    "or none, where connections are untouched.",
    "namespace", "pool", "source",
)  # fmt: skip
FAULT = gauge(
    "sonde_steer_fault",
    "1 where something about a pool's Service keeps it from being steered anew; the agent's log and /nodez say what.",
    "namespace", "pool",
)  # fmt: skip
BEATING = gauge(
    "sonde_steer_active", "1 while the agent looks after the tables; else the kernel leaves all connections untouched."
)
CONTROLLERS = gauge("sonde_steer_controllers", "Controllers whose stream of weights is open.")
FRAMES = counter("sonde_steer_frames_total", "Frames of weights received.")
CHANGES = counter("sonde_steer_table_changes_total", "Tables put into the kernel, or taken away.")
LEFT_ALONE = gauge("sonde_steer_clients_left_alone", "Cgroups whose connections are never steered.")

SOURCES = ("controller", "equal", "none")
FAMILIES: tuple[Family, ...] = (
    CONNECTIONS, SENT, INTENDED, SHARE, RTT, TABLE_AGE, WEIGHTS_AGE, SOURCE, FAULT,
    BEATING, CONTROLLERS, FRAMES, CHANGES, LEFT_ALONE,
)  # fmt: skip


def steering_metrics(state: SteeringState | None) -> Iterator[str]:
    """Nothing where nothing steers."""
    if state is None:
        return
    yield from _pool_metrics(state)
    pods = _by_pod(state)
    yield written(SENT, [(key, sum(one.connections for one in each)) for key, each in pods.items()])
    yield written(INTENDED, [(key, sum(one.intended for one in each)) for key, each in pods.items()])
    yield written(SHARE, [(key, sum(one.share for one in each)) for key, each in pods.items()])
    trips = {key: [one.rtt_s for one in each if one.rtt_s is not None] for key, each in pods.items()}
    yield written(RTT, [(key, min(found)) for key, found in trips.items() if found])
    for family, value in (
        (BEATING, state.beating),
        (CONTROLLERS, state.controllers),
        (FRAMES, state.frames),
        (CHANGES, state.changes),
        (LEFT_ALONE, state.left_alone),
    ):
        yield written(family, [((), value)])


def _pool_metrics(state: SteeringState) -> Iterator[str]:
    pools = state.pools
    yield written(
        CONNECTIONS, [((*one.pool, reason), count) for one in pools for reason, count in one.by_reason.items()]
    )
    ages = [(one.pool, one.table_age_s, one.weights_age_s) for one in pools]
    yield written(TABLE_AGE, [(pool, age_s) for pool, age_s, _ in ages if age_s is not None])
    yield written(WEIGHTS_AGE, [(pool, age_s) for pool, _, age_s in ages if age_s is not None])
    yield written(SOURCE, [((*one.pool, source), source == one.source) for one in pools for source in SOURCES])
    yield written(FAULT, [(one.pool, bool(one.fault)) for one in pools])


def _by_pod(state: SteeringState) -> dict[tuple[str, str, str], list[EndpointState]]:
    """A pod may serve at several addresses and ports; a scrape has one line for it."""
    found: dict[tuple[str, str, str], list[EndpointState]] = {}
    for one in state.endpoints:
        found.setdefault((*one.pool, one.pod), []).append(one)
    return found
