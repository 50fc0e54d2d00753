"""Agents that make up what they stream: as many nodes and pods as one wants, over the real gRPC, for whoever looks on.

Knows the stream, the manifests and how a controller is started; refuses to know kernels and engines. Nothing serves
requests here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc.aio
import yaml
from google.protobuf import json_format

from agent.exporting import metrics_server
from agent.proto import telemetry_pb2_grpc
from agent.proto.telemetry_pb2 import Device, EndpointReport, Frame, KernelSignal, WatchRequest
from lab.machine import manifests, processes
from lab.machine.manifests import LabPod
from lab.machine.processes import Process
from lab.machine.substrate import program

HOST = "127.0.0.1"
LIMIT_S = 30.0
PULSE_S = 0.125  # as agents do
BEAT_EVERY = 5  # pulses between two full frames
PORT = 8000


@dataclass(slots=True)
class FleetPod:
    """One pod and what its node's kernel is said to count."""

    name: str
    ip: str
    in_flight: int = 0
    waiting: int = 0
    started: int = 0
    chunks: int = 0
    ttft_us: int | None = 50_000
    gap_us: int | None = 10_000
    fault: str = ""  # of its accelerators' first
    gpus: int = 1
    busy: float | None = 0.0  # each of them
    told_s: float = 0.0  # so long ago
    moved_at_s: float = 0.0  # the last answer byte; what never moves is a stall as soon as something is in flight

    def move(self, in_flight: int, waiting: int) -> None:
        """Other requests are there, and something was answered just now."""
        self.started += max(0, in_flight - self.in_flight)
        self.in_flight, self.waiting = in_flight, waiting
        self.chunks += 1
        self.moved_at_s = time.monotonic()

    def report(self, now: float) -> EndpointReport:
        silent_us = int(max(0.0, now - self.moved_at_s) * 1e6)
        signal = KernelSignal(
            in_flight=self.in_flight,
            waiting=self.waiting,
            started=self.started,
            chunks=self.chunks,
            progress_age_us=silent_us if self.in_flight else None,
            usual_ttft_us=self.ttft_us,
            usual_gap_us=self.gap_us,
        )
        uid = f"uid-{self.ip}"
        devices = [self._device(number) for number in range(self.gpus)]
        return EndpointReport(
            namespace=manifests.NAMESPACE, pod=self.name, pod_uid=uid, port=PORT, kernel=signal, devices=devices
        )

    def _device(self, number: int) -> Device:
        return Device(
            id=f"GPU-{number + 1}",
            resource="nvidia.com/gpu",
            kind="gpu",
            fault="" if number else self.fault,
            utilization=self.busy,
            memory_used_bytes=61 << 30,
            memory_total_bytes=80 << 30,
            age_us=int(self.told_s * 1e6),
        )


@dataclass(slots=True)
class FleetNode(telemetry_pb2_grpc.TelemetryServicer):
    """One agent. It sends everything whenever it is rung, and as a heartbeat."""

    name: str
    ip: str
    pods: list[FleetPod] = field(default_factory=list)
    _wakes: set[asyncio.Event] = field(default_factory=set)
    _server: grpc.aio.Server | None = None
    _close_state: Callable[[], None] = lambda: None

    def ring(self) -> None:
        for wake in self._wakes:
            wake.set()

    def frame(self) -> Frame:
        now = time.monotonic()
        return Frame(node=self.name, full=True, endpoints=[pod.report(now) for pod in self.pods])

    def state(self) -> bytes:
        return json_format.MessageToJson(self.frame(), preserving_proto_field_name=True).encode()

    async def start(self, port: int, state_port: int) -> None:
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        telemetry_pb2_grpc.add_TelemetryServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_insecure_port(f"{self.ip}:{port}")
        await self._server.start()
        _, self._close_state = metrics_server.serve(lambda: (), self.ip, state_port, self.state)

    async def stop(self) -> None:
        """As a node that is switched off: every stream breaks."""
        if self._server:
            await self._server.stop(None)
            await asyncio.to_thread(self._close_state)
            self._server = None

    async def Watch(self, request: WatchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[Frame]:
        wake = asyncio.Event()
        self._wakes.add(wake)
        pulses = 0
        try:
            while True:
                yield self.frame() if wake.is_set() or pulses % BEAT_EVERY == 0 else Frame(node=self.name, age_us=0)
                wake.clear()
                pulses += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PULSE_S):
                        await wake.wait()
        finally:
            self._wakes.discard(wake)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All of them, on addresses of 127.0.0.0/8 where nothing else listens."""

    port: int  # of the agents' streams
    state_port: int  # of their metrics
    nodes: Sequence[FleetNode]

    @property
    def pods(self) -> list[FleetPod]:
        return [pod for node in self.nodes for pod in node.pods]

    def ring(self) -> None:
        for node in self.nodes:
            node.ring()

    def stir(self, rng: Random) -> None:
        """Every pod has other requests and other times than before."""
        for pod in self.pods:
            in_flight = rng.randrange(12)
            pod.move(in_flight, rng.randint(0, in_flight))
            pod.busy = rng.random()
            pod.ttft_us, pod.gap_us = rng.randint(20_000, 400_000), rng.randint(5_000, 30_000)
        self.ring()

    def write(self, folder: Path) -> None:
        """The cluster as one file, put in place whole."""
        objects: list[dict[str, Any]] = [manifests.pool(PORT)]
        for node in self.nodes:
            objects.append(manifests.agent(node.name, node.ip))
            objects += [
                manifests.pod(LabPod(pod.name, f"uid-{pod.ip}", pod.ip, ""), node.name, PORT) for pod in node.pods
            ]
        part = folder / ".fleet.part"
        part.write_text(yaml.safe_dump_all(objects, sort_keys=False))
        os.replace(part, folder / "fleet.yaml")

    @contextlib.asynccontextmanager
    async def serving(self, folder: Path) -> AsyncIterator[None]:
        """Writes the manifests and runs the agents. Raises OSError or RuntimeError where a port is taken."""
        self.write(folder)
        try:
            for node in self.nodes:
                await node.start(self.port, self.state_port)
            yield
        finally:
            for node in self.nodes:
                await node.stop()


def fleet(pods: int, per_node: int = 8) -> Fleet:
    """Pods of made-up names, idle, so many to a node."""
    made = [FleetPod(f"llm-{at + 1:03}", f"10.{20 + at // 250}.0.{at % 250 + 1}") for at in range(pods)]
    nodes = [
        FleetNode(
            f"node-{start // per_node + 1:02}", f"127.0.6.{start // per_node + 1}", made[start : start + per_node]
        )
        for start in range(0, pods, per_node)
    ]
    return Fleet(free_port(), free_port(), nodes)


def free_port() -> int:
    """One that nobody listens on at any address."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Watching:
    """A controller that follows a fleet; `port` is that of metrics and page."""

    process: Process
    port: int
    grpc_port: int


@contextlib.asynccontextmanager
async def controller(folder: Path, fleet: Fleet, port: int = 0, ui: bool = True) -> AsyncIterator[Watching]:
    """Starts one and waits until it listens. Its log is in the folder too."""
    port, grpc_port = port or free_port(), free_port()
    command = program(
        "controller",
        *("--pool-name", manifests.POOL, "--manifests", str(folder), "--bind", HOST, f"--ui={str(ui).lower()}"),
        *("--grpc-port", str(grpc_port), "--grpc-health-port", "0", "--secure-serving=false", "--seed", "1"),
        "--drain-delay=0s",  # no gateway has to notice that it ends
        *("--metrics-port", str(port), "--agent-port", str(fleet.port)),
    )
    process = await processes.start("controller", command, folder)
    try:
        await processes.listening(process, HOST, port, LIMIT_S)
        yield Watching(process, port, grpc_port)
    finally:
        await process.stop()
