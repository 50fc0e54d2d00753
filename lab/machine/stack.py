"""The lab's composition: engines, agent, controller and Envoy, started on a ground in order and stopped at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.config import MODEL, DemoConfig
from lab.machine import envoy, manifests, processes
from lab.machine.home import Home
from lab.machine.processes import Process
from lab.machine.substrate import Ground, Ports, program

LISTEN_LIMIT_S = 20.0
LOAD_LIMIT_S = 60.0  # bcc compiles


class StackError(Exception):
    """Something the lab needs is not on this machine; the text says what to do."""


class LoadRefused(Exception):
    """The kernel did not take the programs; the text has the loader's last words."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running lab."""

    ground: Ground
    home: Home
    running: Sequence[Process]

    async def broken(self) -> None:
        """Returns never; raises ProcessError as soon as any process ends."""
        async with asyncio.TaskGroup() as group:
            for process in self.running:
                group.create_task(process.ended(), name=f"watch {process.name}")


@contextlib.asynccontextmanager
async def running(
    ground: Ground, home: Home, binary: Path, config: DemoConfig, say: Callable[[str], None]
) -> AsyncIterator[Stack]:
    """Starts everything, Envoy from `binary`; ready when all listen. Raises ProcessError or LoadRefused."""
    slow = [config.slow if index == SLOW_POD else 1.0 for index in range(len(ground.pods))]
    async with contextlib.AsyncExitStack() as stack:
        starter = await _pods_and_agent(ground, home, slow, say, stack)
        say("starting controller and Envoy")
        controller = await starter.controller(config.seed)
        await processes.listening(controller, ground.node_ip, ground.ports.grpc, LISTEN_LIMIT_S)
        gateway = await starter.gateway(binary, config.body_mode)
        await processes.listening(gateway, ground.node_ip, ground.ports.least_request, LISTEN_LIMIT_S)
        yield Stack(ground, home, tuple(starter.started))


@contextlib.asynccontextmanager
async def measured_pods(
    ground: Ground,
    home: Home,
    say: Callable[[str], None],
    prefix_cache_tokens: int = 0,
    engine_interval_s: float | None = None,
) -> AsyncIterator[Stack]:
    """Engines and agent alone, for whoever brings gateways or talks to pods directly. Raises as running()."""
    async with contextlib.AsyncExitStack() as stack:
        slow = [1.0] * len(ground.pods)
        starter = await _pods_and_agent(ground, home, slow, say, stack, prefix_cache_tokens, engine_interval_s)
        yield Stack(ground, home, tuple(starter.started))


async def _pods_and_agent(
    ground: Ground,
    home: Home,
    slow: Sequence[float],
    say: Callable[[str], None],
    stack: contextlib.AsyncExitStack,
    prefix_cache_tokens: int = 0,
    engine_interval_s: float | None = None,
) -> Starter:
    _write_manifests(ground, home.manifests)
    starter = Starter(ground, home, stack)
    say("starting engines")
    engines = [await starter.pod(index, factor, prefix_cache_tokens) for index, factor in enumerate(slow)]
    if ground.pins is not None:
        say("loading programs into the kernel (compiling takes some seconds)")
        await starter.load()
        pages = ("--engine-interval", f"{engine_interval_s * 1e3:g}ms") if engine_interval_s else ()
        agent = await starter.agent(*pages)
        await processes.listening(agent, ground.node_ip, ground.ports.agent, LISTEN_LIMIT_S)
    for engine, pod in zip(engines, ground.pods, strict=True):
        await processes.listening(engine, pod.ip, ground.ports.engine, LISTEN_LIMIT_S)
    return starter


class Starter:
    """Starts processes of the lab where they belong, each to be stopped with the stack, the last one first."""

    def __init__(self, ground: Ground, home: Home, stack: contextlib.AsyncExitStack) -> None:
        self._ground = ground
        self._home = home
        self._stack = stack
        self.started: list[Process] = []

    async def pod(self, index: int, slow: float, prefix_cache_tokens: int = 0) -> Process:
        pod, ports = self._ground.pods[index], self._ground.ports
        command = program(
            "lab",
            "engine",
            *("--host", pod.ip, "--port", str(ports.engine), "--control-port", str(ports.control)),
            *("--pod", pod.name, "--model", MODEL, "--slow", str(slow)),
            *("--log", str(self._home.truth(pod.name)), "--prefix-cache-tokens", str(prefix_cache_tokens)),
        )
        return await self._start(pod.name, self._ground.pod_command(index, command))

    async def load(self) -> None:
        ground = self._ground
        assert ground.pins is not None
        assert ground.lab_slice is not None
        where = ("--pin-root", str(ground.pins.root), "--attach-cgroup", str(ground.lab_slice))
        try:
            await processes.finish("agent-load", program("agent", "load", *where), self._home.logs, LOAD_LIMIT_S)
        except processes.ProcessError as error:
            raise LoadRefused(str(error)) from error

    async def agent(self, *more: str) -> Process:
        ground, ports = self._ground, self._ground.ports
        assert ground.pins is not None
        command = program(
            "agent",
            "run",
            *("--node-name", ground.node, "--manifests", str(self._home.manifests)),
            *("--cgroup-root", str(ground.lab_slice), "--pin-root", str(ground.pins.root)),
            *("--bind", ground.node_ip, "--port", str(ports.agent), "--metrics-port", str(ports.agent_metrics)),
            "--plain-text",  # nothing leaves the machine
            *more,
        )
        return await self._start("agent", ground.node_command(command))

    async def controller(
        self,
        seed: int,
        policy: str = "sonde",
        ports: Ports | None = None,
        name: str = "controller",
        more: Sequence[str] = (),
    ) -> Process:
        ground = self._ground
        ports = ports or ground.ports
        command = program(
            "controller",
            *("--pool-name", manifests.POOL, "--pool-namespace", manifests.NAMESPACE),
            *("--bind", ground.node_ip, "--grpc-port", str(ports.grpc), "--grpc-health-port", str(ports.health)),
            *("--metrics-port", str(ports.metrics), "--agent-port", str(ports.agent)),
            "--agent-plain-text",
            *("--manifests", str(self._home.manifests), "--seed", str(seed), "--drain-delay=0s", "--ui"),
            *("--policy", policy, "--weights-port", str(ports.weights)),
            *more,
        )
        return await self._start(name, ground.node_command(command))

    async def gateway(
        self, binary: Path, body_mode: envoy.BodyMode, ports: Ports | None = None, name: str = "envoy"
    ) -> Process:
        ground = self._ground
        ports = ports or ground.ports
        config = envoy.Gateway(
            pods=tuple((pod.ip, ports.engine) for pod in ground.pods),
            picker=(ground.node_ip, ports.grpc),
            host=ground.node_ip,
            sonde_port=ports.sonde,
            round_robin_port=ports.round_robin,
            least_request_port=ports.least_request,
            admin_port=ports.admin,
            body_mode=body_mode,
        )
        file = self._home.folder / f"{name}.json"
        file.write_text(json.dumps(envoy.bootstrap(config), indent=2))
        return await self._start(name, ground.node_command(envoy.command(binary, file)))

    async def _start(self, name: str, command: Sequence[str]) -> Process:
        process = await processes.start(name, command, self._home.logs)
        self._stack.push_async_callback(process.stop)
        self._home.note(process.pid)
        self.started.append(process)
        return process


SLOW_POD = 1  # the second
HUNG_POD = 2  # the third


def _write_manifests(ground: Ground, folder: Path) -> None:
    port = ground.ports.engine
    objects = [manifests.pool(port), *(manifests.pod(pod, ground.node, port) for pod in ground.pods)]
    if ground.pins is not None:
        objects.append(manifests.agent(ground.node, ground.node_ip))
    manifests.write(folder, objects)
