"""The slots in shared memory, here of an ordinary file in place of a map."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import pytest

from agent.kernel import layout
from agent.kernel.maps import FEW, SlotMemory
from agent.signals import COLUMN, FIELDS

CAPACITY = 4 * FEW


@contextlib.contextmanager
def memory() -> Iterator[SlotMemory]:
    descriptor = os.memfd_create("slots")
    try:
        os.ftruncate(descriptor, CAPACITY * layout.SLOT.itemsize)
        yield SlotMemory(descriptor, CAPACITY)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("count", [0, 1, FEW, FEW + 1, CAPACITY])
def test_scalars_of_few_and_many_slots_are_copied_alike(count: int) -> None:
    with memory() as slots:
        scalars = slots.scalars(count)
        written = slots.first(count)
        written["started"][:count] = np.arange(count) + 7
        written["ttft_hist"][:count] = 1  # behind the scalars: none of it is copied
        rows = np.frombuffer(scalars.tobytes(), np.int64).reshape(-1, len(FIELDS))
        assert (len(scalars), len(rows)) == (count, count)
        assert rows[:, COLUMN["started"]].tolist() == [number + 7 for number in range(count)]
        assert rows.sum() == rows[:, COLUMN["started"]].sum()


def test_a_copy_is_one_whole_slot_and_does_not_move_with_it() -> None:
    with memory() as slots:
        written = slots.first(FEW + 2)
        written["gap_hist"][FEW + 1, 3] = 5
        written["started"][FEW + 1] = 9
        copy = slots.copy(FEW + 1)
        written["gap_hist"][FEW + 1, 3] = 6
        assert (copy["started"], copy["gap_hist"][3], copy["gap_hist"].sum()) == (9, 5, 5)
        assert not slots.copy(FEW)["gap_hist"].any()
