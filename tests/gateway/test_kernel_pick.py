"""The whole system: engines in pods, programs in the kernel, agent, controller, Envoy. Needs root, BPF and Envoy.

One lab serves all tests of this module; each finds all pods measured and idle, and puts back what it broke.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lab import wire
from lab.config import DemoConfig, Kind, parse
from lab.looking.watch import Row, rows
from lab.machine import home, processes, stack, substrate
from lab.machine.stack import Stack
from tests.conftest import skip_or_fail
from tests.gateway.site import Answer, envoy_binary, post

HUNG = 2
LIMIT_S = 30.0


class Lab:
    """A running lab, and the loop and the stack of exits that it lives in."""

    def __init__(self, running: Stack, runner: asyncio.Runner, held: contextlib.AsyncExitStack) -> None:
        self.stack = running
        self.ground = running.ground
        self.starter = stack.Starter(running.ground, running.home, held)
        self._runner = runner

    def run(self, body: Coroutine[Any, Any, None], limit_s: float = LIMIT_S) -> None:
        async def limited() -> None:
            async with asyncio.timeout(limit_s):
                await self.until(lambda table: all(row.source == "kernel" and row.in_flight == 0 for row in table))
                await body

        self._runner.run(limited())

    async def restart_agent(self, *more: str) -> None:
        """Stops whichever runs, and waits until the one with these flags is heard."""
        for process in self.starter.started + list(self.stack.running):
            if process.name == "agent":
                await process.stop()
        await self.until(lambda table: all(row.source != "kernel" for row in table))
        await self.starter.agent(*more)
        await self.until(lambda table: all(row.source == "kernel" for row in table))

    async def ask(self, tokens: int = 4, **headers: str) -> Answer:
        return await self.post(
            json.dumps({"model": "lab", "prompt": "hello", "max_tokens": tokens}).encode(), **headers
        )

    async def post(self, body: bytes, **headers: str) -> Answer:
        return await asyncio.to_thread(
            post, self.ground.node_ip, self.ground.ports.sonde, "/v1/completions", body, headers
        )

    async def table(self) -> list[Row]:
        page = await wire.get(self.ground.node_ip, self.ground.ports.metrics, "/metrics")
        return rows(page.decode(), [pod.name for pod in self.ground.pods], {})

    async def until(self, holds: Callable[[list[Row]], bool]) -> None:
        while not holds(await self.table()):
            await asyncio.sleep(0.02)

    @asynccontextmanager
    async def open_streams(self, count: int, host: str, port: int, tokens: int = 4000) -> AsyncIterator[Counter[str]]:
        """Streams that have had their first token and go on as long as this lasts; how many each pod has of them."""
        pods: Counter[str] = Counter()
        async with contextlib.AsyncExitStack() as held:
            for _ in range(count):
                reader, writer = await asyncio.open_connection(host, port)
                held.callback(writer.close)
                writer.write(_stream_request(tokens))
                answer = await asyncio.wait_for(reader.readuntil(b"data: "), 5)
                pods[answer.decode().lower().partition("x-sonde-pod: ")[2].partition("\r")[0]] += 1
            yield pods

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[list[int]]:
        """Requests without a pause, three at a time; the statuses of those that were answered."""
        statuses: list[int] = []
        over = asyncio.Event()

        async def ask_on() -> None:
            while not over.is_set():
                statuses.append((await self.ask()).status)

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(ask_on())
            try:
                yield statuses
            finally:
                over.set()


def _stream_request(tokens: int) -> bytes:
    body = json.dumps({"model": "lab", "prompt": "hello", "max_tokens": tokens, "stream": True}).encode()
    return b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Namespaces, cgroups and a folder of our own; this thread's sockets are inside."""
    binary = envoy_binary()
    name = f"sonde-g{os.getpid()}"
    choice = substrate.choose(name, None)
    if choice.kind is not Kind.NAMESPACES:
        skip_or_fail("kernel", choice.why[0])
    config = parse(["up", "--slow", "1"])
    assert isinstance(config, DemoConfig)
    with contextlib.ExitStack() as made:
        folder, _ = made.enter_context(home.taken(name))
        ground = made.enter_context(substrate.stand(Kind.NAMESPACES, name, 4, seed=1))
        runner = made.enter_context(asyncio.Runner(debug=True))
        held = contextlib.AsyncExitStack()
        made.callback(lambda: runner.run(held.aclose()))
        running = held.enter_async_context(stack.running(ground, folder, binary, config, lambda _: None))
        yield Lab(runner.run(running), runner, held)


def test_the_controllers_counts_are_the_streams_that_are_open(lab: Lab) -> None:
    """Through the gateway and past it: the kernel sees both."""

    async def body() -> None:
        ports, pods = lab.ground.ports, lab.ground.pods
        async with lab.open_streams(6, lab.ground.node_ip, ports.sonde) as picked:
            async with lab.open_streams(5, pods[0].ip, ports.engine) as direct:
                await lab.until(lambda table: {row.pod: row.in_flight for row in table} == picked + direct)
                answers = [await lab.ask() for _ in range(9)]
                assert pods[0].name not in {answer.headers["x-sonde-pod"] for answer in answers}
            await lab.until(lambda table: {row.pod: row.in_flight for row in table} == picked)
        await lab.until(lambda table: all(row.in_flight == 0 for row in table))
        assert max(picked.values()) <= 2  # spread by picks that the kernel had not shown yet

    lab.run(body())


def test_a_pod_that_hangs_gets_nothing_until_it_answers_again(lab: Lab) -> None:
    async def body() -> None:
        pod, ports = lab.ground.pods[HUNG], lab.ground.ports
        async with lab.open_streams(1, pod.ip, ports.engine):
            await wire.turn_knobs(pod.ip, ports.control, hang_s=4.0)
            await lab.until(lambda table: table[HUNG].stalled)
            answers = [await lab.ask() for _ in range(16)]
            assert Counter(answer.status for answer in answers) == {200: 16}
            assert pod.name not in {answer.headers["x-sonde-pod"] for answer in answers}
            await lab.until(lambda table: not table[HUNG].stalled)
        await lab.until(lambda table: sum(row.in_flight or 0 for row in table) == 0)
        picked: Counter[str] = Counter()
        while not picked[pod.name]:  # the limit of run() ends this if it never gets anything again
            async with lab.open_streams(8, lab.ground.node_ip, ports.sonde) as picked:
                pass

    lab.run(body())


def test_every_request_is_answered_while_the_agent_dies_and_returns(lab: Lab) -> None:
    """Its pins count on; who starts next takes over the counts."""

    async def body() -> None:
        (agent,) = (process for process in lab.stack.running if process.name == "agent")
        async with lab.open_streams(3, lab.ground.pods[0].ip, lab.ground.ports.engine):
            await lab.until(lambda table: table[0].in_flight == 3)
            async with lab.asking() as statuses:
                os.kill(agent.pid, signal.SIGKILL)
                await lab.until(lambda table: all(row.source != "kernel" for row in table))
                without = len(statuses)
                await lab.starter.agent()
                await lab.until(lambda table: all(row.source == "kernel" for row in table))
            await lab.until(lambda table: [row.in_flight for row in table] == [3, 0, 0, 0])
            assert Counter(statuses) == {200: len(statuses)}
            assert len(statuses) > without

    lab.run(body())


def test_an_engine_that_crashes_loses_no_request_that_can_go_elsewhere(lab: Lab) -> None:
    async def body() -> None:
        pod, ports = lab.ground.pods[HUNG], lab.ground.ports
        with contextlib.suppress(wire.CallError):  # it has no time to answer
            await wire.turn_knobs(pod.ip, ports.control, crash=True)
        answers = [await lab.ask() for _ in range(24)]
        assert Counter(answer.status for answer in answers) == {200: 24}
        engine = await lab.starter.pod(HUNG, 1.0)
        await processes.listening(engine, pod.ip, ports.engine, LIMIT_S)

    lab.run(body())
