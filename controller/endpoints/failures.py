"""Whether an endpoint takes requests at all, judged by how its last ones ended. Pure: time is an argument.

Three failures in a row, or more failures than successes, and it is ejected: it gets nothing for a pause that grows
with each ejection, then one request to prove itself. A success ends all. Whether an ejection counts is the table's:
never more than half of a pool are ejected, since then the fault lies elsewhere.
"""

from __future__ import annotations

from enum import StrEnum

IN_A_ROW = 3
RATE_LIMIT = 0.5
RATE_WEIGHT = 0.2  # of one outcome in the rate
RATE_LEAST = 5  # outcomes before a rate says anything
FADES_S = 30.0  # a rate that nothing adds to is halved in so long
PAUSE_S = 5.0
NEGLIGIBLE = 1e-6
PAUSES_MOST = 6  # the longest pause is so many times the first

FOREVER = float("inf")


class Trust(StrEnum):
    FULL = "full"
    EJECTED = "ejected"
    TRIAL = "trial"  # one request at a time until one succeeds


class Failures:
    """The outcomes at one endpoint."""

    __slots__ = ("_at_s", "_in_a_row", "_outcomes", "_pauses", "_rate", "_trying", "until_s")

    def __init__(self) -> None:
        self.until_s = -FOREVER  # of the last ejection
        self._pauses = 0
        self._trying = False
        self._in_a_row = 0
        self._outcomes = 0
        self._rate = 0.0
        self._at_s = 0.0

    def rate(self, now: float) -> float:
        """Share of failures among the last requests, 0..1."""
        return float(self._rate * 0.5 ** (max(0.0, now - self._at_s) / FADES_S))

    @property
    def negligible(self) -> bool:
        """Nothing speaks against it, and time changes nothing of that."""
        return not self._pauses and self._rate < NEGLIGIBLE

    def succeeded(self, now: float, times: int = 1) -> None:
        if times <= 0:
            return
        self._count(now, 0.0, times)
        self._in_a_row, self._pauses, self._trying, self.until_s = 0, 0, False, -FOREVER

    def failed(self, now: float, times: int = 1) -> None:
        if times <= 0:
            return
        self._count(now, 1.0, times)
        self._in_a_row += times
        often = self._outcomes >= RATE_LEAST and self._rate > RATE_LIMIT
        if self._trying or (now >= self.until_s and (self._in_a_row >= IN_A_ROW or often)):
            self._pauses = min(self._pauses + 1, PAUSES_MOST)
            self._trying = False
            self.until_s = now + PAUSE_S * self._pauses

    def trust(self, now: float) -> Trust:
        if now < self.until_s:
            return Trust.EJECTED
        if self._pauses and not self._trying:
            self._trying = True
        return Trust.TRIAL if self._trying else Trust.FULL

    def due_s(self, now: float) -> float:
        """When trust changes by itself."""
        return self.until_s if now < self.until_s else FOREVER

    def _count(self, now: float, outcome: float, times: int) -> None:
        kept = (1.0 - RATE_WEIGHT) ** times
        self._rate = self.rate(now) * kept + outcome * (1.0 - kept)
        self._at_s = now
        self._outcomes += times
