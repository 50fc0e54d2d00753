"""Fleets the tests of rules begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from controller.policies.fleet import Fleet

NOW_S = 1000.0


def fleet(size: int, **fields: float | Sequence[float]) -> Fleet:
    """Endpoints of which nothing is known but these fields."""
    made = Fleet([f"10.0.0.{at}:8000" for at in range(size)], NOW_S)
    for name, values in fields.items():
        getattr(made, name)[:] = values
    return made


def measured(in_flight: Sequence[float], waiting: Sequence[float] | None = None, **fields: Any) -> Fleet:
    """Endpoints whose kernels just counted so many requests."""
    known = {"in_flight": in_flight, "waiting": waiting or [0.0] * len(in_flight), "kernel_at_s": NOW_S - 0.01}
    return fleet(len(in_flight), **(known | fields))


# what a broken agent, engine or clock might say
ABSURD = (np.nan, np.inf, -np.inf, -1.0, -1e300, 0.0, 1.0, 1e-320, 4e9, 1e300, NOW_S, NOW_S - 0.1, NOW_S + 1e6)
# what the owner of a fleet counts itself
OWN = ("reserved", "unpaged", "own_waiting", "queued_tokens", "own_in_flight", "own_open", "own_tokens", "sent_rate")


def _any_fleet(size: int, seed: int) -> Fleet:
    rng = np.random.default_rng(seed)
    made = Fleet([str(at) for at in range(size)], NOW_S)
    sensible = rng.choice([1.0, 1.0, 1.0, 0.1, 0.01, 1e4], made.matrix.shape) * rng.integers(0, 50, made.matrix.shape)
    made.matrix[:] = np.where(
        rng.random(made.matrix.shape) < rng.random(), rng.choice(ABSURD, sensible.shape), sensible
    )
    for name in OWN:
        getattr(made, name)[:] = rng.integers(0, 100, size)
    made.kernel_at_s[:] = np.where(rng.random(size) < 0.7, NOW_S - rng.random(size) * 0.3, made.kernel_at_s)
    made.standing[:] = rng.choice([0.0, 0.0, 1.0, 2.0, 4.0, 8.0], size)
    return made


def any_fleets(most: int = 6) -> st.SearchStrategy[Fleet]:
    """Every measured cell sensible or absurd, whatever the others are."""
    return st.builds(_any_fleet, st.integers(1, most), st.integers(0, 1 << 32))
