"""The maps of steering in this process's memory, for tests without a kernel: same face as SteerMaps."""

from __future__ import annotations

import numpy as np

from agent.kernel.steer_layout import ENDPOINT, POOL, TABLE
from agent.steering.maps import Entry, Frontend

_WHOLE = 1 << 32


def shares(raw: bytes) -> dict[int, float]:
    """What a table gives each endpoint, by index: the reverse of alias.table()."""
    made = np.frombuffer(raw, TABLE)[0]
    count = int(made["head"]["count"])
    found: dict[int, float] = {}
    for slot in made["slots"][:count]:
        own = min(1.0, (int(slot["threshold"]) + (slot["threshold"] == _WHOLE - 1)) / _WHOLE)
        other = int(made["slots"][int(slot["alias"])]["endpoint"])
        found[int(slot["endpoint"])] = found.get(int(slot["endpoint"]), 0.0) + own / count
        found[other] = found.get(other, 0.0) + (1.0 - own) / count
    return found


class MemoryMaps:
    def __init__(self, pools: int = 8, endpoints: int = 8192) -> None:
        self.pools = np.zeros(pools, POOL)
        self.endpoints = np.zeros(endpoints, ENDPOINT)
        self.tables: dict[int, bytes] = {}
        self.counts: dict[int, int] = {}  # what each table picked
        self.puts = 0
        self.beats: list[int] = []
        self.refuses = False
        self._services: dict[Frontend, Entry] = {}
        self._skips: dict[int, int] = {}

    def still_there(self) -> bool:
        return True

    def reopen(self) -> bool:
        return False

    def beat(self, now_ns: int) -> None:
        self.beats.append(now_ns)

    def put_table(self, index: int, raw: bytes) -> int:
        if self.refuses:
            raise OSError(12, "Cannot allocate memory")
        self.puts += 1
        self.tables[index] = raw
        return self.counts.pop(index, 0)

    def delete_table(self, index: int) -> int:
        del self.tables[index]
        return self.counts.pop(index, 0)

    def picks(self, index: int) -> int:
        return self.counts.get(index, 0)

    def services(self) -> dict[Frontend, Entry]:
        return dict(self._services)

    def put_service(self, frontend: Frontend, entry: Entry) -> None:
        self._services[frontend] = entry

    def delete_service(self, frontend: Frontend) -> None:
        del self._services[frontend]

    def skips(self) -> dict[int, int]:
        return dict(self._skips)

    def put_skip(self, cgroup_id: int, why: int) -> None:
        self._skips[cgroup_id] = why

    def delete_skip(self, cgroup_id: int) -> None:
        del self._skips[cgroup_id]

    def shares(self, frontend: Frontend) -> dict[int, float]:
        """By index of the endpoint."""
        return shares(self.tables[self._services[frontend].table])
