"""Stands in for the kernel's maps where nothing measures in the kernel: no slots, no owners, no counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agent.exporting.snapshot import Histogram, Histograms
from agent.kernel import layout
from agent.placing.slots import Key, Owner


class Unmeasured:
    capacity = 0
    owners_capacity = 0
    shed = 0

    @property
    def slots(self) -> Unmeasured:
        return self

    def claim(self) -> None:
        """There is nothing to share with another agent."""

    def check_pinned(self) -> None:
        """There is nothing to lose."""

    def close(self) -> None:
        """There is nothing open."""

    def scalars(self, _count: int) -> npt.NDArray[np.void]:
        return np.zeros(0, layout.SLOT)

    def owners(self) -> dict[Key, Owner]:
        return {}

    def delete_owner(self, key: Key) -> None:
        raise KeyError(key)

    def put_owner(self, key: Key, owner: Owner) -> None:
        raise KeyError(key)

    def reset_slot(self, slot: int, generation: int) -> None:
        raise IndexError(slot)

    def bump_epoch(self) -> None:
        """Nobody looks at it."""

    def set_shed(self, _bits: int) -> None:
        """There are no programs that could leave anything out."""

    def generations(self) -> list[int]:
        return []

    def connections(self, _count: int) -> list[int]:
        return []

    def histograms(self, slot: int) -> Histograms:
        raise IndexError(slot)

    def histogram(self, name: str, slot: int) -> Histogram:
        raise IndexError(f"{name} of slot {slot}")

    def counters(self) -> dict[str, int]:
        return {}
