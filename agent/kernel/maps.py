"""The door to the pinned maps: owners by system call, slots and counters by shared memory.

Knows the bytes of bpf/wire.h; refuses to decide who gets which slot (slots.py) or what a number means (signals.py).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.exporting.snapshot import Histograms
from agent.kernel import bpfsys, layout
from agent.kernel.pins import NotLoaded, Pins, open_map
from agent.kernel.sampling import Scalars
from agent.placing.pods import CgroupId
from agent.placing.slots import Key, Owner
from agent.signals import FIELDS

COUNTERS = tuple(layout.COUNTERS.names or ())

_STRIDE_BYTES = (layout.SLOT.itemsize + 7) // 8 * 8  # the kernel rounds elements of arrays up to 8
_FIRST_MAPPED = 32
FEW = 32  # slots that are put together in less time than numpy takes to begin


class LayoutMismatch(Exception):
    """A pinned map does not hold the structs that this agent knows."""


class PinnedMaps:
    """Implements slots.SlotMaps. Raises NotLoaded, PermissionError or LayoutMismatch on opening; close() after use."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._descriptors: list[int] = []
        with ExitStack() as undo:
            undo.callback(self.close)
            self._owners = self._open(pins, "owners", layout.KEY.itemsize, layout.OWNER.itemsize)
            slots = self._open(pins, "slots", 4, layout.SLOT.itemsize)
            control = self._open(pins, "control", 4, layout.CONTROL.itemsize)
            counters = self._open(pins, "counters", 4, layout.COUNTERS.itemsize)
            undo.pop_all()
        self._slots_id = bpfsys.map_info(slots).id
        self.capacity = bpfsys.map_info(slots).max_entries
        self.owners_capacity = bpfsys.map_info(self._owners).max_entries
        self.slots = SlotMemory(slots, self.capacity)
        self._control = _words(bpfsys.map_memory(control, layout.CONTROL.itemsize, writable=True), 2)
        self._counters = _words(bpfsys.map_memory(counters, layout.COUNTERS.itemsize), len(COUNTERS))

    def _open(self, pins: Pins, name: str, key_bytes: int, value_bytes: int) -> int:
        descriptor = open_map(pins, name)
        self._descriptors.append(descriptor)
        info = bpfsys.map_info(descriptor)
        if (info.key_bytes, info.value_bytes) != (key_bytes, value_bytes):
            raise LayoutMismatch(
                f"{pins.map(name)} has keys of {info.key_bytes} and values of {info.value_bytes} bytes, this agent "
                f"expects {key_bytes} and {value_bytes}: run 'sonde-agent unload', then 'sonde-agent load'"
            )
        return descriptor

    def claim(self) -> None:
        """For who gives slots: two agents would give one twice. Raises OSError where there is one already.

        The lock is on the folder of the pins itself, so that it leaves no file and ends with this process.
        """
        folder = os.open(self._pins.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._descriptors.append(folder)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"another 'sonde-agent run' uses {self._pins.folder}: stop it, or name another --pin-root"
            ) from None

    def check_pinned(self) -> None:
        """Raises NotLoaded where these maps were unpinned: their numbers would stand still and look like now."""
        slots = open_map(self._pins, "slots")
        try:
            identity = bpfsys.map_info(slots).id
        finally:
            os.close(slots)
        if identity != self._slots_id:
            raise NotLoaded(f"the programs under {self._pins.folder} were unloaded and loaded anew: start again")

    def owners(self) -> dict[Key, Owner]:
        found: dict[Key, Owner] = {}
        for key in bpfsys.map_keys(self._owners, layout.KEY.itemsize):
            value = bpfsys.map_lookup(self._owners, key, layout.OWNER.itemsize)
            if value is not None:
                found[_key(key)] = _owner(value)
        return found

    def delete_owner(self, key: Key) -> None:
        bpfsys.map_delete(self._owners, _key_bytes(key))

    def put_owner(self, key: Key, owner: Owner) -> None:
        value = np.zeros((), layout.OWNER)
        value["slot"], value["generation"] = owner
        bpfsys.map_update(self._owners, _key_bytes(key), value.tobytes())

    def reset_slot(self, slot: int, generation: int) -> None:
        """Takes the slot from whoever had it first: a program that still follows its sockets must not add to zeros."""
        slots = self.slots.first(slot + 1)
        slots["generation"][slot] = 0
        slots[slot] = np.zeros((), layout.SLOT)
        slots["generation"][slot] = generation

    def bump_epoch(self) -> None:
        self._control[0] += 1

    @property
    def shed(self) -> int:
        """SONDE_SHED_ bits: what the programs leave out."""
        return int(self._control[1])

    def set_shed(self, bits: int) -> None:
        self._control[1] = bits

    def generations(self) -> list[int]:
        """Of every slot."""
        return self.slots.column("generation")

    def connections(self, count: int) -> list[int]:
        """Open connections of the first `count` slots."""
        slots = self.slots.first(count)[:count]
        opened = slots["connections_opened"].astype(np.int64) + slots["connections_adopted"].astype(np.int64)
        connections: list[int] = (opened - slots["connections_closed"].astype(np.int64)).tolist()
        return connections

    def histograms(self, slot: int) -> Histograms:
        """A copy of all histograms of one slot."""
        return self.slots.copy(slot)

    def histogram(self, name: str, slot: int) -> npt.NDArray[np.uint32]:
        """A copy of one histogram of one slot."""
        copy: npt.NDArray[np.uint32] = self.slots.first(slot + 1)[name][slot].copy()
        return copy

    def counters(self) -> dict[str, int]:
        """What the programs could not do, by cause."""
        return dict(zip(COUNTERS, self._counters.tolist(), strict=True))

    def close(self) -> None:
        """Memory stays mapped until the last array over it is gone."""
        while self._descriptors:
            os.close(self._descriptors.pop())


@dataclass(frozen=True, slots=True)
class FewScalars:
    rows: Sequence[memoryview]

    def tobytes(self) -> bytes:
        return b"".join(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class SlotMemory:
    """The slots in shared memory, as many as are in use: each mapped page counts as resident memory of the process."""

    def __init__(self, descriptor: int, capacity: int) -> None:
        self._descriptor = descriptor
        self._capacity = capacity
        self._views = self._map(min(_FIRST_MAPPED, capacity))

    def _map(self, count: int) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void], mmap.mmap]:
        """The first slots whole, their scalars alone as one opaque element a slot, and the memory of both."""
        memory = bpfsys.map_memory(self._descriptor, count * _STRIDE_BYTES, writable=True)
        whole: npt.NDArray[np.void] = np.ndarray(count, layout.SLOT, buffer=memory, strides=(_STRIDE_BYTES,))
        # numpy copies an opaque element with one memcpy: twice as fast as word by word
        scalars: npt.NDArray[np.void] = np.ndarray(
            count, f"V{8 * len(FIELDS)}", buffer=memory, strides=(_STRIDE_BYTES,)
        )
        return whole, scalars, memory

    def _grown(self, count: int) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void], mmap.mmap]:
        if count > len(self._views[0]):
            self._views = self._map(min(1 << (count - 1).bit_length(), self._capacity))
        return self._views

    def first(self, count: int) -> npt.NDArray[np.void]:
        """At least the first `count` slots, as struct sonde_slot, in the memory that the programs write."""
        return self._grown(count)[0]

    def scalars(self, count: int) -> Scalars:
        """The scalars of the first `count` slots in that memory; tobytes() copies them, each a row of signals.FIELDS.

        The values of one row may be of instants some nanoseconds apart: programs add while they are copied.
        """
        _, many, memory = self._grown(count)
        if count > FEW:
            return many[:count]
        starts = range(0, count * _STRIDE_BYTES, _STRIDE_BYTES)
        return FewScalars([memoryview(memory)[start : start + many.itemsize] for start in starts])

    def copy(self, slot: int) -> np.void:
        """One slot as struct sonde_slot, by one memcpy: numpy would copy it member by member."""
        begin = slot * _STRIDE_BYTES
        found: np.void = np.frombuffer(self._grown(slot + 1)[2][begin : begin + layout.SLOT.itemsize], layout.SLOT)[0]
        return found

    def column(self, name: str) -> list[int]:
        """One scalar of every slot there is."""
        whole, _, _ = self._map(self._capacity)
        values: list[int] = whole[name].tolist()
        return values


def _words(memory: mmap.mmap, count: int) -> npt.NDArray[np.int64]:
    return np.frombuffer(memory, np.int64, count)


def _key_bytes(key: Key) -> bytes:
    value = np.zeros((), layout.KEY)
    value["cgroup_id"], value["port"] = key
    return value.tobytes()


def _key(raw: bytes) -> Key:
    value = np.frombuffer(raw, layout.KEY)[0]
    return Key(CgroupId(int(value["cgroup_id"])), int(value["port"]))


def _owner(raw: bytes) -> Owner:
    value = np.frombuffer(raw, layout.OWNER)[0]
    return Owner(int(value["slot"]), int(value["generation"]))
