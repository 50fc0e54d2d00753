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

from bench.standin import NODE, ip_of, uid_of
from lab import envoy, manifests, processes, wire
from lab.envoy import BodyMode, Gateway, Routing
from lab.manifests import LabPod
from lab.substrate import program
from lab.watch import samples

HOST = "127.0.0.1"
LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Bench:
    gateway_port: int
    metrics_port: int
    picker_pid: int

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
    folder: Path, pods: int, mode: BodyMode, nothing: bool = False, sends_responses: bool = False
) -> AsyncIterator[Bench]:
    """nothing: the picker is bench.nothing. Raises ProcessError, or FileNotFoundError where there is no Envoy."""
    binary = envoy.find()
    if binary is None:
        raise FileNotFoundError("no Envoy: run 'make setup', or name its binary in $SONDE_ENVOY")
    os.mkdir(folder)
    port, agent, picker, metrics, health, front = free_ports(6)
    config = Gateway(
        pods=(),
        picker=(HOST, picker),
        host=HOST,
        sonde_port=front,
        body_mode=mode,
        routing=Routing.ORIGINAL_DST,
        picker_tls=False,
        message_timeout_s=30.0,
        sends_responses=sends_responses,
    )
    module = (sys.executable, "-m")
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str, command: Sequence[str], listens: int) -> processes.Process:
            process = await processes.start(name, command, folder)
            stack.push_async_callback(process.stop)
            await processes.listening(process, HOST, listens, LIMIT_S)
            return process

        standin = (*module, "bench.standin", "--port", str(port), "--agent-port", str(agent), "--pods", str(pods))
        await start("standin", standin, agent)
        if nothing:
            command = [*module, "bench.nothing", "--port", str(picker), "--destination", f"{ip_of(1)}:{port}"]
        else:
            command = _controller(folder, pods, (port, agent, picker, metrics, health))
        chosen = await start("picker", command, picker)
        (folder / "envoy.json").write_text(json.dumps(envoy.bootstrap(config)))
        await start("envoy", envoy.command(binary, folder / "envoy.json"), front)
        bench = Bench(front, metrics, chosen.pid)
        if not nothing:
            await bench.reaches("sonde_controller_agents_connected", 1)
        yield bench


def _controller(folder: Path, pods: int, ports: tuple[int, ...]) -> list[str]:
    port, agent, picker, metrics, health = ports
    where = folder / "manifests"
    where.mkdir()
    specs = [LabPod(f"pod-{pod}", uid_of(pod), ip_of(pod), "") for pod in range(1, pods + 1)]
    objects = [manifests.pool(port), manifests.agent(NODE, HOST), *(manifests.pod(spec, NODE, port) for spec in specs)]
    manifests.write(where, objects)
    return program(
        "controller",
        *("--pool-name", manifests.POOL, "--manifests", str(where), "--bind", HOST, "--seed", "1"),
        *("--grpc-port", str(picker), "--grpc-health-port", str(health), "--metrics-port", str(metrics)),
        *("--agent-port", str(agent), "--secure-serving=false", "--drain-delay=0s"),
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
