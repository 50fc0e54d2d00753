"""One table of the pool's endpoints and what is known of each. Pure: events change it, time is an argument.

The load of an endpoint, from the best thing known:

1. kernel: requests in flight as the node's kernel counts them + our picks it cannot have counted yet. Used while the
   agent's stream lives: agents send every change at once, so what was not mentioned is unchanged. A stream that is
   silent for KERNEL_SILENCE_S (heartbeats come each second) is not alive; after a break the last count serves for
   KERNEL_BROKEN_S.
2. engine: running + waiting as the engine's page says, if younger than ENGINE_LIMIT_S, + our picks since; never less
   than the exchanges we hold open.
3. own: nothing is measured; our own picks. Unknown is not zero: where others are measured, such an endpoint counts as
   loaded as the mean of the measured ones, plus our own picks.

Every row knows when its rank changes by itself (a stall, an age limit), so a pick costs no walk over all signals.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from agent.cluster.objects import Pod, Pool, serving_ports
from agent.engines.places import hint_of
from controller.health import State, Vigil
from controller.model import (
    Address,
    AgentGone,
    ClusterChanged,
    Endpoint,
    EngineScraped,
    EngineSignal,
    Event,
    FrameReceived,
    KernelSignal,
    PortKey,
    Reason,
    Report,
    Source,
    parts_of,
)
from controller.models import Catalogue, catalogue_of
from controller.pick import LOST_STEP, STALLED_STEP, TERMINATING_STEP, UNREADY_STEP
from controller.reservations import Ledger, Reservation

KERNEL_SILENCE_S = 2.5
KERNEL_BROKEN_S = 0.25
ENGINE_LIMIT_S = 2.5
# A gateway that reports another endpoint as the one that served could not use ours. It comes last for so long.
MISSED_S = 5.0

FOREVER = float("inf")


@dataclass(slots=True)
class Node:
    """The agent of a node, as its stream shows it."""

    heard_at_s: float
    alive: bool = True

    def believed_until_s(self) -> float:
        return self.heard_at_s + (KERNEL_SILENCE_S if self.alive else KERNEL_BROKEN_S)


@dataclass(slots=True, eq=False)
class Row:
    """One endpoint. `load`, `source` and `rank` are as of the last evaluation."""

    endpoint: Endpoint
    index: int = 0
    node: Node | None = None
    kernel: KernelSignal | None = None
    engine: EngineSignal | None = None
    ledger: Ledger = field(default_factory=Ledger)
    vigil: Vigil = field(default_factory=Vigil)
    load: int = 0
    source: Source = Source.OWN
    penalty: float = 0.0
    fault: str = ""  # of an accelerator of the pod, as its node's agent says
    due_s: float = FOREVER  # when it must be evaluated next
    queued_s: float = FOREVER  # the earliest time the table's queue holds for it
    picks: dict[Reason, int] = field(default_factory=dict)
    misses: int = 0  # requests that the gateway could not bring here
    shunned_until_s: float = -FOREVER

    def fresh_kernel(self, now: float) -> KernelSignal | None:
        return self.kernel if self.kernel and now < self._kernel_until_s() else None

    def fresh_engine(self, now: float) -> EngineSignal | None:
        engine = self.engine
        return engine if engine and now < engine.true_at_s + ENGINE_LIMIT_S else None

    def _kernel_until_s(self) -> float:
        """An agent that lives may still be stuck with old readings, so the reading's own age counts too."""
        if self.node is None or self.kernel is None:
            return -FOREVER
        return min(self.node.believed_until_s(), self.kernel.true_at_s + KERNEL_SILENCE_S)

    def evaluate(self, now: float) -> None:
        self.ledger.expire(now)
        kernel, engine = self.fresh_kernel(now), self.fresh_engine(now)
        state = self.vigil.watch(kernel, now)
        self._measure(kernel, engine)
        self.penalty = self._penalty(state, now)
        dues = [self.ledger.due_s(), self.vigil.due_s(kernel)]
        if kernel:
            dues.append(self._kernel_until_s())
        if engine:
            dues.append(engine.true_at_s + ENGINE_LIMIT_S)
        if now < self.shunned_until_s:
            dues.append(self.shunned_until_s)
        self.due_s = min(dues)

    def _measure(self, kernel: KernelSignal | None, engine: EngineSignal | None) -> None:
        requests = engine.requests if engine else None
        if kernel:
            self.source, self.load = Source.KERNEL, kernel.in_flight + self.ledger.unshown
        elif engine and requests is not None:
            self.source = Source.ENGINE
            self.load = max(requests + self.ledger.since(engine.true_at_s), self.ledger.open)
        else:
            self.source, self.load = Source.OWN, self.ledger.own

    def _penalty(self, state: State, now: float) -> float:
        shunned = state in (State.STALLED, State.SUSPECT) or (state is State.TRIAL and self.load > 0)
        shunned = shunned or now < self.shunned_until_s
        penalty = STALLED_STEP if shunned else 0.0
        penalty += 0.0 if self.endpoint.ready else UNREADY_STEP
        penalty += LOST_STEP if self.fault else 0.0
        return penalty + (TERMINATING_STEP if self.endpoint.terminating else 0.0)


@dataclass(slots=True)
class Table:
    """All endpoints of one pool. Not thread-safe: one event loop owns it."""

    group: str
    namespace: str
    name: str
    pool: Pool | None = None  # None: not synced, or not there
    catalogue: Catalogue = field(default_factory=Catalogue)
    rows: list[Row] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    _by_address: dict[Address, Row] = field(default_factory=dict)
    _by_key: dict[PortKey, Row] = field(default_factory=dict)
    _by_ip: dict[str, list[Row]] = field(default_factory=dict)
    _reports: dict[str, dict[PortKey, Report]] = field(default_factory=dict)  # by node
    _ranks: list[float] = field(default_factory=list)
    _unmeasured: set[int] = field(default_factory=set)
    _measured_load: int = 0
    _dues: list[tuple[float, int, Row]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def apply(self, event: Event, now: float) -> None:
        match event:
            case ClusterChanged():
                self._apply_cluster(event, now)
            case FrameReceived():
                self._apply_frame(event, now)
            case AgentGone():
                self._apply_gone(event, now)
            case EngineScraped():
                row = self._by_address.get(event.address)
                if row:
                    row.engine = event.signal
                    self._evaluate(row, now)

    def row(self, address: Address) -> Row | None:
        return self._by_address.get(address)

    def ranks(self, now: float) -> list[float]:
        """The rank of each row at this instant, in the order of `rows`. It is the table's own list: read it at once."""
        self.refresh(now)
        measured = len(self.rows) - len(self._unmeasured)
        if not measured or not self._unmeasured:
            return self._ranks
        usual = self._measured_load / measured
        ranks = self._ranks.copy()
        for index in self._unmeasured:
            ranks[index] += usual
        return ranks

    def refresh(self, now: float) -> None:
        """Evaluates the rows whose time has come."""
        while self._dues and self._dues[0][0] <= now:
            due_s, _, row = heapq.heappop(self._dues)
            if due_s != row.queued_s or not self._is_here(row):
                continue  # an earlier time was queued meanwhile
            row.queued_s = FOREVER
            if row.due_s <= now:
                self._evaluate(row, now)
            else:
                self._queue(row)

    def _queue(self, row: Row) -> None:
        if row.due_s < row.queued_s:
            row.queued_s = row.due_s
            heapq.heappush(self._dues, (row.due_s, next(self._order), row))

    def indexes(self, subset: Iterable[str]) -> list[int]:
        """The rows that a gateway's subset names: by "ip:port", or by an address without port all of its ports."""
        found: set[int] = set()
        for entry in subset:
            row = self._by_address.get(entry)
            if row:
                found.add(row.index)
                continue
            ip, port = parts_of(entry)
            found.update(row.index for row in self._by_ip.get(ip, ()) if port in (None, row.endpoint.port))
        return sorted(found)

    def reserve(self, row: Row, now: float) -> Reservation:
        reservation = row.ledger.reserve(now)
        self._evaluate(row, now)
        return reservation

    def drop(self, row: Row, reservation: Reservation, now: float) -> None:
        """The request was not sent."""
        row.ledger.drop(reservation)
        self._settle(row, now)

    def miss(self, row: Row, reservation: Reservation, now: float) -> None:
        """The request did not get through to the endpoint."""
        row.misses += 1
        row.shunned_until_s = now + MISSED_S
        self.drop(row, reservation, now)

    def end(self, row: Row, reservation: Reservation, now: float) -> None:
        """The request is over."""
        row.ledger.end(reservation)
        self._settle(row, now)

    def detach(self, row: Row, reservation: Reservation, now: float) -> None:
        """Nobody will tell when the request is over."""
        row.ledger.detach(reservation, now)
        self._settle(row, now)

    def _settle(self, row: Row, now: float) -> None:
        if self._is_here(row):
            self._evaluate(row, now)

    def _is_here(self, row: Row) -> bool:
        return row.index < len(self.rows) and self.rows[row.index] is row

    def _evaluate(self, row: Row, now: float) -> None:
        self._measured_load -= row.load if row.source is not Source.OWN else 0
        row.evaluate(now)
        self._measured_load += row.load if row.source is not Source.OWN else 0
        self._ranks[row.index] = row.load + row.penalty
        if row.source is Source.OWN:
            self._unmeasured.add(row.index)
        else:
            self._unmeasured.discard(row.index)
        self._queue(row)

    def _apply_cluster(self, event: ClusterChanged, now: float) -> None:
        self.pool = event.cluster.pools.get((self.group, self.namespace, self.name))
        self.catalogue = catalogue_of(event.cluster, self.pool) if self.pool else Catalogue()
        rows = [self._row_for(endpoint) for endpoint in _one_each(self._endpoints(event))]
        self._by_address = {row.endpoint.address: row for row in rows}
        self.rows = list(self._by_address.values())
        self._by_key = {row.endpoint.key: row for row in self.rows}
        self._by_ip = {}
        for row in self.rows:
            self._by_ip.setdefault(parts_of(row.endpoint.ip)[0], []).append(row)
        self._ranks = [0.0] * len(self.rows)
        self._unmeasured = set()
        self._measured_load = 0
        self._dues = []
        for index, row in enumerate(self.rows):
            row.index, row.load, row.queued_s = index, 0, FOREVER
            self._evaluate(row, now)
        for node, reports in self._reports.items():
            for report in reports.values():
                self._apply_report(node, report, now)

        self._forget_nodes(now)

    def _forget_nodes(self, now: float) -> None:
        for name, node in list(self.nodes.items()):
            if now >= node.believed_until_s():
                del self.nodes[name]
                self._reports.pop(name, None)

    def _endpoints(self, event: ClusterChanged) -> list[Endpoint]:
        if self.pool is None:
            return []
        return [
            endpoint for pod in event.cluster.pods_of(self.pool) if pod.ip for endpoint in _endpoints_of(self.pool, pod)
        ]

    def _row_for(self, endpoint: Endpoint) -> Row:
        """The row the endpoint had, unless another pod took over its name or address."""
        row = self._by_address.get(endpoint.address)
        if row is None or row.endpoint.key != endpoint.key or row.endpoint.uid != endpoint.uid:
            return Row(endpoint)
        row.endpoint = endpoint
        return row

    def _apply_frame(self, event: FrameReceived, now: float) -> None:
        node = self.nodes.setdefault(event.node, Node(now))
        node.heard_at_s, node.alive = now, True
        reports = self._reports.setdefault(event.node, {})
        if event.full:
            for key in reports.keys() - {report.key for report in event.reports}:
                del reports[key]
                self._forget(self._by_key.get(key), node, now)
        for report in event.reports:
            reports[report.key] = report
            self._apply_report(event.node, report, now)

    def _forget(self, row: Row | None, node: Node, now: float) -> None:
        if row and row.node is node:
            row.kernel = row.node = None
            row.fault = ""
            self._evaluate(row, now)

    def _apply_report(self, node: str, report: Report, now: float) -> None:
        row = self._by_key.get(report.key)
        if row is None or (row.endpoint.uid and report.uid and row.endpoint.uid != report.uid):
            return
        if report.engine and (row.engine is None or row.engine.true_at_s < report.engine.true_at_s):
            row.engine = report.engine
        row.node = self.nodes[node]
        row.fault = report.fault
        if report.kernel is not row.kernel:
            _show(row, report.kernel)
            row.kernel = report.kernel
        self._evaluate(row, now)

    def _apply_gone(self, event: AgentGone, now: float) -> None:
        node = self.nodes.get(event.node)
        if node is None:
            return
        node.alive = False
        for row in self.rows:
            if row.node is node:
                self._evaluate(row, now)

    def agents_alive(self, now: float) -> int:
        return sum(node.alive and now < node.believed_until_s() for node in self.nodes.values())


def _endpoints_of(pool: Pool, pod: Pod) -> Iterator[Endpoint]:
    ports = serving_ports(pool, pod)
    for port in ports:
        hint = hint_of(pod.labels, pod.annotations, port, ports)
        yield Endpoint(pod.namespace, pod.name, pod.uid, pod.ip or "", port, pod.ready, pod.terminating, pod.node, hint)


def _one_each(endpoints: Iterable[Endpoint]) -> Iterable[Endpoint]:
    """One endpoint for each address: a pod that has ended keeps its address in the API, and another may have got it."""
    best: dict[Address, Endpoint] = {}
    for endpoint in endpoints:
        held = best.get(endpoint.address)
        if held is None or _standing(endpoint) >= _standing(held):
            best[endpoint.address] = endpoint
    return best.values()


def _standing(endpoint: Endpoint) -> tuple[bool, bool]:
    return endpoint.ready, not endpoint.terminating


def _show(row: Row, kernel: KernelSignal | None) -> None:
    """Takes the reservations that a new reading shows out of the count of unshown ones."""
    if kernel is None:
        return
    starts = kernel.started - row.kernel.started if row.kernel else -1
    if starts < 0:  # the first reading, or counted anew
        row.ledger.show_all(kernel.true_at_s)
    else:
        row.ledger.show(starts, kernel.true_at_s)
