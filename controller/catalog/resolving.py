"""Looks a request up in what the pool's objects and its engines say now.

Owns the newest catalogue and what the engines were last heard to serve; the rules are in models.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from controller.catalog.models import NOTHING_KNOWN, Served, resolve
from controller.endpoints.table import Table
from controller.model import Request, Resolved

SERVED_FOR_S = 1.0  # walking all rows for each request would cost more than an adapter's news is worth


@dataclass(slots=True)
class Resolver:
    table: Table
    rng: Random = field(default_factory=Random)
    _served: Served = NOTHING_KNOWN
    _served_until_s: float = float("-inf")

    def resolve(self, request: Request, now: float) -> Resolved:
        """Raises UnknownModel."""
        if now >= self._served_until_s:
            self._served = served_by(self.table)
            self._served_until_s = now + SERVED_FOR_S
        return resolve(request, self.table.catalogue, self._served, self.rng)


def served_by(table: Table) -> Served:
    """What the engines said last, however long ago: an adapter's name does not grow old."""
    engines = [row.engine for row in table.rows if row.engine]
    bases = {model for engine in engines for model in engine.models}
    adapters = {adapter for engine in engines for adapter in engine.adapters}
    return Served(frozenset(bases), frozenset(adapters))
