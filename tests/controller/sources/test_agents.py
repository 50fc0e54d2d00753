"""Following agents, over real gRPC streams that come, break and come back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import grpc.aio
import pytest

from agent.engines.families import EngineMetrics
from agent.proto import telemetry_pb2_grpc
from agent.proto.telemetry_pb2 import EndpointReport, EngineSignal, Frame, KernelSignal, WatchRequest
from controller import model
from controller.model import AgentGone, Event, FrameReceived, Source
from controller.policies.parts import COUNT_LIMIT_S
from controller.sources.agents import SILENCE_LIMIT_S, Agents, frame_event
from tests.agent.rows import place, view_of
from tests.conftest import run
from tests.controller.known import PORT, pod, table


class Node(telemetry_pb2_grpc.TelemetryServicer):
    """An agent that sends the frames it is told to."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.subscribers: list[str] = []

    async def Watch(self, request: WatchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[Frame]:
        self.subscribers.append(request.subscriber)
        while (frame := await self.frames.get()) is not None:
            yield frame


@asynccontextmanager
async def serving(node: telemetry_pb2_grpc.TelemetryServicer, port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    telemetry_pb2_grpc.add_TelemetryServicer_to_server(node, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


class Events:
    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._came = asyncio.Event()

    def emit(self, event: Event, now: float) -> None:
        self.seen.append(event)
        self._came.set()

    async def until(self, holds: Callable[[list[Event]], bool]) -> None:
        while not holds(self.seen):
            self._came.clear()
            await self._came.wait()


@asynccontextmanager
async def following(*ports: int, silence_limit_s: float = SILENCE_LIMIT_S) -> AsyncIterator[tuple[Agents, Events]]:
    events = Events()
    async with asyncio.TaskGroup() as group:
        agents = Agents(group, events.emit, "ns/pool", Random(1), silence_limit_s=silence_limit_s)
        agents.reconcile(f"127.0.0.1:{port}" for port in ports)
        yield agents, events
        agents.close()


def frame(node: str = "n1") -> Frame:
    return Frame(node=node, full=True)


def test_frames_become_events_and_the_end_of_a_stream_is_one_too() -> None:
    async def body() -> None:
        node = Node()
        async with serving(node) as port, following(port) as (agents, events):
            node.frames.put_nowait(frame())
            await events.until(lambda seen: len(seen) == 1)
            assert (node.subscribers, agents.traffic.connected) == (["ns/pool"], 1)
            node.frames.put_nowait(None)
            await events.until(lambda seen: len(seen) == 2)
            assert isinstance(events.seen[0], FrameReceived)
            assert events.seen[1] == AgentGone("n1")

    run(body())


def test_an_agent_that_comes_back_is_followed_again() -> None:
    async def body() -> None:
        first, second = Node(), Node()
        async with contextlib.AsyncExitStack() as old:
            port = await old.enter_async_context(serving(first))
            async with following(port) as (_, events):
                first.frames.put_nowait(frame())
                await events.until(lambda seen: len(seen) == 1)
                await old.aclose()
                await events.until(lambda seen: AgentGone("n1") in seen)
                async with serving(second, port):
                    second.frames.put_nowait(frame())
                    await events.until(lambda seen: sum(isinstance(event, FrameReceived) for event in seen) == 2)

    run(body())


def test_an_agent_that_is_not_there_yet_is_found_when_it_comes() -> None:
    async def body() -> None:
        async with serving(Node()) as port:
            pass  # a port that nobody listens on
        node = Node()
        async with following(port) as (agents, events):
            while not agents.traffic.reconnects:
                await asyncio.sleep(0.01)
            async with serving(node, port):
                node.frames.put_nowait(frame())
                await events.until(lambda seen: bool(seen))

    run(body())


def test_an_agent_that_leaves_the_cluster_is_followed_no_more() -> None:
    async def body() -> None:
        one, two = Node(), Node()
        async with serving(one) as first, serving(two) as second, following(first, second) as (agents, events):
            one.frames.put_nowait(frame("n1"))
            two.frames.put_nowait(frame("n2"))
            await events.until(lambda seen: len(seen) == 2)
            agents.reconcile([f"127.0.0.1:{second}"])
            await events.until(lambda seen: AgentGone("n1") in seen)
            assert AgentGone("n2") not in events.seen

    run(body())


def test_ages_become_times_of_our_own_clock() -> None:
    signal = KernelSignal(age_us=20_000, in_flight=2, waiting=5, progress_age_us=500_000, usual_gap_us=30_000)
    sent = Frame(node="n1", endpoints=[EndpointReport(namespace="d", pod="a", pod_uid="u", port=1, kernel=signal)])
    (report,) = frame_event(sent, 100.0).reports
    assert report.kernel is not None
    assert report.kernel.true_at_s == pytest.approx(99.98)
    assert report.kernel.progress_at_s == pytest.approx(99.5)
    assert report.kernel.usual_gap_s == pytest.approx(0.03)
    assert report.kernel.usual_ttft_s is None
    assert report.kernel.waiting == 2  # never more than in flight
    assert report.engine is None


def test_adapters_and_the_size_of_the_cache_come_with_the_stream() -> None:
    told = EngineMetrics("vllm", 1, 2, 0.5, ("base",), ("a",), ("a", "b"), 4, 1000, 16)
    view = view_of("a")
    view.take_page(place("a", "u0"), told, 0)
    (report,) = frame_event(Frame.FromString(view.frame(None, 0).SerializeToString()), 7.0).reports

    assert report.engine == model.EngineSignal(7.0, "vllm", 1, 2, 0.5, ("base",), ("a",), ("a", "b"), 4, 1000, 16)
    assert report.engine.adapters == {"a", "b"}
    assert report.engine.kv_tokens == 16_000


def test_what_is_not_known_of_adapters_and_cache_stays_unknown() -> None:
    sent = Frame(node="n1", endpoints=[EndpointReport(engine=EngineSignal(engine="tgi"))])
    (report,) = frame_event(sent, 0.0).reports

    assert report.engine == model.EngineSignal(0.0, "tgi", None, None, None)
    assert report.engine.kv_tokens is None


@pytest.mark.parametrize("usage", [float("nan"), -0.1, 1.5])
def test_a_cache_usage_that_cannot_be_is_unknown(usage: float) -> None:
    engine = EngineSignal(age_us=0, engine="vllm", running=1, kv_cache_usage=usage)
    sent = Frame(node="n1", endpoints=[EndpointReport(namespace="d", pod="a", port=1, engine=engine)])
    (report,) = frame_event(sent, 0.0).reports
    assert report.engine is not None
    assert (report.engine.kv_cache_usage, report.engine.running, report.engine.waiting) == (None, 1, None)
    assert report.kernel is None


def test_an_agent_that_never_speaks_is_tried_ever_more_rarely_while_another_speaks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        alive = Node()
        async with (
            serving(Node()) as mute,
            serving(alive) as port,
            following(port, mute, silence_limit_s=0.15) as (agents, _),
        ):
            while agents.traffic.reconnects < 3:
                alive.frames.put_nowait(frame())
                await asyncio.sleep(0.02)
        said = [record.getMessage() for record in caplog.records if f":{mute}:" in record.getMessage()]
        assert said == [f"agent 127.0.0.1:{mute}: silent for 0.15 s; trying again"]

    run(body())


class OneFrameEach(telemetry_pb2_grpc.TelemetryServicer):
    """An agent that sends each stream one frame and is silent from then on."""

    async def Watch(self, request: WatchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[Frame]:
        yield frame()
        await asyncio.Event().wait()


def test_an_agent_that_says_nothing_more_is_left_and_asked_anew() -> None:
    async def body() -> None:
        async with serving(OneFrameEach()) as port, following(port, silence_limit_s=0.15) as (_, events):
            await events.until(lambda seen: sum(isinstance(event, FrameReceived) for event in seen) >= 2)
            frames = [at for at, event in enumerate(events.seen) if isinstance(event, FrameReceived)]
            assert AgentGone("n1") in events.seen[frames[0] : frames[1]]

    run(body())


def test_a_node_is_gone_when_the_last_of_its_agents_is() -> None:
    """While a pod is replaced, two agents speak for one node."""

    async def body() -> None:
        old, new = Node(), Node()
        async with serving(old) as first, serving(new) as second, following(first, second) as (agents, events):
            old.frames.put_nowait(frame())
            new.frames.put_nowait(frame())
            await events.until(lambda seen: len(seen) == 2)
            agents.reconcile([f"127.0.0.1:{second}"])
            while agents.traffic.connected > 1:
                await asyncio.sleep(0.01)
            assert AgentGone("n1") not in events.seen
            agents.reconcile([])
            await events.until(lambda seen: AgentGone("n1") in seen)

    run(body())


def test_what_an_agent_said_ages_out_with_its_stream_and_is_unknown_then() -> None:
    async def body() -> None:
        node, held = Node(), table(pod("a"), pod("b"))
        busy = EndpointReport(
            namespace="default", pod="a", pod_uid="uid-a", port=PORT, kernel=KernelSignal(in_flight=6)
        )
        async with serving(node) as port, asyncio.TaskGroup() as group:
            agents = Agents(group, held.apply, "ns/pool", Random(1))
            agents.reconcile([f"127.0.0.1:{port}"])
            node.frames.put_nowait(Frame(node="n1", full=True, endpoints=[busy]))
            while held.rows[0].kernel is None:
                await asyncio.sleep(0.01)
            assert held.ranks(time.monotonic()) == [6, 6]  # b is unknown, not idle
            agents.close()
            while agents.traffic.connected != 0:
                await asyncio.sleep(0.01)
            held.ranks(time.monotonic() + COUNT_LIMIT_S + 0.01)
            assert [row.source for row in held.rows] == [Source.OWN, Source.OWN]

    run(body())
