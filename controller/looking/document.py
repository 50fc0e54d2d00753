"""What the live page and `top` show: the table at one instant as plain values that become JSON. Pure; time is given.

Refuses to know who looks and how it travels. Values are msgspec structs, not dataclasses: all pods are made anew and
compared twice a second, and these cost a tenth. Times ending in `_at_s` are on the clock of `now_s`; None is unknown,
never zero: an endpoint whose agent went silent has no in-flight, it has `stale_at_s`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import repeat

import msgspec

from controller.choosing.lastpicks import LastPicks, Noted
from controller.choosing.pick import STEPS
from controller.endpoints.health import State
from controller.endpoints.row import Node, Row
from controller.endpoints.table import Table
from controller.model import Device, EngineSignal, KernelSignal
from controller.policies.parts import SIGNAL_LIMIT_S

LINE_POINTS = 60
DEVICE_LIMIT_S = 15.0  # agents look each two seconds, and give up a source after ten
REQUESTS = "requests"
SECONDS = "s"


class AgentLine(msgspec.Struct, frozen=True):
    """One node. `heard_age_s` None: this controller has heard no agent of it."""

    name: str
    live: bool
    heard_age_s: float | None


class PodLine(msgspec.Struct, frozen=True, gc=False):
    """One serving port of one pod."""

    id: str
    namespace: str
    pod: str
    port: int
    address: str
    node: str | None
    ready: bool
    terminating: bool
    state: str  # of controller.health
    silent_at_s: float | None  # since when it owes answers, if it is stalled
    source: str  # what the load was taken from
    load: int
    rank: float
    against: tuple[str, ...]  # what speaks against it, whatever its rank
    in_flight: int | None
    waiting: int | None
    streaming: int | None
    stale_at_s: float | None  # measured once, and not freshly: when that was true
    ttft_s: float | None
    gap_s: float | None
    kv_cache_usage: float | None
    unshown: int
    picks: Mapping[str, int]
    fault: str = ""  # of an accelerator, with its id
    weight: float | None = None  # of connections that agents steer; None: none was told
    devices: tuple[Device, ...] = ()


class Alternative(msgspec.Struct, frozen=True):
    """An endpoint that was not picked, and what it would have cost."""

    id: str
    pod: str
    rank: float
    against: tuple[str, ...]


class PickLine(msgspec.Struct, frozen=True):
    at_s: float
    id: str
    pod: str
    reason: str
    rank: float
    against: tuple[str, ...]
    alternatives: tuple[Alternative, ...]


class Summary(msgspec.Struct, frozen=True):
    """The pool as a whole; `known` is false while the pool is not there."""

    namespace: str
    pool: str
    known: bool
    policy: str
    picks: int
    exchanges_open: int
    agents_connected: int
    price_unit: str = REQUESTS  # of every rank: these, or seconds


class Document(msgspec.Struct, frozen=True):
    now_s: float
    summary: Summary
    nodes: tuple[AgentLine, ...]
    pods: tuple[PodLine, ...]
    picks: tuple[PickLine, ...]


def document(
    table: Table,
    ranks: Sequence[float],
    last: LastPicks,
    summary: Summary,
    now: float,
    weights: Sequence[float] | None = None,
) -> Document:
    """To be made by the table's owner; it may then be read by any thread. `ranks` are those of a usual request."""
    told: Sequence[float | None] = weights if weights is not None else [None] * len(table.rows)
    return Document(
        round(now, 3),
        summary,
        _agents(table, now),
        tuple(_pod(row, rank, now, weight) for row, rank, weight in zip(table.rows, ranks, told, strict=True)),
        tuple(map(_pick, last.latest())),
    )


def _agents(table: Table, now: float) -> tuple[AgentLine, ...]:
    """Every node that has an endpoint or an agent; what the table forgot of a silent one its rows still know."""
    nodes: dict[str, Node | None] = dict(table.nodes)
    for row in table.rows:
        if row.endpoint.node and nodes.get(row.endpoint.node) is None:
            nodes[row.endpoint.node] = row.node
    return tuple(_agent(name, nodes[name], now) for name in sorted(nodes))


def _agent(name: str, node: Node | None, now: float) -> AgentLine:
    if node is None:
        return AgentLine(name, False, None)
    live = node.alive and now < node.believed_until_s()
    return AgentLine(name, live, round(max(0.0, now - node.heard_at_s), 1))


def split(rank: float) -> tuple[float, tuple[str, ...]]:
    """The steps of a rank, by name, apart from its load."""
    against = []
    for step, name in STEPS:
        if rank >= step:
            rank -= step
            against.append(name)
    return round(rank, 4), tuple(against)


def _pod(row: Row, full_rank: float, now: float, weight: float | None) -> PodLine:
    endpoint = row.endpoint
    rank, against = split(full_rank)
    kernel = _kernel(row, now)
    engine = row.fresh_engine(now)
    in_flight, waiting, streaming = _counts(kernel, engine)
    return PodLine(
        id=endpoint_id(row),
        namespace=endpoint.namespace,
        pod=endpoint.pod,
        port=endpoint.port,
        address=endpoint.address,
        node=endpoint.node,
        ready=endpoint.ready,
        terminating=endpoint.terminating,
        state=row.vigil.state.value,
        silent_at_s=_silent_at_s(row, kernel),
        source=row.source.value,
        load=row.load,
        rank=rank,
        against=against,
        in_flight=in_flight,
        waiting=waiting,
        streaming=streaming,
        stale_at_s=_stale_at_s(row, kernel, engine),
        ttft_s=_short(kernel.usual_ttft_s) if kernel else None,
        gap_s=_short(kernel.usual_gap_s) if kernel else None,
        kv_cache_usage=engine.kv_cache_usage if engine else None,
        unshown=row.ledger.unshown,
        picks={reason.value: count for reason, count in row.picks.items()},
        fault=row.fault,
        weight=None if weight is None else round(weight, 3),
        devices=_devices(row.devices, now),
    )


def _devices(devices: tuple[Device, ...], now: float) -> tuple[Device, ...]:
    """As they are, since they are many; without their numbers where these are too old."""
    if not any(map(_is_old, devices, repeat(now))):
        return devices
    return tuple(
        replace(one, utilization=None, memory_used_bytes=None) if _is_old(one, now) else one for one in devices
    )


def _is_old(one: Device, now: float) -> bool:
    return one.at_s is not None and now - one.at_s > DEVICE_LIMIT_S


def endpoint_id(row: Row) -> str:
    return f"{row.endpoint.namespace}/{row.endpoint.pod}:{row.endpoint.port}"


def _counts(kernel: KernelSignal | None, engine: EngineSignal | None) -> tuple[int | None, int | None, int | None]:
    if kernel:
        return kernel.in_flight, kernel.waiting, kernel.in_flight - kernel.waiting
    if engine:
        return engine.requests, engine.waiting, engine.running
    return None, None, None


def _silent_at_s(row: Row, kernel: KernelSignal | None) -> float | None:
    if kernel is None or row.vigil.state is not State.STALLED or kernel.progress_at_s is None:
        return None
    return round(kernel.progress_at_s, 1)


def _kernel(row: Row, now: float) -> KernelSignal | None:
    """Picks use a count for a quarter of a second; for people one is worth showing until nothing uses it any more."""
    return row.kernel if row.kernel and now - row.kernel_at_s() <= SIGNAL_LIMIT_S else None


def _stale_at_s(row: Row, kernel: KernelSignal | None, engine: EngineSignal | None) -> float | None:
    if kernel or engine:
        return None
    known = [signal.true_at_s for signal in (row.kernel, row.engine) if signal]
    known += [row.kernel_at_s()] if row.kernel else []  # later, where the node said that nothing had changed
    return round(max(known), 1) if known else None


def _pick(noted: Noted) -> PickLine:
    rank, against = split(noted.rank)
    others = tuple(
        Alternative(endpoint_id(row), row.endpoint.pod, *split(full_rank)) for row, full_rank in noted.alternatives()
    )
    return PickLine(
        round(noted.at_s, 3), endpoint_id(noted.row), noted.row.endpoint.pod, noted.reason.value, rank, against, others
    )


class Line(msgspec.Struct, frozen=True, gc=False):
    """The recent past of one endpoint, oldest first."""

    ttft_s: tuple[float | None, ...] = ()
    gap_s: tuple[float | None, ...] = ()


Lines = Mapping[str, Line]


def longer(lines: Lines, pods: Sequence[PodLine]) -> Lines:
    """The lines with one more point each; those of endpoints that are gone end."""
    return {pod.id: _point(lines.get(pod.id, Line()), pod) for pod in pods}


def _point(line: Line, pod: PodLine) -> Line:
    keep = 1 - LINE_POINTS
    return Line((*line.ttft_s[keep:], pod.ttft_s), (*line.gap_s[keep:], pod.gap_s))


def _short(value: float | None) -> float | None:
    """To ten microseconds: what a person can tell apart, in few letters."""
    return None if value is None else round(value, 5)
