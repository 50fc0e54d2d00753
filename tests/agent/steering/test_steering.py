"""The steering of a node in time: what it learns, what it says is wrong, when it beats."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from agent.proto.weights_pb2 import EndpointWeight, EndpointWeights
from agent.steering.maps import Frontend
from agent.steering.steering import Steering
from agent.steering.weighing import Frame, read
from tests.agent.steering.maps import MemoryMaps
from tests.agent.steering.objects import VIP, Json, cluster, pod, pool, service
from tests.conftest import run

FRONT = Frontend(VIP, 80)
A, B = pod("a", "10.0.0.1"), pod("b", "10.0.0.2")


@asynccontextmanager
async def steering(maps: MemoryMaps) -> AsyncIterator[Steering]:
    made = Steering(maps, {}, complete=True)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


def shares(maps: MemoryMaps) -> list[float]:
    return sorted(maps.shares(FRONT).values()) if FRONT in maps.services() else []


def weights(now_s: float, age_s: float, **each: float) -> Frame:
    endpoints = [
        EndpointWeight(address={"a": "10.0.0.1", "b": "10.0.0.2"}[name], port=8000, weight=weight)
        for name, weight in each.items()
    ]
    return read(EndpointWeights(namespace="ns", pool="llm", endpoints=endpoints, age_us=int(age_s * 1e6)), now_s)


def test_it_beats_once_tables_are_there_and_hands_over_when_it_ends() -> None:
    async def body() -> None:
        maps = MemoryMaps()
        async with steering(maps) as made:
            await asyncio.sleep(0.1)
            assert maps.beats == []  # nothing is known yet
            made.take(cluster(pool(), service(), A, B))
            await until(lambda: shares(maps) == [0.5, 0.5] and bool(maps.beats))
            state = made.state()
            assert [(one.source, one.service, one.fault) for one in state.pools] == [("equal", "direct", "")]
            assert sorted((one.pod, one.share) for one in state.endpoints) == [("a", 0.5), ("b", 0.5)]
        assert maps.beats[-1] == 0

    run(body())


def test_a_table_that_cannot_be_put_ends_the_beats_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        maps = MemoryMaps()
        async with steering(maps) as made:
            made.take(cluster(pool(), service(), A, B))
            await until(lambda: bool(maps.beats))
            maps.refuses = True
            made.take(cluster(pool(), service(), A))
            await until(lambda: not made.state().beating)
            beats = len(maps.beats)
            await asyncio.sleep(1.0)
            assert len(maps.beats) == beats
            maps.refuses = False
            await until(lambda: shares(maps) == [1.0] and len(maps.beats) > beats)

    with caplog.at_level(logging.WARNING):
        run(body())
    said = [one.getMessage() for one in caplog.records if "cannot be kept up to date" in one.getMessage()]
    assert len(said) == 1


def test_frames_count_until_they_are_too_old() -> None:
    async def body() -> None:
        maps = MemoryMaps()
        async with steering(maps) as made:
            made.take(cluster(pool(), service(), A, B))
            now_s = asyncio.get_running_loop().time()
            made.hear(weights(now_s, 10.0, a=3.0, b=1.0))
            await until(lambda: shares(maps) == [0.25, 0.75])
            made.hear(weights(now_s, 20.0, a=1.0, b=9.0))  # older than what is known
            await until(lambda: shares(maps) == [0.5, 0.5])  # 5 s later nothing fresh is known
            assert made.state().pools[0].source == "equal"

    run(body())


def test_more_ready_pods_than_a_table_holds_leave_the_last_good_one_to_who_is_ready() -> None:
    async def body() -> None:
        maps = MemoryMaps()
        many: list[Json] = [pod(f"p{n}", f"10.1.{n >> 8}.{n & 255}") for n in range(5000)]
        async with steering(maps) as made:
            made.take(cluster(pool(), service(), A, B))
            await until(lambda: shares(maps) == [0.5, 0.5])
            made.take(cluster(pool(), service(), A, *many))
            await until(lambda: shares(maps) == [1.0])
            (state,) = made.state().pools
            assert "5001 Ready endpoints, a table holds 4096: the last good one stays" in state.fault
            made.take(cluster(pool(), service(), A, B))
            await until(lambda: shares(maps) == [0.5, 0.5])
            assert made.state().pools[0].fault == ""

    run(body(), 60, debug=False)
