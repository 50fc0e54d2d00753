"""Ground for measuring on the wire: programs on a cgroup of the bench's own, servers in it, and loss for their clients.

This process, the client, moves into a cgroup of its own, because what is dropped for it must not be dropped for others.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.kernel import bpfsys, cgroups, loader, pins
from agent.kernel.maps import PinnedMaps
from agent.kernel.pins import Pins
from agent.placing.pods import CgroupId
from agent.placing.slots import Key, Owner
from lab.engines import truth
from lab.machine import cgroups as lab_cgroups
from lab.machine.cgroups import enter_command

GENERATION = 1
READY_S = 20.0


class GroundRefused(Exception):
    """This machine cannot measure; the text says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """One process in the measured cgroup, at a port with a slot of its own."""

    process: subprocess.Popen[str]
    host: str
    port: int
    slot: int
    log: Path

    def records(self) -> list[truth.Record]:
        return truth.read(self.log)[0] if self.log.exists() else []


@dataclass
class WireGround:
    pins: Pins
    cgroup: Path
    client: Path
    folder: Path
    maps: PinnedMaps
    servers: list[Server] = field(default_factory=list)
    owned: int = 0

    def serve(self, module: str, host: str = "127.0.0.1") -> Server:
        port = free_port(host)
        log = self.folder / f"{module}-{port}.log"
        return self.run([sys.executable, "-m", module, host, str(port), str(log)], host, port, log)

    def own(self, port: int) -> int:
        """The slot that counts what is served at this port of the measured cgroup from now on."""
        slot, self.owned = self.owned, self.owned + 1
        self.maps.reset_slot(slot, GENERATION)
        self.maps.put_owner(Key(CgroupId(cgroups.identity(self.cgroup)), port), Owner(slot, GENERATION))
        self.maps.bump_epoch()
        return slot

    def run(
        self, command: Sequence[str], host: str, port: int, log: Path, ready: bool = True, within_s: float = READY_S
    ) -> Server:
        """A command that serves at the port, in the measured cgroup.

        It says "ready" unless told that it does not; then it may say anything, and is ready when it listens.
        """
        slot = self.own(port)
        said = self.folder / f"{port}.said"
        with said.open("w") as file:
            process = subprocess.Popen(
                enter_command(self.cgroup, command),
                stdout=subprocess.PIPE if ready else file,
                stderr=None if ready else subprocess.STDOUT,
                text=True,
            )
        server = Server(process, host, port, slot, log)
        self.servers.append(server)
        if process.stdout is not None and process.stdout.readline() != "ready\n":
            raise GroundRefused(f"{' '.join(command)} does not start")
        if not ready and not listens(host, port, process, within_s):
            raise GroundRefused(f"nothing listens at {host}:{port} after {within_s:g} s:\n{said.read_text()[-2000:]}")
        return server

    def row(self, server: Server) -> dict[str, int]:
        whole = self.maps.slots.first(server.slot + 1)[server.slot]
        return {name: int(whole[name]) for name in whole.dtype.names or () if whole[name].ndim == 0}

    def in_flight(self, server: Server) -> int:
        return int(self.maps.slots.first(server.slot + 1)["in_flight"][server.slot])

    def replace_programs(self) -> None:
        """As an upgrade does, under running traffic. Raises GroundRefused."""
        with contextlib.redirect_stdout(None):
            if loader.load(self.pins, self.cgroup):
                raise GroundRefused("the programs could not be loaded again")

    @contextlib.contextmanager
    def losing(self, share: float) -> Iterator[None]:
        """Drops this share of the client's packets, each way. The kernel's netem is not everywhere."""
        if not share:
            yield
            return
        folder = os.open(self.client, os.O_RDONLY)
        programs = [bpfsys.packet_program(dropper(share), "lose", kind) for kind in (pins.INGRESS, pins.EGRESS)]
        links = [
            bpfsys.link_create(fd, folder, kind) for fd, kind in zip(programs, (pins.INGRESS, pins.EGRESS), strict=True)
        ]
        try:
            yield
        finally:
            for fd in (*links, *programs, folder):
                os.close(fd)


def dropper(share: float) -> bytes:
    """r0 = random & 0xffff; pass where it is at least `share` of 65536."""
    limit = min(0x7FFF, round(share * 65536)).to_bytes(4, "little")
    return b"".join(
        (
            bytes.fromhex("8500000007000000"),  # call bpf_get_prandom_u32
            bytes.fromhex("57000000ffff0000"),  # r0 &= 0xffff
            bytes.fromhex("35000200") + limit,  # if r0 >= limit skip 2
            bytes.fromhex("b7000000000000009500000000000000"),  # r0 = 0; exit
            bytes.fromhex("b7000000010000009500000000000000"),  # r0 = 1; exit
        )
    )


@contextlib.contextmanager
def wire_ground() -> Iterator[WireGround]:
    """Removes all it made, whatever happens. Raises GroundRefused."""
    if os.geteuid() != 0:
        raise GroundRefused("not root")
    tree = cgroups.root()
    where = Pins(Path(f"/sys/fs/bpf/sonde-wire-{os.getpid()}"))
    measured, client = tree / f"sonde-wire-{os.getpid()}", tree / f"sonde-wire-client-{os.getpid()}"
    home = tree / Path("/proc/self/cgroup").read_text().split("0::", 1)[1].splitlines()[0].lstrip("/")
    made: WireGround | None = None
    measured.mkdir()
    client.mkdir()
    try:
        (client / "cgroup.procs").write_text(str(os.getpid()))
        with contextlib.redirect_stdout(sys.stderr):
            if loader.load(where, measured):
                raise GroundRefused("the programs do not load; see above")
        with tempfile.TemporaryDirectory() as folder:
            made = WireGround(where, measured, client, Path(folder), PinnedMaps(where))
            yield made
    finally:
        if made is not None:
            _end(made.servers)
            made.maps.close()
        with contextlib.redirect_stdout(sys.stderr):
            loader.unload(where)
        (home / "cgroup.procs").write_text(str(os.getpid()))
        for cgroup in (measured, client):
            lab_cgroups.remove(cgroup)  # an engine is several processes


def _end(servers: Sequence[Server]) -> None:
    for server in servers:
        server.process.kill()
        server.process.wait()
        if server.process.stdout is not None:
            server.process.stdout.close()


def listens(host: str, port: int, process: subprocess.Popen[str], within_s: float) -> bool:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), timeout=1).close()
            return True
        time.sleep(0.05)
    return False


def free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
