"""Looks a request up in what the pool's objects and its engines say now.

Owns the newest catalogue and what the engines were last heard to serve; the rules are in models.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from controller.catalog.models import NAME_MOST, NOTHING_KNOWN, Catalogue, Served, resolve
from controller.endpoints.table import Table
from controller.model import Request, Resolved

SERVED_FOR_S = 1.0  # walking all rows for each request would cost more than an adapter's news is worth
KEPT = 1024  # clients make names up

Asked = tuple[str | None, str | None, str | None]  # all of a request that a resolution depends on


@dataclass(slots=True)
class Resolver:
    table: Table
    rng: Random = field(default_factory=Random)
    _catalogue: Catalogue | None = None
    _served: Served = NOTHING_KNOWN
    _served_until_s: float = float("-inf")
    _kept: dict[Asked, Resolved] = field(default_factory=dict)  # by the two above, where no chance is in it

    def resolve(self, request: Request, now: float) -> Resolved:
        """Raises UnknownModel."""
        catalogue = self.table.catalogue
        if now >= self._served_until_s or catalogue is not self._catalogue:
            self._look(catalogue, now)
        asked = request.model, request.target, request.objective
        kept = self._kept.get(asked)
        if kept is None:
            kept = resolve(request, catalogue, self._served, self.rng)
            if not catalogue.draws:
                self._keep(asked, kept)
        return kept

    def _keep(self, asked: Asked, resolved: Resolved) -> None:
        if len(self._kept) < KEPT and all(len(name or "") <= NAME_MOST for name in asked):
            self._kept[asked] = resolved

    def _look(self, catalogue: Catalogue, now: float) -> None:
        self._catalogue, self._served = catalogue, served_by(self.table)
        self._served_until_s = now + SERVED_FOR_S
        self._kept.clear()


def served_by(table: Table) -> Served:
    """What the engines said last, however long ago: an adapter's name does not grow old."""
    engines = [row.engine for row in table.rows if row.engine]
    bases = {model for engine in engines for model in engine.models}
    adapters = {adapter for engine in engines for adapter in engine.adapters}
    return Served(frozenset(bases), frozenset(adapters))
