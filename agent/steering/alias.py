"""Alias tables: one draw of a random number gives each endpoint its share, however many there are. Pure.

Vose's method: every endpoint has a column of equal width; what its share lacks of that is filled up with one other
endpoint. So a table has as many columns as endpoints, and shares are exact to a millionth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.kernel.steer_layout import SLOT, SLOTS, TABLE, packed, port_word

_WHOLE = 1 << 32


@dataclass(frozen=True, slots=True)
class Column:
    """An endpoint, and where the kernel counts it."""

    address: str
    port: int
    index: int


def columns(weights: Sequence[float]) -> tuple[list[int], list[int]]:
    """Thresholds (of 2^32) and aliases of positive weights."""
    total, count = sum(weights), len(weights)
    left = [weight / total * count for weight in weights]
    thresholds, aliases = [_WHOLE - 1] * count, list(range(count))
    small = [at for at, share in enumerate(left) if share < 1.0]
    large = [at for at, share in enumerate(left) if share >= 1.0]
    while small and large:
        filled, filler = small.pop(), large[-1]
        thresholds[filled], aliases[filled] = min(int(left[filled] * _WHOLE), _WHOLE - 1), filler
        left[filler] -= 1.0 - left[filled]
        if left[filler] < 1.0:
            small.append(large.pop())
    return thresholds, aliases


def table(entries: Sequence[Column], weights: Sequence[float]) -> bytes:
    """A whole struct steer_table. Who has no weight has no column; nobody: an empty one. Weights are finite, >= 0."""
    heaviest = max(weights, default=0.0)
    chosen = [(entry, weight / heaviest) for entry, weight in zip(entries, weights, strict=True) if weight > 0.0]
    chosen = [(entry, weight) for entry, weight in chosen if weight > 0.0]  # one beside 1e300 times as much is none
    if len(chosen) > SLOTS:
        raise ValueError(f"{len(chosen)} endpoints, a table holds {SLOTS}")
    made = np.zeros((), TABLE)
    made["head"]["count"] = len(chosen)
    if chosen:
        made["slots"][: len(chosen)] = _slots([entry for entry, _ in chosen], [weight for _, weight in chosen])
    return made.tobytes()


def _slots(entries: Sequence[Column], weights: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    slots = np.zeros(len(entries), SLOT)
    addresses = b"".join(packed(entry.address) for entry in entries)
    slots["address"] = np.frombuffer(addresses, np.uint32).reshape(-1, 4)
    slots["port"] = [port_word(entry.port) for entry in entries]
    slots["threshold"], slots["alias"] = columns(weights)
    slots["endpoint"] = [entry.index for entry in entries]
    return slots
