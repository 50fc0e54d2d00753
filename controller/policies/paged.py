"""What the engines' own pages say of one LoRA adapter, for rules that go by pages alone. Pure.

A page tells which adapters an engine computed of late and which wait in its queue, not which it holds; the reference
takes the one for the other, and so do its rules here. `adapters.py` follows what is held.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]
Page = tuple[Collection[str], Collection[str], int | None]  # working, waiting, how many at once; empty where unknown


@dataclass(frozen=True, slots=True)
class Paged:
    """One adapter at each endpoint."""

    held: Flags  # works or waits there
    room: Flags  # fewer work and wait than the engine takes at once; an engine that does not say takes none
    working: Flags

    @property
    def score(self) -> npt.NDArray[np.float64]:
        """Of the lora-affinity-scorer: 1 works, 0.8 has room, 0.6 waits, 0 neither."""
        waiting = np.where(self.held, 0.6, 0.0)
        score: npt.NDArray[np.float64] = np.where(self.working, 1.0, np.where(self.room, 0.8, waiting))
        return score

    def part(self, indexes: Sequence[int]) -> Paged:
        at = list(indexes)
        return Paged(self.held[at], self.room[at], self.working[at])


def paged(adapter: str, pages: Sequence[Page]) -> Paged:
    held = [adapter in works or adapter in waits for works, waits, _ in pages]
    room = [len({*works, *waits}) < (most or 0) for works, waits, most in pages]
    working = [adapter in works for works, _, _ in pages]
    return Paged(*(np.array(flags, dtype=np.bool_) for flags in (held, room, working)))
