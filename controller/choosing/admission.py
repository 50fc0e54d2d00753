"""Whether a request may go on to its pick: the judges of saturation.py on what the table knows now.

Owns which policy has which judge and which thresholds; refuses to know protocols and picks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from controller.catalog.classes import NO_ENDPOINT, NO_ENDPOINT_03, NO_POD, SHED, STANDARD, Refusal
from controller.choosing.saturation import Limits, Load, at_pace, ceiling, is_saturated, pressure, queue_of
from controller.endpoints.row import Row
from controller.endpoints.table import Table
from controller.model import Request
from controller.policies.fleet import Policy
from controller.policies.peers import gie
from controller.policies.registry import POLICIES
from controller.sources.engines import SCRAPES_PER_S

PRESSURE_FOR_S = 0.01  # so long a pool's pressure is taken as it was: walking all of a large one costs more than a pick

Gate = Callable[[Request, Table, float], Refusal | None]
Weights = tuple[float, float, float, float]  # of queue, KV cache, prefix and adapter
Nobody = Callable[[Request], Refusal]

# Policies that go by pages alone, as the reference does: this controller reads all of them itself, as often as told.
PAGE_POLICIES = frozenset({"gie-v0.3", "gie-v1"})


def gate_of(policy: str, known: Limits) -> Gate:
    """The judge of a policy, with its thresholds."""
    if policy == "gie-v0.3":
        # only InferenceModels with criticality Critical are never shed there
        return _Reference(known, shed_up_to=STANDARD)
    if policy == "gie-v1":
        return _Reference(known, shed_up_to=STANDARD - 1)
    return _Graded(known) if policy == "sonde" else admit_all


def nobody_of(policy: str) -> Nobody:
    """The answer where no endpoint is there for a request. The reference's differ from what its protocol says."""
    if policy == "gie-v0.3":
        return lambda request: NO_ENDPOINT if request.body is None else NO_ENDPOINT_03
    if policy == "gie-v1":
        return lambda request: NO_ENDPOINT if request.body is not None or request.subset is not None else NO_POD
    return no_endpoint


def no_endpoint(_request: Request) -> Refusal:
    return NO_ENDPOINT


def policy_of(name: str, known: Limits, weights: Weights | None = None) -> Policy:
    """The rule of a policy, with its thresholds, and with other weights of its scorers than their own."""
    if name == "gie-v1" and weights is not None:
        return gie.scorers(weights[:3], weights[3])
    if name == "gie-v0.3":
        return gie.tree(known.low_queue, known.queue, known.kv_cache_usage, known.adapter_affinity)
    return POLICIES[name]


def admit_all(_request: Request, _table: Table, _now: float) -> Refusal | None:
    return None


@dataclass(frozen=True, slots=True)
class _Reference:
    limits: Limits
    shed_up_to: int

    def __call__(self, request: Request, table: Table, now: float) -> Refusal | None:
        if _priority(request) > self.shed_up_to:
            return None
        known = at_pace(self.limits, len(table.rows) / SCRAPES_PER_S)
        return SHED if is_saturated((_by_page(row, known, now) for row in _serving(request, table)), known) else None


@dataclass(slots=True)
class _Graded:
    limits: Limits
    _pressure: float = field(default=0.0)
    _until_s: float = field(default=float("-inf"))

    def __call__(self, request: Request, table: Table, now: float) -> Refusal | None:
        most = ceiling(_priority(request), table.catalogue.sheddable)
        return SHED if most < float("inf") and self._now(request, table, now) >= most else None

    def _now(self, request: Request, table: Table, now: float) -> float:
        if request.subset is not None:
            return pressure((_freshest(row, now) for row in _serving(request, table)), self.limits)
        if now >= self._until_s:
            self._pressure = pressure((_freshest(row, now) for row in _serving(request, table)), self.limits)
            self._until_s = now + PRESSURE_FOR_S
        return self._pressure


def _priority(request: Request) -> int:
    return request.resolved.priority if request.resolved else STANDARD


def _serving(request: Request, table: Table) -> Iterator[Row]:
    rows = table.rows if request.subset is None else [table.rows[at] for at in table.indexes(request.subset)]
    return (row for row in rows if row.endpoint.ready and not row.endpoint.terminating)


def _by_page(row: Row, known: Limits, now: float) -> Load:
    engine = row.fresh_engine(now)
    if engine is None or (known.engine_age_s is not None and now - engine.true_at_s > known.engine_age_s):
        return Load(None, None)
    return Load(engine.waiting, engine.kv_cache_usage)


def _freshest(row: Row, now: float) -> Load:
    kernel, engine = row.fresh_kernel(now), row.fresh_engine(now)
    queue = queue_of(kernel, engine, row.ledger.unshown if kernel else 0)
    return Load(queue, engine.kv_cache_usage if engine else None)
