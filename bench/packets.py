"""What the programs take for each packet: the kernel's own timing of them, by kind of traffic, net of an empty program.

    python -m bench.packets [--record]     --record writes bench/packets.json

A small server in a cgroup of its own, real connections over loopback. The kernel adds the cost of reading its clock to
every timed run; an empty program at the same hooks shows how much, and that is taken off. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.kernel import bpfsys, cgroups, pins, probes
from lab.machine.cgroups import enter_command

RECORD = Path(__file__).with_suffix(".json")
EMPTY = bytes.fromhex("b7000000010000009500000000000000")  # r0 = 1; exit
HOOKS = {"ingress": pins.INGRESS, "egress": pins.EGRESS}
PLAIN = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
STREAM = b"POST /v1/stream HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
SERVER = """
import socket, sys
answer = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: 200\\r\\n\\r\\n" + b"x" * 200
header = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n"
event = b"c8\\r\\ndata: " + b"t" * 192 + b"\\n\\n\\r\\n"
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
connection, _ = listener.accept()
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while request := connection.recv(65536):
    if b"/v1/stream" in request:
        connection.sendall(header)
        for _ in range(1000):
            connection.sendall(event)
        connection.sendall(b"0\\r\\n\\r\\n")
    else:
        connection.sendall(answer)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one kind of traffic, at one hook."""

    runs: int
    ns: float  # a run, net of what an empty program takes


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--requests", type=int, default=5000)
    options.add_argument("--streams", type=int, default=20)
    options.add_argument("--record", action="store_true")
    arguments = options.parse_args()
    try:
        programs = probes.load()
    except probes.LoadError as error:
        print(f"bench.packets: {error}", file=sys.stderr)
        return 1
    with served() as (connection, cgroup, port), attached(programs, cgroup, port) as watched:
        traffic: dict[str, Callable[[], None]] = {
            "short request": lambda: ask(connection, arguments.requests),
            "streamed chunk": lambda: stream(connection, arguments.streams),
        }
        figures = {name: timed(send, watched) for name, send in traffic.items()}
    for name, costs in figures.items():
        for hook, cost in costs.items():
            print(f"{name:<16} {hook:<8} {cost.ns:7.0f} ns a packet, {cost.runs} packets")
    ack = figures["streamed chunk"]["ingress"]
    print(f"ingress of streams is acknowledgements but for {arguments.streams} requests: {ack.ns:.0f} ns each")
    if arguments.record:
        rows = {name: {hook: round(cost.ns) for hook, cost in costs.items()} for name, costs in figures.items()}
        RECORD.write_text(json.dumps({"kernel": platform.release(), "ns": rows}, indent=1) + "\n")
    return 0


@contextlib.contextmanager
def served() -> Iterator[tuple[socket.socket, Path, int]]:
    cgroup = cgroups.root() / f"sonde-packets-{os.getpid()}"
    cgroup.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = enter_command(cgroup, [sys.executable, "-c", SERVER, str(port)])
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield socket.create_connection(("127.0.0.1", port)), cgroup, port
    finally:
        server.kill()
        server.wait()
        for _ in range(100):
            with contextlib.suppress(OSError):
                cgroup.rmdir()
                break


@contextlib.contextmanager
def attached(programs: probes.Programs, cgroup: Path, port: int) -> Iterator[dict[str, tuple[int, int]]]:
    """By hook: the program and an empty one, attached side by side."""
    programs.fill_continuations(programs.map_fd("continuations"))
    bpfsys.map_update(programs.map_fd("control"), bytes(4), struct.pack("<QQ", 1, 0))
    key = struct.pack("<QII", cgroups.identity(cgroup), port, 0)
    bpfsys.map_update(programs.map_fd("owners"), key, struct.pack("<QII", 0, 0, 0))
    cgroup_fd = os.open(cgroup, os.O_RDONLY)
    watched = {hook: (programs.fds[hook], bpfsys.packet_program(EMPTY, "empty", kind)) for hook, kind in HOOKS.items()}
    pairs = [(fd, HOOKS[hook]) for hook, both in watched.items() for fd in both]
    links = [bpfsys.link_create(fd, cgroup_fd, kind) for fd, kind in pairs]
    try:
        yield watched
    finally:
        for fd in (*links, cgroup_fd, *(empty for _, empty in watched.values())):
            os.close(fd)


def timed(send: Callable[[], None], watched: dict[str, tuple[int, int]]) -> dict[str, Cost]:
    statistics = bpfsys.time_programs()
    try:
        before = {hook: [bpfsys.program_info(fd) for fd in both] for hook, both in watched.items()}
        send()
        costs = {}
        for hook, both in watched.items():
            ours, empty = (
                (now.run_time_ns - old.run_time_ns, now.run_count - old.run_count)
                for now, old in zip((bpfsys.program_info(fd) for fd in both), before[hook], strict=True)
            )
            costs[hook] = Cost(ours[1], ours[0] / ours[1] - empty[0] / empty[1])
        return costs
    finally:
        os.close(statistics)


def ask(connection: socket.socket, times: int) -> None:
    for _ in range(times):
        connection.sendall(PLAIN)
        while not connection.recv(65536).endswith(b"x" * 200):
            pass


def stream(connection: socket.socket, times: int) -> None:
    for _ in range(times):
        connection.sendall(STREAM)
        tail = b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            tail = (tail + connection.recv(65536))[-16:]


if __name__ == "__main__":
    sys.exit(main())
