"""One table of the pool's endpoints and what is known of each. Pure: events change it, time is an argument.

Keeps beside its rows the fleet that policies see: a row that is evaluated is written there, so a pick walks over no
rows. Every row knows when it changes by itself (a stall, an age limit). Unknown is not zero: where others are measured,
an endpoint that is not ranks as loaded as their mean, plus our own picks.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from agent.cluster.objects import Pod, Pool, serving_ports
from agent.engines.places import hint_of
from controller.catalog.models import Catalogue, catalogue_of
from controller.endpoints import columns
from controller.endpoints.reservations import SHOWN_LIMIT_S, Reservation
from controller.endpoints.row import FOREVER, MISSED_S, Node, Row
from controller.model import (
    Address,
    AgentGone,
    ClusterChanged,
    Endpoint,
    EngineScraped,
    Event,
    FrameReceived,
    KernelSignal,
    PortKey,
    Report,
    Source,
    parts_of,
)
from controller.policies import speed
from controller.policies.fleet import Fleet
from controller.policies.parts import COUNT_LIMIT_S, ENGINE

LEARN_S, LEARN_IDLE_S = 0.1, 1.0  # between two looks at the pods' speeds, and where nothing is in flight
OUTPUT_WEIGHT = 0.01  # of one answer in the mean of their lengths
OUTPUTS = 20  # answers between two looks at it
OUTPUT_MOST = 100_000.0


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
    _counted: int = 0  # rows whose load is from a kernel
    fleet: Fleet = field(default_factory=lambda: Fleet(()))  # what policies see; its owner sets the time
    _ejected: int = 0
    _pieces: int = 0  # of answers, and answers that ended, since their mean length was last followed
    _ended: int = 0
    _ages_at_s: float = FOREVER  # when the counts of some node are next to be looked at for their age
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

    @property
    def all_counted(self) -> bool:
        """Whether kernels count every endpoint: then they tell when a response has ended."""
        return 0 < self._counted == len(self.rows)

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
        if now >= self._ages_at_s:
            self._age(now)
        while self._dues and self._dues[0][0] <= now:
            due_s, _, row = heapq.heappop(self._dues)
            if due_s != row.queued_s or not self._is_here(row):
                continue  # an earlier time was queued meanwhile
            row.queued_s = FOREVER
            if row.due_s <= now:
                self._evaluate(row, now)
            else:
                self._queue(row)

    def _age(self, now: float) -> None:
        """The counts of a node grow old together, when its agent falls silent."""
        self._ages_at_s = FOREVER
        for node in self.nodes.values():
            old_at_s = node.true_at_s + COUNT_LIMIT_S + 1e-6
            if now < old_at_s:
                self._ages_at_s = min(self._ages_at_s, old_at_s)
            elif not node.aged:
                node.aged = True
                self._evaluate_all(node, now)

    def _evaluate_all(self, node: Node, now: float) -> None:
        for row in self.rows:
            if row.node is node:
                self._evaluate(row, now)

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

    def reserve(self, row: Row, now: float, tokens: float = 0.0, uncached: float = 0.0) -> Reservation:
        reservation = row.ledger.reserve(now, tokens, uncached)
        if self._is_here(row):
            speed.sent(self.fleet, row.index, uncached)
            if row.take_one_more(now, now + SHOWN_LIMIT_S):
                self._measured_load += row.source is not Source.OWN
                self._ranks[row.index] = row.load + row.penalty
                columns.write_one_more(self.fleet, row)
                self._queue(row)
            else:
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
        row.failures.failed(now)
        self.drop(row, reservation, now)

    def end(self, row: Row, reservation: Reservation, now: float) -> None:
        """The request is over."""
        row.ledger.end(reservation)
        self._settle(row, now)

    def detach(self, row: Row, reservation: Reservation, now: float) -> None:
        """Nobody will tell when the request is over."""
        row.ledger.detach(reservation, now)
        if row.source is not Source.KERNEL:  # where the kernel tells, nothing that a pick goes by has changed
            self._settle(row, now)

    def _settle(self, row: Row, now: float) -> None:
        if self._is_here(row):
            self._evaluate(row, now)

    def _is_here(self, row: Row) -> bool:
        return row.index < len(self.rows) and self.rows[row.index] is row

    def _evaluate(self, row: Row, now: float) -> None:
        before = row.source
        self._measured_load -= row.load if before is not Source.OWN else 0
        self._counted -= before is Source.KERNEL
        self._ejected -= row.ejected
        token_s = ENGINE.token_s * self.fleet.pool_pace * float(self.fleet.speed[row.index])
        row.evaluate(now, token_s, may_eject=2 * (self._ejected + 1) <= len(self.rows))
        self._ejected += row.ejected
        self._measured_load += row.load if row.source is not Source.OWN else 0
        self._counted += row.source is Source.KERNEL
        self._ranks[row.index] = row.load + row.penalty
        if row.source is Source.OWN:
            self._unmeasured.add(row.index)
        else:
            self._unmeasured.discard(row.index)
        if row.source is not before and row.node:
            row.node.columns = None
        columns.write(self.fleet, row, now)
        self._queue(row)

    def _apply_cluster(self, event: ClusterChanged, now: float) -> None:
        known = self.pool is not None
        self.pool = event.cluster.pools.get((self.group, self.namespace, self.name))
        self.catalogue = catalogue_of(event.cluster, self.pool) if self.pool else Catalogue()
        rows = [self._row_for(endpoint, now, known) for endpoint in _one_each(self._endpoints(event))]
        self._by_address = {row.endpoint.address: row for row in rows}
        self.rows = list(self._by_address.values())
        self._by_key = {row.endpoint.key: row for row in self.rows}
        self._by_ip = {}
        for row in self.rows:
            self._by_ip.setdefault(parts_of(row.endpoint.ip)[0], []).append(row)
        self._ranks = [0.0] * len(self.rows)
        self._unmeasured = set()
        self._measured_load = self._counted = 0
        self._dues = []
        self._ejected = 0
        for index, row in enumerate(self.rows):
            row.index, row.load, row.queued_s, row.ejected = index, 0, FOREVER, False
            row.source = Source.OWN
        self.fleet = columns.rebuilt(self.fleet, self.rows, now)
        for row in self.rows:
            self._evaluate(row, now)
        for node, reports in self._reports.items():
            for report in reports.values():
                self._apply_report(node, report, now)

        for one in self.nodes.values():
            one.columns = None
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

    def _row_for(self, endpoint: Endpoint, now: float, known: bool) -> Row:
        """The row the endpoint had, unless another pod took over its name or address.

        known: the pool was known before, so that who appears in it is new, and cold.
        """
        row = self._by_address.get(endpoint.address)
        if row is None or row.endpoint.key != endpoint.key or row.endpoint.uid != endpoint.uid:
            return Row(endpoint, ready_at_s=now if known and endpoint.ready else None, was_ready=endpoint.ready)
        if endpoint.ready and not row.was_ready and known:
            row.ready_at_s, row.was_ready = now, True
        row.endpoint = endpoint
        return row

    def _apply_frame(self, event: FrameReceived, now: float) -> None:
        node = self.nodes.setdefault(event.node, Node(now))
        node.heard_at_s, node.alive = now, True
        if event.true_at_s is not None:
            node.true_at_s = event.true_at_s
            self._ages_at_s = min(self._ages_at_s, event.true_at_s + COUNT_LIMIT_S)
        reports = self._reports.setdefault(event.node, {})
        if event.full:
            for key in reports.keys() - {report.key for report in event.reports}:
                del reports[key]
                self._forget(self._by_key.get(key), node, now)
        for report in event.reports:
            reports[report.key] = report
            self._apply_report(event.node, report, now)
        if node.columns is None:
            counted = [row.index for row in self.rows if row.node is node and row.source is Source.KERNEL]
            node.columns = np.array(counted, np.intp)
        self.fleet.kernel_at_s[node.columns] = np.maximum(self.fleet.kernel_at_s[node.columns], node.true_at_s)
        if node.aged and now - node.true_at_s <= COUNT_LIMIT_S:
            node.aged = False
            self._evaluate_all(node, now)
        if now - self.fleet.learned_at_s >= (LEARN_S if self._measured_load else LEARN_IDLE_S):
            self._learn(now)

    def _learn(self, now: float) -> None:
        self.fleet.now_s = now
        speed.learn(self.fleet)
        self.fleet.touched = None

    def _forget(self, row: Row | None, node: Node, now: float) -> None:
        if row and row.node is node:
            row.kernel = row.node = node.columns = None
            row.paged_at_s = -FOREVER
            row.fault, row.devices = "", ()
            self._evaluate(row, now)

    def _apply_report(self, node: str, report: Report, now: float) -> None:
        row = self._by_key.get(report.key)
        if row is None or (row.endpoint.uid and report.uid and row.endpoint.uid != report.uid):
            return
        row.paged_at_s = report.engine.true_at_s if report.engine else -FOREVER
        if report.engine and (row.engine is None or row.engine.true_at_s < report.engine.true_at_s):
            row.engine = report.engine
        row.fault, row.devices = report.fault, report.devices
        if row.node is not self.nodes[node]:
            row.node = self.nodes[node]
            row.node.columns = None
        if report.kernel is None:
            row.kernel = None
        elif report.kernel is not row.kernel:
            self._follow_outputs(row, report.kernel)
            others = row.hear(report.kernel, now, self.fleet.whole_share)
            if others > 0:
                speed.others_sent(self.fleet, row.index, others * self.fleet.mean_uncached_tokens)
        self._evaluate(row, now)

    def _follow_outputs(self, row: Row, kernel: KernelSignal) -> None:
        """The mean length of answers, from how many pieces and how many answers there were."""
        before, fleet = row.kernel, self.fleet
        ended = kernel.completed - before.completed if before else 0
        pieces = kernel.chunks - before.chunks if before else 0
        if ended < 0 or pieces < 0:
            return
        self._pieces += pieces
        self._ended += ended
        if self._ended >= OUTPUTS:
            mean = min(OUTPUT_MOST, max(1.0, self._pieces / self._ended))
            fleet.mean_output_tokens += min(1.0, OUTPUT_WEIGHT * self._ended) * (mean - fleet.mean_output_tokens)
            self._pieces = self._ended = 0

    def _apply_gone(self, event: AgentGone, now: float) -> None:
        node = self.nodes.get(event.node)
        if node is None:
            return
        node.alive = False
        self._evaluate_all(node, now)

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
