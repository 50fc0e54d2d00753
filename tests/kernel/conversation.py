"""Packet sequences against the test build of the programs: what was sent when, and what was counted."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agent.kernel import bpfsys, layout
from agent.kernel.probes import Programs

PASS = 1
PSH_ACK = 0x18
RST = 0x04
FIN_ACK = 0x11
EXCLUDED_PATHS = (b"GET /metrics", b"GET /health")


def own_cgroup_id(cgroup2: Path) -> int:
    """The dummy socket of BPF_PROG_TEST_RUN belongs to the caller's cgroup."""
    line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return os.stat(cgroup2 / line[3:].strip().lstrip("/")).st_ino


def frame(payload: bytes, sport: int, dport: int, seq: int, flags: int = PSH_ACK, version: int = 4) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, 1, 5 << 4, flags, 65535, 0, 0)
    length = len(tcp) + len(payload)
    if version == 4:
        address = ipaddress.IPv4Address("127.0.0.1").packed
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, 6, 0, address, address)
        kind = b"\x08\x00"
    else:
        address6 = ipaddress.IPv6Address("::1").packed
        ip = struct.pack("!IHBB16s16s", 6 << 28, length, 6, 64, address6, address6)
        kind = b"\x86\xdd"
    return bytes(12) + kind + ip + tcp + payload


@dataclass(frozen=True, slots=True)
class Bench:
    programs: Programs
    cgroup_id: int
    slots: Any  # numpy view of every slot

    @classmethod
    def of(cls, programs: Programs, cgroup2: Path) -> Bench:
        programs.fill_continuations(programs.map_fd("continuations"))
        bpfsys.map_update(programs.map_fd("control"), bytes(4), struct.pack("<QQ", 1, 0))
        for path in EXCLUDED_PATHS:
            key = struct.pack("<I24s", len(path) * 8, path)
            bpfsys.map_update(programs.map_fd("classes"), key, struct.pack("<I", 1))
        fd = programs.map_fd("slots")
        entries = bpfsys.map_info(fd).max_entries
        memory = bpfsys.map_memory(fd, entries * layout.SLOT.itemsize, writable=True)
        return cls(programs, own_cgroup_id(cgroup2), np.frombuffer(memory, dtype=layout.SLOT, count=entries))

    def converse(self, slot: int, version: int = 4, client_port: int | None = None) -> Conversation:
        port = 8000 + slot
        key = struct.pack("<QII", self.cgroup_id, port, 0)
        bpfsys.map_update(self.programs.map_fd("owners"), key, struct.pack("<QII", 7, slot, 0))
        control = self.programs.map_fd("control")
        epoch, shed = struct.unpack("<QQ", bpfsys.map_lookup(control, bytes(4), 16) or b"")
        bpfsys.map_update(control, bytes(4), struct.pack("<QQ", epoch + 1, shed))
        self.slots[slot]["generation"] = 7
        return Conversation(self, slot, port, client_port or 20000 + slot, version)

    def shed(self, what: int) -> None:
        control = self.programs.map_fd("control")
        (epoch,) = struct.unpack_from("<Q", bpfsys.map_lookup(control, bytes(4), 16) or b"")
        bpfsys.map_update(control, bytes(4), struct.pack("<QQ", epoch, what))

    @property
    def drops(self) -> dict[str, int]:
        raw = bpfsys.map_lookup(self.programs.map_fd("counters"), bytes(4), layout.COUNTERS.itemsize) or b""
        row = np.frombuffer(raw, dtype=layout.COUNTERS)[0]
        return {name: int(row[name]) for name in layout.COUNTERS.names or ()}


@dataclass(slots=True)
class Conversation:
    """One connection. Times are microseconds on the programs' clock."""

    bench: Bench
    slot: int
    port: int
    client_port: int
    version: int = 4
    now_us: int = 0
    sent: dict[str, int] = field(default_factory=lambda: {"ingress": 1000, "egress": 2**32 - 60})

    def at(self, now_us: int) -> Conversation:
        self.now_us = now_us
        return self

    def client(self, *segments: bytes, **packet: int) -> Conversation:
        return self._pass("ingress", segments, self.client_port, self.port, **packet)

    def server(self, *segments: bytes, **packet: int) -> Conversation:
        return self._pass("egress", segments, self.port, self.client_port, **packet)

    def forget(self) -> Conversation:
        """As if the connection were older than the programs: nothing is known of it."""
        flows = self.bench.programs.map_fd("test_flows")
        bpfsys.map_update(flows, struct.pack("<I", self.client_port), bytes(bpfsys.map_info(flows).value_bytes))
        return self

    def again(self, direction: str, payload: bytes) -> Conversation:
        """The last payload once more, as a retransmission."""
        self.sent[direction] -= len(payload)
        return self.client(payload) if direction == "ingress" else self.server(payload)

    def _pass(
        self, program: str, segments: Iterable[bytes], sport: int, dport: int, flags: int = PSH_ACK, ahead: int = 0
    ) -> Conversation:
        clock = self.bench.programs.map_fd("test_clock")
        bpfsys.map_update(clock, bytes(4), struct.pack("<Q", self.now_us * 1000))
        for payload in segments:
            packet = frame(payload, sport, dport, self.sent[program] + ahead, flags, self.version)
            result = bpfsys.program_test_run(self.bench.programs.fds[program], packet)
            assert result.return_value == PASS
            if not ahead:
                self.sent[program] += len(payload)
        return self

    def __getitem__(self, name: str) -> int:
        return int(self.bench.slots[self.slot][name])

    def histogram(self, name: str) -> dict[int, int]:
        """Non-empty buckets: lower bound in microseconds -> samples."""
        row = self.bench.slots[self.slot][name]
        return {(layout.bucket_upper_us(int(i) - 1) if i else 0): int(row[i]) for i in np.flatnonzero(row)}

    def balanced(self) -> bool:
        """The invariant of wire.h."""
        ended = self["completed"] + self["client_aborted"] + self["server_aborted"] + self["lost"]
        return self["started"] == self["in_flight"] + ended and 0 <= self["waiting"] <= self["in_flight"]
