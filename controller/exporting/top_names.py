"""Which names have metric series of their own: the N that are asked for most; all the others are `other`. Pure.

Names come from clients, so their number has no bound, and whoever comes first need not matter: made-up names must not
keep the real ones out. A name without a place is counted too, among a bounded number of others, and takes the place of
the one asked for least once it was asked for twice as often. All counts fade, so that what matters is the recent past.
"""

from __future__ import annotations

OTHER = "other"
NAME_LIMIT = 256  # characters; what is longer is nobody's model

FIRST_TRY = 4  # requests after which a name is first compared with those that have a place
FADING = 10_000  # requests after which all counts are halved


class TopNames:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._placed: dict[str, int] = {}
        self._others: dict[str, int] = {}
        self._until_fading = FADING

    def label(self, name: str) -> tuple[str, str | None]:
        """The label to count a request under, and the name that has just lost its place to it."""
        self._until_fading -= 1
        if self._until_fading <= 0:
            self._fade()
        if name in self._placed:
            self._placed[name] += 1
            return name, None
        if len(name) > NAME_LIMIT or name == OTHER:
            return OTHER, None
        if len(self._placed) < self._limit:
            self._placed[name] = 1
            return name, None
        return self._contend(name)

    def _contend(self, name: str) -> tuple[str, str | None]:
        count = self._others.get(name, 0) + 1
        if count == 1 and len(self._others) >= 4 * self._limit:
            self._others = _halved(self._others)  # names asked for once leave
            if len(self._others) >= 4 * self._limit:
                return OTHER, None
        self._others[name] = count
        if count < FIRST_TRY or count & (count - 1):  # looking for the least costs time: at powers of two only
            return OTHER, None
        least = min(self._placed, key=self._placed.__getitem__)
        if count < 2 * self._placed[least]:
            return OTHER, None
        self._placed[name] = self._others.pop(name)
        self._others[least] = self._placed.pop(least)
        return name, least

    def _fade(self) -> None:
        self._until_fading = FADING
        self._placed = {name: count // 2 for name, count in self._placed.items()}
        self._others = _halved(self._others)


def _halved(counts: dict[str, int]) -> dict[str, int]:
    return {name: count // 2 for name, count in counts.items() if count > 1}
