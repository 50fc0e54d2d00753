"""The door to the pinned maps of steering: tables and services by system call, counts by shared memory.

Knows the bytes of bpf/steer.h; refuses to know where weights come from.
"""

from __future__ import annotations

import os
import struct
import threading
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agent.kernel import bpfsys
from agent.kernel.pins import Pins
from agent.kernel.steer_layout import CONTROL, ENDPOINT, KEY, NUMBERS, POOL, TABLE, key, port_of, text
from agent.kernel.steer_pins import SteerPins

_U32, _U64, _SERVICE = struct.Struct("=I"), struct.Struct("=Q"), struct.Struct("=II")
_ZERO = bytes(4)


class Frontend(NamedTuple):
    """What clients ask for: an address of a Service and a port of it."""

    address: str
    port: int


class Entry(NamedTuple):
    """By which table a frontend is steered, and where its pool is counted."""

    table: int
    pool: int


class SteerMaps:
    """Raises OSError on opening where the programs are not loaded; close() after use."""

    def __init__(self, pins: Pins) -> None:
        self._pins = SteerPins(pins)
        self._descriptors: list[int] = []
        self._lock = threading.Lock()
        self._tables_made: dict[int, int] = {}  # descriptors of the tables in force, by index
        self._open_all()

    def _open_all(self) -> None:
        with ExitStack() as undo:
            undo.callback(self.close)
            self._tables = self._open("steer_tables")
            self._services = self._open("steer_services")
            self._skips = self._open("steer_skips")
            self.pools = self._mapped("steer_pools", POOL, NUMBERS["SONDE_STEER_POOLS"])
            self.endpoints = self._mapped("steer_endpoints", ENDPOINT, NUMBERS["SONDE_STEER_ENDPOINTS"])
            self._control = self._mapped("steer_control", CONTROL, 1)
            undo.pop_all()
        self._id = bpfsys.map_info(self._tables).id

    def still_there(self) -> bool:
        """Whether these maps are those of the programs that are loaded."""
        if not self._pins.loaded():
            return False
        try:
            tables = bpfsys.open_pinned(self._pins.map("steer_tables"))
        except OSError:
            return False
        try:
            return bpfsys.map_info(tables).id == self._id
        finally:
            os.close(tables)

    def reopen(self) -> bool:
        """After programs were loaded anew. False where none are."""
        if not self._pins.loaded():
            return False
        self.close()
        try:
            self._open_all()
        except OSError:  # they are being taken away
            return False
        return True

    def _open(self, name: str) -> int:
        descriptor = bpfsys.open_pinned(self._pins.map(name))
        self._descriptors.append(descriptor)
        return descriptor

    def _mapped(self, name: str, kind: np.dtype[np.void], count: int) -> npt.NDArray[np.void]:
        memory = bpfsys.map_memory(self._open(name), count * kind.itemsize, writable=True)
        return np.frombuffer(memory, kind, count)

    def beat(self, now_ns: int) -> None:
        """Says that somebody looks after the tables; `now_ns` of CLOCK_MONOTONIC, 0: nobody does."""
        self._control["heartbeat_ns"][0] = now_ns

    def put_table(self, index: int, raw: bytes) -> int:
        """Puts a table in the place of the last in one step; returns what the last one picked in all.

        Returns when no program can see the last one any more.
        """
        last = self._tables_made.get(index)  # of one thread alone; the lock is for who asks for picks()
        made = bpfsys.map_create(bpfsys.MAP_TYPE_ARRAY, _U32.size, TABLE.itemsize, 1, name="steer_table")
        try:
            bpfsys.map_update(made, _ZERO, raw)
            bpfsys.map_update(self._tables, _U32.pack(index), _U32.pack(made))
        except OSError:
            os.close(made)
            raise
        with self._lock:
            self._tables_made[index] = made
            return _picks_and_close(last)

    def delete_table(self, index: int) -> int:
        """As put_table() with nothing in its place."""
        bpfsys.map_delete(self._tables, _U32.pack(index))
        with self._lock:
            return _picks_and_close(self._tables_made.pop(index, None))

    def picks(self, index: int) -> int:
        """What the table in force picked until now; 0 where it is not one of ours. From any thread."""
        with self._lock:
            made = self._tables_made.get(index)
            return 0 if made is None else _picks(made)

    def services(self) -> dict[Frontend, Entry]:
        found = {}
        for raw in bpfsys.map_keys(self._services, KEY.itemsize):
            value = bpfsys.map_lookup(self._services, raw, _SERVICE.size)
            if value is not None:
                (port,) = _U32.unpack(raw[16:])
                found[Frontend(text(raw[:16]), port_of(port))] = Entry(*_SERVICE.unpack(value))
        return found

    def put_service(self, frontend: Frontend, entry: Entry) -> None:
        bpfsys.map_update(self._services, key(*frontend), _SERVICE.pack(*entry))

    def delete_service(self, frontend: Frontend) -> None:
        bpfsys.map_delete(self._services, key(*frontend))

    def skips(self) -> dict[int, int]:
        """Why clients are left alone, by cgroup id."""
        found = {}
        for raw in bpfsys.map_keys(self._skips, _U64.size):
            value = bpfsys.map_lookup(self._skips, raw, _U32.size)
            if value is not None:
                found[_U64.unpack(raw)[0]] = _U32.unpack(value)[0]
        return found

    def put_skip(self, cgroup_id: int, why: int) -> None:
        bpfsys.map_update(self._skips, _U64.pack(cgroup_id), _U32.pack(why))

    def delete_skip(self, cgroup_id: int) -> None:
        bpfsys.map_delete(self._skips, _U64.pack(cgroup_id))

    def close(self) -> None:
        """Memory stays mapped until the last array over it is gone."""
        while self._descriptors:
            os.close(self._descriptors.pop())
        with self._lock:
            while self._tables_made:
                os.close(self._tables_made.popitem()[1])


def _picks_and_close(table: int | None) -> int:
    if table is None:
        return 0
    try:
        return _picks(table)
    finally:
        os.close(table)


def _picks(table: int) -> int:
    raw = bpfsys.map_lookup(table, _ZERO, TABLE.itemsize) or bytes(TABLE.itemsize)
    return int(np.frombuffer(raw, TABLE)[0]["head"]["picks"])
