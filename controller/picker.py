"""From a request to an endpoint: the table's ranks, the policy's choice, the reservation, the counts.

Owns the order of these steps and the turn and chance of policies; refuses to know protocols. Time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from controller.lastpicks import LastPicks
from controller.model import Address, Request
from controller.pick import Policy, sonde
from controller.reservations import Reservation
from controller.table import Row, Table


@dataclass(slots=True)
class Pick:
    """A chosen endpoint; must be closed by exactly one of drop, end, detach."""

    table: Table
    row: Row
    reservation: Reservation

    @property
    def destination(self) -> Address:
        return self.row.endpoint.address

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

    def pick(self, request: Request, now: float) -> Pick | None:
        """An endpoint, reserved; None only if there is none at all, or none that the gateway allows."""
        ranks = self.table.ranks(now)
        among = None
        if request.subset is not None:
            among = self.table.indexes(request.subset)
            ranks = [ranks[index] for index in among]
        if not ranks:
            return None
        at, reason = self.policy(ranks, self.rng, self.turn)
        self.turn += 1
        row = self.table.rows[at if among is None else among[at]]
        row.picks[reason] = row.picks.get(reason, 0) + 1
        self.last.note(now, reason, self.table.rows, ranks, at, among)
        return Pick(self.table, row, self.table.reserve(row, now))
