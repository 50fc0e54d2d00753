"""How many bytes of request bodies are held at once, and whose go when these are too many. Pure.

A body is held from its first byte until it went back, so clients that stall in the middle of large ones could take all
memory. Where a limit is reached the body goes that has not grown for the longest time, small ones excepted: who stalls
is met first, small requests are in no danger, and of many that grow together some are finished. A body that is whole
counts and stays: to answer it is the quickest way to be rid of it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)

SMALL_SHARE = 0.5  # of the mean: to drop what is smaller would harm many and free little


class Bodies(Generic[Owner]):
    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.dropped = 0  # bodies that had to go
        self._growing: dict[Owner, int] = {}  # in the order in which they last grew
        self._leaving: dict[Owner, int] = {}

    def hold(self, owner: Owner, size_bytes: int, whole: bool = False) -> list[Owner]:
        """The owner holds so much now. Returns who has to go, the owner perhaps; they hold nothing any more.

        whole: nothing more comes, and it stays until let_go().
        """
        self.let_go(owner)
        self.held_bytes += size_bytes
        (self._leaving if whole else self._growing)[owner] = size_bytes
        gone: list[Owner] = []
        while self.held_bytes > self.limit_bytes and self._growing:
            gone.append(self._longest_still())
            self.let_go(gone[-1])
        self.dropped += len(gone)
        return gone

    def let_go(self, owner: Owner) -> None:
        self.held_bytes -= self._growing.pop(owner, 0) + self._leaving.pop(owner, 0)

    def _longest_still(self) -> Owner:
        least = SMALL_SHARE * sum(self._growing.values()) / len(self._growing)
        return next(owner for owner, size_bytes in self._growing.items() if size_bytes >= least)
