"""Real programs on a cgroup of the test's own, with a real server process inside it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agent.kernel import bpfsys, cgroups, layout, loader, pins
from agent.kernel.pins import Pins
from lab.machine.cgroups import enter_command

SERVER = Path(__file__).with_name("server.py")
GENERATION = 3


@dataclass(slots=True)
class Node:
    pins: Pins
    cgroup: Path
    slots: Any
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    owned: int = 0

    def serve(self, host: str = "127.0.0.1", program: Path = SERVER) -> Served:
        """A server in the cgroup, listening on a port that has just been given a slot."""
        port = free_port(host)
        return Served(self, self.own(port), host, port, self.start(host, port, program))

    def start(self, host: str, port: int, program: Path = SERVER, *flags: str) -> subprocess.Popen[str]:
        return self.run([sys.executable, str(program), host, str(port), *flags])

    def run(self, command: list[str]) -> subprocess.Popen[str]:
        """A command in the cgroup that says when it is ready."""
        process = subprocess.Popen(enter_command(self.cgroup, command), stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def own(self, port: int) -> int:
        slot = self.owned
        self.owned += 1
        self.slots[slot]["generation"] = GENERATION
        owners = pins.open_map(self.pins, "owners")
        key = struct.pack("<QII", cgroups.identity(self.cgroup), port, 0)
        bpfsys.map_update(owners, key, struct.pack("<QII", GENERATION, slot, 0))
        os.close(owners)
        self.bump_epoch()
        return slot

    def bump_epoch(self) -> None:
        control = pins.open_map(self.pins, "control")
        epoch, shed = struct.unpack("<QQ", bpfsys.map_lookup(control, bytes(4), 16) or bytes(16))
        bpfsys.map_update(control, bytes(4), struct.pack("<QQ", epoch + 1, shed))
        os.close(control)

    def shed(self) -> int:
        control = pins.open_map(self.pins, "control")
        _, shed = struct.unpack("<QQ", bpfsys.map_lookup(control, bytes(4), 16) or bytes(16))
        os.close(control)
        return int(shed)

    def end_processes(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        self.processes.clear()

    def hook_programs(self) -> list[int]:
        fd = os.open(self.cgroup, os.O_RDONLY)
        try:
            return [program for kind in pins.LINKS.values() for program in bpfsys.programs_attached(fd, kind)]
        finally:
            os.close(fd)


@dataclass(slots=True)
class Served:
    node: Node
    slot: int
    host: str
    port: int
    process: subprocess.Popen[str]

    def __getitem__(self, name: str) -> int:
        return int(self.node.slots[self.slot][name])

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=20)

    def until(self, condition: Callable[[], bool], within_s: float = 20) -> None:
        """Waits for the kernel to have counted what the test did (closing is asynchronous)."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, self.counts()
            time.sleep(0.002)

    def histogram(self, name: str) -> Any:
        return self.node.slots[self.slot][name].copy()

    def counts(self) -> dict[str, int]:
        row = self.node.slots[self.slot]
        return {name: int(row[name]) for name in layout.SLOT.names or () if row[name].ndim == 0 and row[name]}


def post(path: str, body: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def read_answer(connection: socket.socket) -> bytes:
    """One whole response, by its own framing."""
    data = b""
    while not is_whole(data):
        piece = connection.recv(65536)
        if not piece:
            break
        data += piece
    return data


def is_whole(data: bytes) -> bool:
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return b"chunked" in head and body.endswith(b"0\r\n\r\n")


def free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_node(name: str, steer: bool = False) -> Iterator[Node]:
    """Loads onto a new cgroup; unloads and removes everything at the end, whatever happened."""
    where = Pins(Path(f"/sys/fs/bpf/sonde-test-{name}-{os.getpid()}"))
    cgroup = cgroups.root() / f"sonde-test-{name}-{os.getpid()}"
    cgroup.mkdir()
    node: Node | None = None
    try:
        assert loader.load(where, cgroup, steer) == 0
        fd = pins.open_map(where, "slots")
        entries = bpfsys.map_info(fd).max_entries
        memory = bpfsys.map_memory(fd, entries * layout.SLOT.itemsize, writable=True)
        os.close(fd)
        node = Node(where, cgroup, np.frombuffer(memory, dtype=layout.SLOT, count=entries))
        yield node
    finally:
        if node:
            node.end_processes()
        loader.unload(where)
        remove_cgroup(cgroup)


def remove_cgroup(cgroup: Path) -> None:
    for _ in range(100):  # the last process leaves a moment after it was reaped
        try:
            cgroup.rmdir()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise RuntimeError(f"{cgroup} is still in use")
