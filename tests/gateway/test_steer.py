"""Direct clients of a Service on three nodes, steered: real programs, agents, controllers, and kube-proxy's rules.

Needs root and BPF. What happens in a cluster's day, one after the other: see `test_a_day_of_steering`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab import wire
from lab.config import Kind
from lab.direct import ground, site
from lab.direct.ground import SERVICE_ADDRESS, NodesGround, Place
from lab.direct.site import Site
from lab.looking.watch import Sample, samples
from lab.machine import home, manifests, processes, substrate
from lab.machine.home import Home
from lab.machine.processes import Process
from tests.conftest import run, skip_or_fail

PODS = 3
LIMIT_S = 240.0
CALLER = Path(__file__).with_name("caller.py")
OTHER_PORT = 9005
STALE_S = 3.0  # after which the kernel takes an agent for gone
ENOUGH = 20  # calls of each node


@pytest.fixture
def stood() -> Iterator[tuple[NodesGround, Home]]:
    name = f"sonde-s{os.getpid()}"
    choice = substrate.choose(name, None)
    if choice.kind is not Kind.NAMESPACES:
        skip_or_fail("kernel", choice.why[0])
    with home.taken(name) as (folder, _), ground.stand(name, PODS, seed=1) as place:
        yield place, folder


class Day:
    """The nodes, and what their clients have said so far."""

    def __init__(self, running: Site, stack: contextlib.AsyncExitStack) -> None:
        self.site = running
        self.ground = running.ground
        self.stack = stack
        self.agents: list[Process] = []
        self.pods = [place.pod.name for place in self.ground.pods]

    async def agent(self, place: Place) -> Process:
        ip = self.ground.controller_ip
        origins = f"{ip}:{self.ground.ports.weights},{ip}:{OTHER_PORT}"
        return await self.site.agent(place, self.stack, "--weights-from", origins)

    async def call_from_all(self) -> None:
        for place in self.ground.clients:
            command = self.ground.inside(place, [sys.executable, str(CALLER), *map(str, SERVICE_ADDRESS)])
            await self.site.start(place.pod.name, command, self.stack)

    def calls(self, place: Place, since_s: float) -> list[dict[str, Any]]:
        """Of one client, begun since then."""
        lines = (self.site.home.logs / f"{place.pod.name}.log").read_text().splitlines(keepends=True)
        told = [json.loads(line) for line in lines if line.endswith("\n")]
        return [call for call in told if call["at_s"] >= since_s]

    async def called(self, since_s: float, count: int = ENOUGH) -> list[dict[str, Any]]:
        """Once each client has made so many calls since then: all of them."""
        while min(len(self.calls(place, since_s)) for place in self.ground.clients) < count:
            await asyncio.sleep(0.1)
        return [call for place in self.ground.clients for call in self.calls(place, since_s)]

    async def metrics(self, place: Place) -> list[Sample]:
        return await page_of(place.ip, self.ground.ports.agent_metrics)

    async def until(self, holds: Callable[[list[Sample]], bool], agents: Sequence[Place] | None = None) -> None:
        """Until it holds on every agent's page."""
        for place in self.ground.agents if agents is None else agents:
            while not holds(await self.metrics(place)):
                await asyncio.sleep(0.1)

    def set_ready(self, at: int, ready: bool) -> None:
        place = self.ground.pods[at]
        node, port = self.ground.name(place.node), self.ground.ports.engine
        manifests.write(self.site.home.manifests, [manifests.pod(place.pod, node, port, ready)])


@contextlib.asynccontextmanager
async def day(place: NodesGround, folder: Home) -> AsyncIterator[Day]:
    async with site.standing(place, folder, slow=1.0) as running, contextlib.AsyncExitStack() as stack:
        today = Day(running, stack)
        site.name_service(running, named=True)
        async with asyncio.TaskGroup() as group:
            starting = [group.create_task(today.agent(agent)) for agent in place.agents]
        today.agents += [task.result() for task in starting]
        yield today


async def page_of(ip: str, port: int) -> list[Sample]:
    """An agent's page, as soon as it answers: one that begins, or a busy machine, may take a while."""
    while True:
        with contextlib.suppress(wire.CallError):
            return samples((await wire.get(ip, port, "/metrics")).decode())
        await asyncio.sleep(0.1)


def source(name: str) -> Callable[[list[Sample]], bool]:
    return lambda page: value(page, "sonde_steer_source", source=name) == [1.0]


def value(page: list[Sample], name: str, **labels: str) -> list[float]:
    return [one.value for one in page if one.name == name and labels.items() <= one.labels.items()]


def shares(page: list[Sample]) -> dict[str, float]:
    return {one.labels["pod"]: one.value for one in page if one.name == "sonde_steer_endpoint_share_ratio"}


def pods_of(calls: list[dict[str, Any]]) -> Counter[str]:
    """Who answered; none may have failed."""
    failed = [call for call in calls if "pod" not in call]
    assert failed == []
    return Counter(call["pod"] for call in calls)


@pytest.mark.timeout(300)
def test_a_day_of_steering(stood: tuple[NodesGround, Home]) -> None:
    async def body() -> None:
        async with day(*stood) as today:
            controller = await without_and_with_a_controller(today)
            await a_pod_dies_and_comes_back(today)
            await the_controller_is_killed(today, controller)
            await another_controller_comes(today)

    run(body(), timeout_s=LIMIT_S, debug=False)


async def without_and_with_a_controller(today: Day) -> Process:
    await today.until(source("equal"))
    await today.call_from_all()
    controller = await today.site.controller(1, today.stack)
    await today.until(source("controller"))
    since_s = time.monotonic()
    assert pods_of(await today.called(since_s)).keys() == set(today.pods)
    page = await today.metrics(today.ground.agents[0])
    assert sum(value(page, "sonde_steer_connections_total", reason="steered")) >= ENOUGH
    # picks count these requests like any other's: the kernels of the pods' nodes do
    made = len(await today.called(0.0))
    while await started(today) < made:
        await asyncio.sleep(0.1)
    return controller


async def started(today: Day) -> float:
    pages = [await today.metrics(place) for place in today.ground.agents]
    return sum(sum(value(page, "sonde_pod_requests_started_total")) for page in pages)


async def a_pod_dies_and_comes_back(today: Day) -> None:
    gone = today.pods[0]
    (engine,) = (process for process in today.site.running if process.name == gone)
    await engine.stop()
    today.set_ready(0, False)
    await today.until(lambda page: shares(page).get(gone, 0.0) == 0.0)
    assert pods_of(await today.called(time.monotonic())).keys() == set(today.pods[1:])
    again = await today.site.engine(today.ground.pods[0], 1.0, today.stack)
    await processes.listening(again, today.ground.pods[0].ip, today.ground.ports.engine, 60)
    today.set_ready(0, True)
    since_s = time.monotonic()
    await today.until(lambda page: shares(page).get(gone, 0.0) > 0.0)
    while gone not in pods_of(await today.called(since_s)):
        await asyncio.sleep(0.1)


async def the_controller_is_killed(today: Day, controller: Process) -> None:
    """Its last weights count for a while, in which an agent dies and comes back too."""
    since_s = time.monotonic()
    os.kill(controller.pid, 9)
    await an_agent_is_killed(today)
    await today.until(source("equal"))
    await today.until(lambda page: all(abs(share - 1 / PODS) < 0.01 for share in shares(page).values()))
    assert pods_of(await today.called(since_s)).keys() == set(today.pods)


async def another_controller_comes(today: Day) -> None:
    since_s = time.monotonic()
    ports = [part for name in ("grpc", "grpc-health", "metrics") for part in (f"--{name}-port", "0")]
    await today.site.controller(2, today.stack, "--weights-port", str(OTHER_PORT), *ports)
    await today.until(source("controller"))
    pods_of(await today.called(since_s))


async def an_agent_is_killed(today: Day) -> None:
    """Its node's connections go on, to where kube-proxy sends them once its tables are old."""
    place, process = today.ground.agents[0], today.agents[0]
    client = next(one for one in today.ground.clients if one.node == place.node)
    killed_s = time.monotonic()
    os.kill(process.pid, 9)
    stale_s = killed_s + STALE_S + 1.0
    while len(today.calls(client, stale_s)) < ENOUGH:
        await asyncio.sleep(0.1)
    assert pods_of(today.calls(client, stale_s)).keys() <= set(today.pods)
    pods_of(await today.called(killed_s))
    await today.agent(place)
    await today.until(source("equal"), [place])  # there is no controller
    page = await today.metrics(place)
    assert sum(value(page, "sonde_steer_connections_total", reason="stale")) >= ENOUGH
    pods_of(await today.called(killed_s))
