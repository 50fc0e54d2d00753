"""Servers that say their names, a client in a cgroup, and the maps of steering between them."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.kernel import bpfsys
from agent.steering.alias import Column, table
from agent.steering.maps import Entry, Frontend, SteerMaps
from lab.machine.cgroups import enter_command
from tests.kernel.live import Node, remove_cgroup, running_node

CLIENT = Path(__file__).with_name("client.py")
VIP = "127.96.0.10"  # any address of 127/8 is there, and a server may stand for kube-proxy at it


class Servers:
    """Accepts on many addresses in one thread; each connection is told the name of its server."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._accepted: dict[str, list[socket.socket]] = {}
        self._listeners: dict[str, socket.socket] = {}
        self._changes: list[tuple[str, socket.socket]] = []
        self._lock = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def listen(self, name: str, address: str, port: int = 0, udp: bool = False) -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        if not udp:
            listener.listen(1024)
        listener.setblocking(False)
        with self._lock:
            self._accepted[name] = []
            self._listeners[name] = listener
            self._selector.register(listener, selectors.EVENT_READ, name)
        return int(listener.getsockname()[1])

    def kill(self, name: str) -> None:
        """As if its process had died: nobody listens, and its connections end."""
        with self._lock:
            listener = self._listeners.pop(name)
            self._selector.unregister(listener)
            listener.close()
            for connection in self._accepted.pop(name):
                connection.close()

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        for name in list(self._listeners):
            self.kill(name)
        self._selector.close()

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(timeout=0.05):
                with self._lock:
                    if key.data in self._listeners:
                        self._serve(key.data, self._listeners[key.data])

    def _serve(self, name: str, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            if listener.type == socket.SOCK_DGRAM:
                _, peer = listener.recvfrom(64)
                listener.sendto(name.encode(), peer)
                return
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError):
                    connection.send(name.encode())
                self._accepted[name].append(connection)
                self._prune(name)

    def _prune(self, name: str) -> None:
        """Descriptors are few; clients that are done have long gone."""
        while len(self._accepted[name]) > 200:
            self._accepted[name].pop(0).close()


@dataclass
class Client:
    process: subprocess.Popen[str]

    def ask(self, **asked: Any) -> dict[str, Any]:
        self.begin(**asked)
        return self.result()

    def begin(self, **asked: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def answers(self, address: str, port: int, times: int = 1, family: int = 4, **more: Any) -> dict[str, int]:
        found = self.ask(family=family, address=address, port=port, times=times, **more)["answers"]
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@dataclass
class Steered:
    node: Node
    maps: SteerMaps
    servers: Servers
    clients: list[Client] = field(default_factory=list)
    cgroups: list[Path] = field(default_factory=list)

    def client(self, cgroup: Path | None = None) -> Client:
        """A client inside the cgroup of the programs, or another one."""
        place = cgroup or self.node.cgroup
        command = [sys.executable, str(CLIENT)]
        process = subprocess.Popen(
            enter_command(place, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        self.clients.append(Client(process))
        return self.clients[-1]

    def cgroup(self, name: str, inside: bool = True) -> Path:
        made = (self.node.cgroup if inside else self.node.cgroup.parent) / f"{self.node.cgroup.name}-{name}"
        made.mkdir()
        self.cgroups.append(made)
        return made

    def steer(self, number: int, frontend: Frontend, weights: dict[tuple[str, int, int], float]) -> None:
        """Table and pool of this number for a frontend; endpoints are (address, port, index)."""
        self.maps.put_table(number, table([Column(*one) for one in weights], list(weights.values())))
        self.maps.put_service(frontend, Entry(number, number))
        self.beat()

    def beat(self) -> None:
        self.maps.beat(time.monotonic_ns())

    def pool(self, number: int) -> dict[str, int]:
        row = self.maps.pools[number]
        return {name: int(row[name]) for name in row.dtype.names or () if name != "name"}

    def connections(self, index: int) -> int:
        return int(self.maps.endpoints[index]["connections"])

    def clear(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()
        for frontend in self.maps.services():
            self.maps.delete_service(frontend)
        for cgroup in self.maps.skips():
            self.maps.delete_skip(cgroup)
        self.maps.pools[:] = 0
        self.maps.endpoints[:] = 0
        for cgroup in self.cgroups:
            remove_cgroup(cgroup)
        self.cgroups.clear()


@contextlib.contextmanager
def steered_node(name: str) -> Iterator[Steered]:
    with running_node(name, steer=True) as node:
        maps = SteerMaps(node.pins)
        servers = Servers()
        made = Steered(node, maps, servers)
        try:
            yield made
        finally:
            made.clear()
            servers.close()
            maps.close()


@contextlib.contextmanager
def attached(instructions: bytes, attach_type: int, cgroup: Path) -> Iterator[None]:
    """Another's program at a hook of a cgroup."""
    folder = os.open(cgroup, os.O_RDONLY)
    program = bpfsys.address_program(instructions, "foreign", attach_type)
    link = bpfsys.link_create(program, folder, attach_type)
    try:
        yield
    finally:
        for fd in (link, program, folder):
            os.close(fd)
