"""How long to wait before trying again. Pure: chance is an argument."""

from __future__ import annotations

from random import Random


def backoff_s(failures: int, rng: Random, first_s: float = 0.1, most_s: float = 3.0) -> float:
    """After so many failures in a row (1..): doubling up to a cap, half of it by chance so that peers spread."""
    whole = min(most_s, first_s * 2.0 ** min(failures - 1, 30))
    return whole * rng.uniform(0.5, 1.0)
