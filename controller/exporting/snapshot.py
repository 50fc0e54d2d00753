"""The controller at one instant, as frozen values: for the metrics page and for whoever else shows it.

Taken by the event loop, which owns the table; read anywhere. Refuses to know how it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controller.endpoints.health import State
from controller.endpoints.row import FOREVER, Row
from controller.endpoints.table import Table
from controller.exporting.counts import Requests
from controller.model import Reason, Source


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
    speed: float = 1.0
    ejected: bool = False
    failures: float = 0.0
    cold: bool = False
    weight: float | None = None  # as last told to agents; None: none was


@dataclass(frozen=True, slots=True)
class NodeView:
    """The agent of one node at one instant."""

    node: str
    alive: bool
    frame_age_s: float


@dataclass(frozen=True, slots=True)
class Totals:
    """What is counted for the controller as a whole."""

    exchanges_open: int = 0
    waiting: int = 0
    body_bytes: int = 0
    bodies_dropped: int = 0
    agents_known: int = 0
    agents_connected: int = 0
    frames: int = 0
    agent_reconnects: int = 0
    scrapes_good: int = 0
    scrapes_failed: int = 0
    weight_watchers: int = 0
    weight_frames: int = 0
    weight_moves: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    pool: str
    endpoints: tuple[EndpointView, ...]
    nodes: tuple[NodeView, ...]
    totals: Totals
    requests: Requests


def snapshot(
    table: Table, totals: Totals, requests: Requests, now: float, weights: Sequence[float] | None = None
) -> Snapshot:
    """To be taken by the table's owner; the page is then written elsewhere. `weights`: of each row, where told."""
    table.refresh(now)
    told: Sequence[float | None] = weights if weights is not None else [None] * len(table.rows)
    endpoints = tuple(
        _view(row, float(table.fleet.speed[row.index]), now, weight)
        for row, weight in zip(table.rows, told, strict=True)
    )
    nodes = tuple(
        NodeView(name, node.alive and now < node.believed_until_s(), now - node.heard_at_s)
        for name, node in table.nodes.items()
    )
    return Snapshot(table.name, endpoints, nodes, totals, requests)


def _view(row: Row, speed: float, now: float, weight: float | None) -> EndpointView:
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
        kernel_age_s=now - row.kernel_at_s() if row.kernel_at_s() > -FOREVER else None,
        engine_age_s=now - row.page_true_at_s(row.engine.true_at_s) if row.engine else None,
        unshown=row.ledger.unshown,
        picks=dict(row.picks),
        misses=row.misses,
        speed=speed,
        ejected=row.ejected,
        failures=row.failures.rate(now),
        cold=row.ready_at_s is not None,
        weight=weight,
    )
