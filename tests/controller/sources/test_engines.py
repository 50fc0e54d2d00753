"""Engines that no agent reads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from agent.engines.places import Told
from controller.endpoints.table import Table
from controller.model import EngineScraped, EngineSignal, Event, FrameReceived
from controller.sources.engines import SCRAPES_PER_S, SLOW_S, Engines, is_ours, pause_s
from tests.conftest import run
from tests.controller.known import engine, frame, kernel, pod, report, table

PAGE = b'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 4.0\n'


def test_what_nothing_measures_is_read_often_while_requests_come() -> None:
    assert pause_s(measured=False, busy=True, refresh_s=0.05, endpoints=4) == 0.05
    assert pause_s(measured=False, busy=False, refresh_s=0.05, endpoints=4) == SLOW_S
    assert pause_s(measured=True, busy=True, refresh_s=0.05, endpoints=4) == SLOW_S


def test_a_thousand_pods_are_read_no_oftener_than_we_can_afford() -> None:
    assert pause_s(measured=False, busy=True, refresh_s=0.05, endpoints=1000) == 1000 / SCRAPES_PER_S


def test_an_engine_that_an_agent_reports_is_left_to_it() -> None:
    held = table(pod("a"))
    row = held.rows[0]
    assert is_ours(row, None, 0.0)
    row.engine = engine(1, 2, at=0.0)
    assert not is_ours(row, None, 1.0)
    assert is_ours(row, row.engine, 1.0)
    assert is_ours(row, None, 10.0)  # the agent's word is old


@asynccontextmanager
async def page_at(ip: str, page: bytes) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(page), page))

    async with await asyncio.start_server(serve, ip, 0) as server:
        yield server.sockets[0].getsockname()[1]


async def scraped(held: Table, page_count: int, told: Told | None = None) -> tuple[Engines, list[Event]]:
    """Scrapes until so many pages were read or failed."""
    events: list[Event] = []

    def emit(event: Event, now: float) -> None:
        events.append(event)
        held.apply(event, now)

    engines = Engines(held, emit, 0.02, Random(1), lambda: True, told=told)
    task = asyncio.create_task(engines.run())
    while engines.scrapes.good + engines.scrapes.failed < page_count:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return engines, events


def test_a_page_becomes_the_load_of_its_endpoint() -> None:
    async def body() -> None:
        async with page_at("127.0.0.1", PAGE) as port:
            held = table(pod("a", ip="127.0.0.1"), ports=(port,))
            _, events = await scraped(held, 2)
            assert isinstance(events[0], EngineScraped)
            assert (events[0].address, events[0].signal.requests) == (f"127.0.0.1:{port}", 7)
            assert held.rows[0].load == 7

    run(body())


def test_a_page_is_where_whoever_starts_us_says_before_it_is_elsewhere() -> None:
    async def body() -> None:
        async with page_at("127.0.0.1", b"up 1\n") as serving, page_at("127.0.0.1", PAGE) as told:
            held = table(pod("a", ip="127.0.0.1"), ports=(serving,))
            engines, events = await scraped(held, 2, Told(port=told, path="/elsewhere"))
            assert (engines.scrapes.failed, isinstance(events[0], EngineScraped)) == (0, True)

            held = table(pod("a", ip="127.0.0.1"), ports=(told,))
            engines, _ = await scraped(held, 2, Told(port=serving))  # what is told is no engine's: it looks further
            assert (engines.scrapes.good, engines.scrapes.failed) == (2, 0)

    run(body())


@pytest.mark.parametrize("page", [b"", b"up 1\n"])
def test_a_page_without_an_engines_numbers_tells_nothing(page: bytes) -> None:
    async def body() -> None:
        async with page_at("127.0.0.1", page) as port:
            engines, events = await scraped(table(pod("a", ip="127.0.0.1"), ports=(port,)), 1)
            assert engines.scrapes.failed
            assert (engines.scrapes.good, events) == (0, [])

    run(body())


def test_a_policy_that_goes_by_pages_has_all_of_them_read_whatever_agents_say() -> None:
    held = table(pod("a"))
    held.apply(frame({"a": kernel(in_flight=1)}, full=True), 0.0)
    held.rows[0].engine = engine(1, 2, at=0.0)
    for reads_all in (False, True):
        engines = Engines(held, lambda event, now: None, 0.05, Random(1), lambda: True, reads_all=reads_all)
        assert bool(engines._due(0.1)) is reads_all
        engines._due(1.0)
        assert bool(engines._due(1.06)) is reads_all  # at the interval that the flag names


def test_pods_that_the_kernel_measures_still_have_an_engine_to_read() -> None:
    held = table(pod("a"))
    held.apply(frame({"a": kernel(in_flight=1)}, full=True), 0.0)
    assert is_ours(held.rows[0], None, 0.0)


def due(engines: Engines, now: float) -> bool:
    return bool(engines._due(now))


def heard(held: Table, now: float, page: EngineSignal | None, **counts: int) -> None:
    signal = kernel(at=now, **counts)
    held.apply(FrameReceived("node-1", True, [report("a", signal, page)], now), now)


def test_an_idle_engine_whose_page_its_agent_reads_rarely_is_left_to_it() -> None:
    held = table(pod("a"))
    engines = Engines(held, held.apply, 0.05, Random(1), lambda: True)
    page = engine(0, 0, at=-12.0)  # the agent read it long before we came
    for second in range(60):
        now = float(second)
        if now == 18.0:
            page = engine(0, 0, at=now)
        heard(held, now, page, started=7)
        held.refresh(now)
        assert held.rows[0].fresh_engine(now) is page
        assert not due(engines, now)
        if now == 45.0:
            break
    assert not due(engines, 46.9)  # its agent is silent, for a moment
    held.refresh(47.1)
    assert held.rows[0].fresh_engine(47.1) is None
    assert due(engines, 47.1)


def test_an_engine_that_was_idle_is_read_by_us_only_if_its_agent_does_not() -> None:
    held = table(pod("a"))
    engines = Engines(held, held.apply, 0.05, Random(1), lambda: True)
    page = engine(0, 0, at=0.0)
    heard(held, 10.0, page)
    assert not due(engines, 10.0)
    heard(held, 10.5, page, in_flight=1, started=1)
    heard(held, 12.4, page, in_flight=1, started=1)
    assert held.rows[0].fresh_engine(12.4) is page  # as good as one that was read when the request came
    assert not due(engines, 12.4)
    heard(held, 12.5, engine(1, 0, at=11.5), in_flight=1, started=1)
    assert not due(engines, 13.4)
    heard(held, 13.6, engine(1, 0, at=11.5), in_flight=1, started=1)
    assert held.rows[0].fresh_engine(13.6) is None
    assert due(engines, 13.6)


def test_a_page_from_before_a_request_that_came_and_went_is_only_so_old() -> None:
    held = table(pod("a"))
    row, page = held.rows[0], engine(0, 0, at=0.0)
    heard(held, 1.0, page)
    heard(held, 5.0, page, in_flight=1, started=1)
    heard(held, 6.0, page, started=1)
    heard(held, 6.5, page, started=2)  # another one, all of it between two frames
    assert row.page_until_s(0.0) == 2.0
    assert row.page_until_s(6.2) == 8.5  # idle until the one at 6.5
    assert row.page_until_s(6.6) == 8.6
    heard(held, 20.0, page, started=2)
    assert row.page_until_s(6.6) == 22.0


def test_what_we_read_ourselves_is_left_to_the_agent_that_comes() -> None:
    held = table(pod("a"))
    engines = Engines(held, held.apply, 0.05, Random(1), lambda: True)
    own = engine(0, 0, at=1.0)
    engines._take(held.rows[0].endpoint.address, own)
    assert held.rows[0].engine is own
    heard(held, 1.5, engine(0, 0, at=-5.0))
    assert not is_ours(held.rows[0], own, 1.5)
    heard(held, 2.0, None)  # it cannot read the page
    assert is_ours(held.rows[0], own, 2.0)
