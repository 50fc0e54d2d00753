"""What bench.picker measures in: a stand-in for pods and agent, a picker and a real Envoy in front, as processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.standin import NODE, ip_of, uid_of
from lab import wire
from lab.looking.watch import samples
from lab.machine import envoy, manifests, processes
from lab.machine.envoy import BodyMode, Gateway, Routing
from lab.machine.manifests import LabPod
from lab.machine.substrate import program

HOST = "127.0.0.1"
LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Bench:
    gateway_port: int
    metrics_port: int
    picker_pid: int
    pods_port: int

    async def reaches(self, name: str, value: float) -> None:
        """Waits until a metric of the controller is at least so much."""
        while True:
            page = (await wire.get(HOST, self.metrics_port, "/metrics")).decode()
            if sum(sample.value for sample in samples(page) if sample.name == name) >= value:
                return
            await asyncio.sleep(0.05)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("0.0.0.0", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextlib.asynccontextmanager
async def standing(
    folder: Path,
    pods: int,
    mode: BodyMode,
    nothing: bool = False,
    sends_responses: bool = False,
    replicas: int = 1,
    policy: str = "sonde",
) -> AsyncIterator[Bench]:
    """nothing: the picker is bench.nothing. Raises ProcessError, or FileNotFoundError where there is no Envoy."""
    binary = envoy.find()
    if binary is None:
        raise FileNotFoundError("no Envoy: run 'make setup', or name its binary in $SONDE_ENVOY")
    os.mkdir(folder)
    port, agent, front, *rest = free_ports(3 + 3 * replicas)
    ports = [Ports(port, agent, *rest[3 * at : 3 * at + 3]) for at in range(replicas)]
    config = Gateway(
        pods=(),
        picker=(HOST, ports[0].picker),
        more_pickers=tuple((HOST, other.picker) for other in ports[1:]),
        host=HOST,
        sonde_port=front,
        body_mode=mode,
        routing=Routing.ORIGINAL_DST,
        picker_tls=False,
        message_timeout_s=30.0,
        sends_responses=sends_responses,
    )
    _write_manifests(folder / "manifests", pods, port)
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str, command: Sequence[str], listens: int) -> processes.Process:
            process = await processes.start(name, command, folder)
            stack.push_async_callback(process.stop)
            await processes.listening(process, HOST, listens, LIMIT_S)
            return process

        module = (sys.executable, "-m")
        standin = (*module, "bench.standin", "--port", str(port), "--agent-port", str(agent), "--pods", str(pods))
        await start("standin", standin, agent)
        pickers = []
        for at, own in enumerate(ports):
            idle = [*module, "bench.nothing", "--port", str(own.picker), "--destination", f"{ip_of(1)}:{port}"]
            command = idle if nothing else _controller(folder / "manifests", own, policy)
            pickers.append(await start(f"picker-{at}", command, own.picker))
        (folder / "envoy.json").write_text(json.dumps(envoy.bootstrap(config)))
        await start("envoy", envoy.command(binary, folder / "envoy.json"), front)
        for own in () if nothing else ports:
            await Bench(front, own.metrics, 0, port).reaches("sonde_controller_agents_connected", 1)
        yield Bench(front, ports[0].metrics, pickers[0].pid, port)


class Ports(NamedTuple):
    """Where one picker serves, and what it talks to."""

    pods: int
    agent: int
    picker: int
    metrics: int
    health: int


def _write_manifests(where: Path, pods: int, port: int) -> None:
    where.mkdir()
    specs = [LabPod(f"pod-{pod}", uid_of(pod), ip_of(pod), "") for pod in range(1, pods + 1)]
    objects = [manifests.pool(port), manifests.agent(NODE, HOST), *(manifests.pod(spec, NODE, port) for spec in specs)]
    manifests.write(where, objects)


def _controller(where: Path, ports: Ports, policy: str) -> list[str]:
    return program(
        "controller",
        *("--pool-name", manifests.POOL, "--manifests", str(where), "--bind", HOST, "--policy", policy),
        *("--grpc-port", str(ports.picker), "--grpc-health-port", str(ports.health)),
        *("--metrics-port", str(ports.metrics), "--agent-port", str(ports.agent)),
        *("--secure-serving=false", "--drain-delay=0s"),
    )


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, ended ones not included."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
    return total


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)
