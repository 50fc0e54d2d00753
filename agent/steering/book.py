"""What stands in the kernel's maps of steering, kept in step with what is wanted there.

Owns which place of which map is whose; what an agent before this one left is taken over, so that counts go on. Refuses
to know why anything is wanted. Putting a table takes milliseconds, since the kernel waits until nobody can see the
last one any more: all that changes maps is for one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import xxhash

from agent.kernel.steer_layout import NUMBERS, port_of, port_word, text, words
from agent.steering.alias import Column, table
from agent.steering.maps import Entry, Frontend, SteerMaps
from agent.steering.services import Target
from agent.steering.state import PoolName
from agent.steering.weighing import Place

TABLES = NUMBERS["SONDE_STEER_TABLES"]
SERVICES = NUMBERS["SONDE_STEER_SERVICES"]


class Full(Exception):
    """A map has no room; the text says which."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of one front: its pool, and the weights of its endpoints, finite and not negative."""

    pool: PoolName
    weights: Mapping[Target, float]


@dataclass(slots=True)
class Standing:
    """What stands for one front."""

    entry: Entry
    wanted: Wanted | None = None  # None: another agent put it
    shares: Mapping[int, float] = field(default_factory=dict)
    put_at_s: float = 0.0


class Book:
    def __init__(self, maps: SteerMaps) -> None:
        self._maps = maps
        self.standing = {frontend: Standing(entry) for frontend, entry in maps.services().items()}
        self._endpoints = _indexes(maps)
        self._released: dict[int, None] = {}  # places whose endpoint is in no table, the longest released first
        self._skips = maps.skips()
        self.intended: dict[int, float] = {}  # connections that shares would have come to, by index, of replaced tables
        self.changes = 0

    def settle(self, wanted: Mapping[Frontend, Wanted], now_s: float) -> None:
        """Raises Full, or OSError where the kernel refuses."""
        for frontend in self.standing.keys() - wanted.keys():
            self._remove(frontend)
        places = {target[:2] for one in wanted.values() for target in one.weights}
        self._release(places)
        for frontend, one in wanted.items():
            self._put(frontend, one, now_s)

    def skip(self, wanted: Mapping[int, int]) -> None:
        """Which cgroups' clients are left alone, and why."""
        for cgroup in self._skips.keys() - wanted.keys():
            self._maps.delete_skip(cgroup)
        for cgroup, why in wanted.items():
            if self._skips.get(cgroup) != why:
                self._maps.put_skip(cgroup, why)
        self._skips = dict(wanted)

    @property
    def left_alone(self) -> int:
        """Cgroups."""
        return len(self._skips)

    def pool_index(self, pool: PoolName) -> int:
        """Where a pool is counted; pools are few, so one that is gone keeps its place until all are taken."""
        names, wanted = self._maps.pools["name"], _hash(pool)
        for index in (*np.flatnonzero(names == wanted), *np.flatnonzero(names == 0)):
            names[index] = wanted
            return int(index)
        used = {one.entry.pool for one in self.standing.values()}
        free = next((index for index in range(len(names)) if index not in used), None)
        if free is None:
            raise Full(f"{len(names)} pools are steered already")
        self._maps.pools[free] = 0
        names[free] = wanted
        return free

    def endpoint_index(self, place: Place) -> int | None:
        return self._endpoints.get(place)

    def rtt_s(self) -> dict[Place, float]:
        """The smoothed round trips that are known."""
        eighths = self._maps.endpoints["rtt_eighth_us"]
        return {place: int(eighths[at]) / 8e6 for place, at in self._endpoints.copy().items() if eighths[at]}

    def intended_now(self) -> dict[int, float]:
        """Connections that shares come to, by index of the endpoint: of replaced tables and of those in force."""
        found = dict(self.intended)
        for one in list(self.standing.values()):
            _add(found, one.shares, self._maps.picks(one.entry.table))
        return found

    def _remove(self, frontend: Frontend) -> None:
        one = self.standing.pop(frontend)
        self._maps.delete_service(frontend)
        _add(self.intended, one.shares, self._maps.delete_table(one.entry.table))
        self.changes += 1

    def _put(self, frontend: Frontend, wanted: Wanted, now_s: float) -> None:
        before = self.standing.get(frontend)
        if before is not None and before.wanted == wanted:
            return
        columns = [Column(one.address, one.port, self._claim(one[:2])) for one in wanted.weights]
        raw = table(columns, list(wanted.weights.values()))
        entry = Entry(before.entry.table if before else self._free_table(), self.pool_index(wanted.pool))
        picks = self._maps.put_table(entry.table, raw)
        if before is not None:
            _add(self.intended, before.shares, picks)
        if before is None or before.entry != entry:
            self._maps.put_service(frontend, entry)
        self.standing[frontend] = Standing(entry, wanted, _shares(columns, wanted), now_s)
        self.changes += 1

    def _free_table(self) -> int:
        if len(self.standing) >= SERVICES:
            raise Full(f"{SERVICES} addresses of Services are steered already")
        used = {one.entry.table for one in self.standing.values()}
        return next(index for index in range(TABLES) if index not in used)

    def _release(self, places: Iterable[Place]) -> None:
        keep = set(places)
        for place, index in self._endpoints.items():
            if place in keep:
                self._released.pop(index, None)
            else:
                self._released.setdefault(index)

    def _claim(self, place: Place) -> int:
        """An endpoint's place. One that was released is taken only when all others are: its sockets may still count."""
        known = self._endpoints.get(place)
        if known is not None:
            return known
        rows = self._maps.endpoints
        index = len(self._endpoints)
        if index >= len(rows):
            index = self._reclaim()
        rows[index] = 0
        rows["address"][index], rows["port"][index], rows["used"][index] = words(place[0]), port_word(place[1]), 1
        self._endpoints[place] = index
        return index

    def _reclaim(self) -> int:
        if not self._released:
            raise Full(f"{len(self._maps.endpoints)} endpoints are steered already")
        index = next(iter(self._released))
        del self._released[index]
        self._endpoints = {place: at for place, at in self._endpoints.items() if at != index}
        self.intended.pop(index, None)
        return index


def _indexes(maps: SteerMaps) -> dict[Place, int]:
    """Places are given from the first on and never emptied."""
    rows = maps.endpoints[: int(maps.endpoints["used"].sum())]
    return {(text(row["address"].tobytes()), port_of(int(row["port"]))): at for at, row in enumerate(rows)}


def _hash(pool: PoolName) -> int:
    return xxhash.xxh3_64_intdigest("/".join(pool)) | 1  # 0 is nobody's


def _shares(columns: Iterable[Column], wanted: Wanted) -> dict[int, float]:
    total = sum(wanted.weights.values())
    pairs = zip(columns, wanted.weights.values(), strict=True)
    return {column.index: weight / total for column, weight in pairs if weight} if total else {}


def _add(total: dict[int, float], parts: Mapping[int, float], picks: int) -> None:
    for index, share in parts.items():
        total[index] = total.get(index, 0.0) + share * picks
