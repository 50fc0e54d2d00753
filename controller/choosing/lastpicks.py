"""The last picks and the ranks they were made by, for people who look. Pure: time is an argument.

A pick is made in microseconds, so noting one only copies the ranks; what they mean is worked out when somebody looks.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from controller.endpoints.row import Row
from controller.model import Reason

KEPT = 12
# Under load only so many are noted: nobody reads more, and a copy of all ranks for each pick would cost.
SPACING_S = 0.05
ALTERNATIVES = 3


@dataclass(frozen=True, slots=True)
class Noted:
    """One pick among `rows`, whose ranks were `ranks`; `among` are the indexes of rows a gateway allowed."""

    at_s: float
    row: Row
    reason: Reason
    rows: Sequence[Row]
    ranks: Sequence[float]  # of rows, or of those in `among`
    chosen: int  # index into ranks
    among: Sequence[int] | None

    @property
    def rank(self) -> float:
        return self.ranks[self.chosen]

    def alternatives(self) -> list[tuple[Row, float]]:
        """The best of the others, the best first."""
        others = (at for at in range(len(self.ranks)) if at != self.chosen)
        best = heapq.nsmallest(ALTERNATIVES, others, key=self.ranks.__getitem__)
        return [(self.rows[at if self.among is None else self.among[at]], self.ranks[at]) for at in best]


class LastPicks:
    """Keeps the last few, the latest first."""

    def __init__(self) -> None:
        self._noted: deque[Noted] = deque(maxlen=KEPT)
        self._next_s = 0.0

    def wants(self, now: float) -> bool:
        """Whether note() would keep a pick."""
        return now >= self._next_s

    def note(
        self,
        now: float,
        reason: Reason,
        rows: Sequence[Row],
        ranks: Sequence[float],
        chosen: int,
        among: Sequence[int] | None,
    ) -> None:
        if now < self._next_s:
            return
        self._next_s = now + SPACING_S
        row = rows[chosen if among is None else among[chosen]]
        self._noted.appendleft(Noted(now, row, reason, rows, tuple(ranks), chosen, among))

    def latest(self) -> list[Noted]:
        return list(self._noted)
