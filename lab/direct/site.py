"""What runs on the nodes: engines as long as the site, agents, a controller and clients for one arm each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.config import MODEL
from lab.contests import results
from lab.contests.load import Result
from lab.direct.config import KUBE_PROXY, STEER, SteerConfig
from lab.direct.ground import NODES, SERVICE, SERVICE_ADDRESS, NodesGround, Place
from lab.machine import manifests, processes
from lab.machine.home import Home
from lab.machine.processes import Process
from lab.machine.stack import LISTEN_LIMIT_S, LOAD_LIMIT_S, SLOW_POD
from lab.machine.substrate import program

LEAD_S = 3.0  # from starting clients to their first request: three interpreters start at once
CLIENT = "client"  # app label


@dataclass
class Site:
    """`running` are all processes that should be; each ends with the stack it was started in."""

    ground: NodesGround
    home: Home
    running: list[Process]

    async def start(self, name: str, command: Sequence[str], stack: contextlib.AsyncExitStack) -> Process:
        process = await processes.start(name, command, self.home.logs)
        self.running.append(process)

        async def end() -> None:
            self.running.remove(process)
            await process.stop()

        stack.push_async_callback(end)
        self.home.note(process.pid)
        return process

    async def broken(self) -> None:
        """Returns never; raises ProcessError as soon as a process that should run ends."""
        while True:
            for process in self.running:
                if not process.running:
                    await process.ended()
            await asyncio.sleep(0.1)

    async def engine(self, place: Place, slow: float, stack: contextlib.AsyncExitStack) -> Process:
        ports = self.ground.ports
        command = program(
            "lab",
            "engine",
            *("--host", place.ip, "--port", str(ports.engine), "--control-port", str(ports.control)),
            *("--pod", place.pod.name, "--model", MODEL, "--slow", str(slow)),
        )
        return await self.start(place.pod.name, self.ground.inside(place, command), stack)

    async def agent(self, place: Place, stack: contextlib.AsyncExitStack, *more: str) -> Process:
        ground, ports = self.ground, self.ground.ports
        command = program(
            "agent",
            "run",
            *("--node-name", ground.name(place.node), "--manifests", str(self.home.manifests)),
            *("--cgroup-root", str(ground.slice(place.node)), "--pin-root", str(ground.pins(place.node).root)),
            *("--bind", place.ip, "--port", str(ports.agent), "--metrics-port", str(ports.agent_metrics)),
            *("--plain-text", *more),  # nothing leaves the machine
        )
        process = await self.start(place.pod.name, ground.inside(place, command, contained=False), stack)
        for port in (ports.agent, ports.agent_metrics):
            await processes.listening(process, place.ip, port, LISTEN_LIMIT_S)
        return process

    async def controller(self, seed: int, stack: contextlib.AsyncExitStack, *more: str) -> Process:
        """`more`: flags that count for more than these."""
        ground = self.ground
        command = program(
            "controller",
            *("--pool-name", manifests.POOL, "--pool-namespace", manifests.NAMESPACE, "--bind", ground.controller_ip),
            *("--manifests", str(self.home.manifests), "--seed", str(seed), "--drain-delay=0s"),
            *("--agent-plain-text", "--weights-port", str(ground.ports.weights), *more),
        )
        port = next((int(value) for flag, value in pairwise(more) if flag == "--weights-port"), ground.ports.weights)
        process = await self.start(f"controller-{port}", ground.apart(command), stack)
        await processes.listening(process, ground.controller_ip, port, LISTEN_LIMIT_S)
        return process

    async def load(self, config: SteerConfig, seed: int, arm: str) -> list[Result]:
        """One schedule, shared out to three clients that begin together. Raises ProcessError."""
        start_at_s = time.monotonic() + LEAD_S
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._client(place, config, seed, arm, start_at_s)) for place in self.ground.clients
            ]
        return [result for task in tasks for result in task.result()]

    async def _client(self, place: Place, config: SteerConfig, seed: int, arm: str, start_at_s: float) -> list[Result]:
        name = f"{place.pod.name}-{arm}-{seed}"
        out = self.home.logs / f"{name}.jsonl"
        seconds = config.warmup_s + config.duration_s
        host, port = SERVICE_ADDRESS
        command = program(
            "lab",
            "load",
            *("--host", host, "--port", str(port), "--model", MODEL, "--seed", str(seed), "--new-connections"),
            *("--rate", str(config.rate_per_s), "--duration", str(seconds), "--start-at", str(start_at_s)),
            *("--part", f"{place.node + 1}/{NODES}", "--out", str(out)),
        )
        async with contextlib.AsyncExitStack() as stack:
            client = await processes.start(name, self.ground.inside(place, command), self.home.logs)
            stack.push_async_callback(client.stop)
            self.home.note(client.pid)
            await client.finished()
        if not out.exists():
            raise client.failure("wrote no results")
        return results.read(out)


@contextlib.asynccontextmanager
async def standing(ground: NodesGround, home: Home, slow: float, steers: bool = True) -> AsyncIterator[Site]:
    """Manifests, engines and programs in the kernel, with those that steer if so. Raises ProcessError."""
    site = Site(ground, home, [])
    write_manifests(ground, home)
    async with contextlib.AsyncExitStack() as stack:
        engines = [
            await site.engine(place, slow if at == SLOW_POD else 1.0, stack) for at, place in enumerate(ground.pods)
        ]
        async with asyncio.TaskGroup() as group:  # each is seconds of compiling
            for node in range(NODES):
                where = ("--pin-root", str(ground.pins(node).root), "--attach-cgroup", str(ground.slice(node)))
                command = program("agent", "load", *where, *(["--steer"] if steers else []))
                group.create_task(processes.finish(f"load-{node + 1}", command, home.logs, LOAD_LIMIT_S))
        for engine, place in zip(engines, ground.pods, strict=True):
            await processes.listening(engine, place.ip, ground.ports.engine, LISTEN_LIMIT_S)
        yield site


@contextlib.asynccontextmanager
async def arm(site: Site, name: str, seed: int) -> AsyncIterator[None]:
    """Agents and a controller as this arm has them. Raises ProcessError."""
    name_service(site, name != KUBE_PROXY)
    steers = ["--weights-from", f"{site.ground.controller_ip}:{site.ground.ports.weights}"] if name == STEER else []
    async with contextlib.AsyncExitStack() as stack:
        await site.controller(seed, stack)
        async with asyncio.TaskGroup() as group:
            for place in site.ground.agents:
                group.create_task(site.agent(place, stack, *steers))
        yield


def name_service(site: Site, named: bool) -> None:
    """Whether the pool names the Service: only then its connections are steered."""
    pool = manifests.pool(site.ground.ports.engine, SERVICE if named else None)
    manifests.write(site.home.manifests, [pool])


def write_manifests(ground: NodesGround, home: Home) -> None:
    port = ground.ports.engine
    objects = [manifests.pool(port), manifests.service(SERVICE, *SERVICE_ADDRESS, port)]
    objects += [manifests.pod(place.pod, ground.name(place.node), port) for place in ground.pods]
    objects += [manifests.pod(place.pod, ground.name(place.node), port, app=CLIENT) for place in ground.clients]
    objects += [manifests.agent(ground.name(place.node), place.ip) for place in ground.agents]
    manifests.write(home.manifests, objects)
