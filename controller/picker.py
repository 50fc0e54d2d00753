"""From a request to an endpoint: the table's ranks, the policy's choice, the reservation, the counts.

Owns the order of these steps and the turn and chance of policies; refuses to know protocols. Time is an argument.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from controller.lastpicks import LastPicks
from controller.model import Address, Request, Source
from controller.pick import UNREADY_STEP, Policy, sonde
from controller.reservations import Reservation
from controller.table import Row, Table


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
        if address == self.row.endpoint.address:
            return
        self.table.miss(self.row, self.reservation, now)
        other = self.table.row(address)
        if other and other.source is not Source.KERNEL:  # a kernel has shown the request already
            self.row, self.reservation = other, self.table.reserve(other, now)

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
class Picker:
    table: Table
    policy: Policy = sonde
    rng: Random = field(default_factory=Random)
    turn: int = 0
    last: LastPicks = field(default_factory=LastPicks)
    max_endpoints: int = 1  # one, and so many less one to fall back on

    def pick(self, request: Request, now: float) -> Pick | None:
        """An endpoint, reserved; None if none is ready, or none that the gateway allows."""
        ranks = self.table.ranks(now)
        among = None
        if request.subset is not None:
            among = self.table.indexes(request.subset)
            ranks = [ranks[index] for index in among]
        if not ranks:
            return None
        at, reason = self.policy(ranks, self.rng, self.turn)
        if ranks[at] >= UNREADY_STEP:
            return None
        self.turn += 1
        rows = self.table.rows if among is None else [self.table.rows[index] for index in among]
        row = rows[at]
        row.picks[reason] = row.picks.get(reason, 0) + 1
        self.last.note(now, reason, self.table.rows, ranks, at, among)
        others = self._others(ranks, at) if self.max_endpoints > 1 else []
        fallbacks = tuple(rows[other].endpoint.address for other in others)
        return Pick(self.table, row, self.table.reserve(row, now), fallbacks)

    def _others(self, ranks: Sequence[float], at: int) -> list[int]:
        """The next best that are ready, best first."""
        ready = (index for index, rank in enumerate(ranks) if index != at and rank < UNREADY_STEP)
        return heapq.nsmallest(self.max_endpoints - 1, ready, key=ranks.__getitem__)
