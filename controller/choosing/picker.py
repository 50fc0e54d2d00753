"""From a request to an endpoint: what it is to each, the policy's choice, the reservation, the counts.

Owns the order of these steps and the chance and memory of the policy; refuses to know protocols. Time is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from controller.choosing import reasons
from controller.choosing.affinity import Affinity
from controller.choosing.explain import Explainer, explained
from controller.choosing.lastpicks import LastPicks
from controller.endpoints.reservations import Reservation
from controller.endpoints.row import Row
from controller.endpoints.table import Table
from controller.model import Address, Reason, Request, Source
from controller.policies.admission import Budgets, admits
from controller.policies.fleet import UNREADY, Fleet, Job, Policy
from controller.policies.kept import Prices
from controller.policies.price import SONDE, Forecast, forecast

NO_FORECAST = Forecast(0.0, 0.0, 0.0, 0.0, False)


@dataclass(slots=True)
class Pick:
    """A chosen endpoint; must be closed by exactly one of drop, end, detach."""

    table: Table
    row: Row
    reservation: Reservation
    fallbacks: tuple[Address, ...] = ()  # what the gateway may try next, in this order

    @property
    def destination(self) -> str:
        """As header and metadata name it: "ip:port", with fallbacks a list of these."""
        own = self.row.endpoint.address
        return ",".join((own, *self.fallbacks)) if self.fallbacks else own

    def served_by(self, address: Address, now: float) -> None:
        """The gateway tells which endpoint answered. If it is another, ours did not take the request."""
        served = [] if address == self.row.endpoint.address else self.table.indexes((address,))
        other = self.table.rows[served[0]] if len(served) == 1 else None
        if address == self.row.endpoint.address or other is self.row:  # perhaps in another spelling
            return
        before = self.reservation
        self.table.miss(self.row, before, now)
        if other and other.source is not Source.KERNEL:  # a kernel has shown the request already
            self.row, self.reservation = other, self.table.reserve(other, now, before.tokens, before.uncached)

    def answered(self, status: int, now: float) -> None:
        """The gateway shows how the request was answered, where no kernel tells."""
        if self.row.source is not Source.KERNEL:
            self.row.answered(status, now)

    def drop(self, now: float) -> None:
        """The request was not sent."""
        self.table.drop(self.row, self.reservation, now)

    def end(self, now: float) -> None:
        """The response has ended."""
        self.table.end(self.row, self.reservation, now)

    def detach(self, now: float) -> None:
        """Nobody will tell when the response ends."""
        self.table.detach(self.row, self.reservation, now)


@dataclass(slots=True)
class Proposal:
    """An endpoint for a request, not yet taken."""

    request: Request
    job: Job  # of the whole fleet
    row: Row
    reason: Reason
    forecast: Forecast
    fallbacks: tuple[Address, ...]
    seen: tuple[Fleet, Job, int]  # what the policy chose from: the endpoints that the gateway allows


@dataclass(slots=True)
class Picker:
    table: Table
    policy: Policy = SONDE
    rng: Random = field(default_factory=Random)
    turn: int = 0
    last: LastPicks = field(default_factory=LastPicks)
    max_endpoints: int = 1  # one, and so many less one to fall back on
    affinity: Affinity = field(default_factory=Affinity)
    budgets: Budgets = field(default_factory=Budgets)
    explainer: Explainer = field(default_factory=Explainer)
    memory: Any = None
    _prepared_at: int = -1  # the turn

    def __post_init__(self) -> None:
        self.memory = self.policy.new()

    def prepare(self, now: float) -> None:
        """Does now what a pick would have to do first; to be called when the table has heard something.

        Once only where nobody asks for picks: an idle controller has no use for prices.
        """
        fleet = self.table.fleet
        if fleet.touched is None and self.turn != self._prepared_at and isinstance(self.memory, Prices):
            self._prepared_at = self.turn
            fleet.now_s = now
            self.memory.refresh(fleet)

    def pick(self, request: Request, now: float) -> Pick | None:
        """An endpoint, reserved; None if none is ready, or none that the gateway allows."""
        proposal = self.propose(request, now)
        return None if proposal is None else self.take(proposal, now)

    def propose(self, request: Request, now: float, job: Job | None = None) -> Proposal | None:
        """The endpoint that would be picked now. `job`: from an earlier proposal for the same request and fleet."""
        table, memory = self.table, self.memory
        table.refresh(now)
        fleet = table.fleet
        fleet.now_s = now
        among = None if request.subset is None else self._among(request.subset)
        if not fleet.ids or among == []:
            return None
        if job is None:
            job = self.affinity.job(request, fleet, table.rows)
        seen, seen_job = (fleet, job) if among is None else (fleet.part(among), job.part(among))
        at = self.policy.choose(seen, seen_job, self.rng, memory)
        if seen.standing[at] >= UNREADY:
            return None
        row = table.rows[at if among is None else among[at]]
        reason = reasons.reason(seen, seen_job, at, memory)
        if self.last.wants(now):
            self.last.note(now, reason, table.rows, self._ranks(seen), at, among)
        fallbacks = self._fallbacks(seen, at, among) if self.max_endpoints > 1 else ()
        told = forecast(seen_job, memory, at) if isinstance(memory, Prices) else NO_FORECAST
        return Proposal(request, job, row, reason, told, fallbacks, (seen, seen_job, at))

    def admits(self, proposal: Proposal, waited_s: float = 0.0) -> bool:
        """Whether the request may be sent there now, by what it would get."""
        return admits(proposal.forecast, proposal.job.priority, self.budgets, waited_s)

    def take(self, proposal: Proposal, now: float) -> Pick:
        """Reserves what was proposed just now."""
        job, row, fleet = proposal.job, proposal.row, self.table.fleet
        if self.explainer.wants(self.turn):
            self.explainer.note(explained(proposal.request, *proposal.seen, self.memory, proposal.reason.value))
        self.turn += 1
        row.picks[proposal.reason] = row.picks.get(proposal.reason, 0) + 1
        uncached = self.affinity.sent(proposal.request, job, row, fleet)
        reservation = self.table.reserve(row, now, job.prompt_tokens, uncached)
        self.affinity.reserved(proposal.request, job, row, fleet, proposal.forecast, reservation)
        self.policy.sent(fleet, row.index, job, self.memory)
        return Pick(self.table, row, reservation, proposal.fallbacks)

    def ranks(self, now: float) -> list[float]:
        """What each endpoint would cost a usual request, with the steps of what speaks against it; for people."""
        self.table.refresh(now)
        fleet = self.table.fleet
        fleet.now_s = now
        if not isinstance(self.memory, Prices):
            return self.table.ranks(now)
        return reasons.usual_ranks(fleet, Job(fleet.mean_prompt_tokens))

    def _among(self, subset: Sequence[str]) -> list[int] | None:
        """The endpoints that the gateway allows; None: all."""
        among = self.table.indexes(subset)
        return None if among and len(among) == len(self.table.rows) else among

    def _ranks(self, seen: Fleet) -> Sequence[float]:
        if isinstance(self.memory, Prices):
            return reasons.ranks(seen, self.memory.price_s)
        return reasons.ranks(seen, np.nan_to_num(seen.in_flight, nan=0.0))

    def _fallbacks(self, seen: Fleet, at: int, among: Sequence[int] | None) -> tuple[Address, ...]:
        """The next best that are ready, best first."""
        ranks = np.asarray(self._ranks(seen))
        ranks[at] = np.inf
        best = ranks.argsort(kind="stable")[: self.max_endpoints - 1].tolist()
        rows = self.table.rows
        chosen = [index for index in best if seen.standing[index] < UNREADY and ranks[index] < np.inf]
        return tuple(rows[index if among is None else among[index]].endpoint.address for index in chosen)
