"""When an engine's page is read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.engines.pages import EnginePages, _Visit, is_due
from agent.placing.slots import Owner
from agent.view import View
from tests.agent.rows import NODE, S, place, pod, row, rows, view_of
from tests.conftest import DATA, run

PAGE = b'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 1.0\n'


def seen_of(**fields: int):
    view = view_of("a")
    view.sample(rows(row(generation=1, **fields)), S)
    return view.get(place("a", "u0"))


def test_a_page_that_was_never_read_is_due() -> None:
    assert is_due(None, seen_of(), 1.0, 0)


def test_the_page_of_a_busy_engine_is_due_each_interval() -> None:
    seen = seen_of(in_flight=1)
    visit = _Visit(begun_ns=0, activity=seen.activity, running=False)
    assert is_due(visit, seen, 1.0, S)
    assert not is_due(visit, seen, 1.0, S // 2)


def test_the_page_of_an_idle_engine_is_read_rarely() -> None:
    seen = seen_of()
    visit = _Visit(begun_ns=0, activity=seen.activity, running=False)
    assert not is_due(visit, seen, 1.0, 10 * S)
    assert is_due(visit, seen, 1.0, 30 * S)


def test_what_happened_since_the_last_reading_makes_a_page_due() -> None:
    seen = seen_of(completed=1)
    assert is_due(_Visit(begun_ns=0, activity=seen.activity - 1, running=False), seen, 1.0, S)


def test_a_page_being_read_is_not_read_again() -> None:
    assert not is_due(_Visit(0, 0, running=True), seen_of(in_flight=1), 1.0, 100 * S)


def test_a_page_that_cannot_be_read_is_tried_less_and_less_often() -> None:
    seen = seen_of(in_flight=1)
    assert not is_due(_Visit(0, seen.activity, running=False, failures=5), seen, 1.0, 4 * S)
    assert is_due(_Visit(0, seen.activity, running=False, failures=100), seen, 1.0, 10 * S)


@asynccontextmanager
async def engine(page: bytes) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(page), page))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def test_pages_reach_the_view_and_one_that_fails_leaves_the_last_numbers() -> None:
    async def body() -> None:
        view = View(NODE)
        news = asyncio.Event()
        async with engine(PAGE) as port:
            view.place([pod("a", "u1", (port,), "127.0.0.1")], {place("a", "u1", port): Owner(0, 1)})
            pages = EnginePages(view, 0.02, news.set)
            task = asyncio.create_task(pages.run())
            await news.wait()
        while not pages.failed:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        seen = view.get(place("a", "u1", port))
        assert seen is not None
        assert seen.engine is not None
        assert (seen.engine.metrics.engine, seen.engine.metrics.running, seen.engine.metrics.waiting) == ("vllm", 3, 1)

    run(body())


def test_an_engine_whose_page_is_elsewhere_is_found_by_what_the_page_contains() -> None:
    """trtllm-serve gives JSON at /metrics."""
    page = (DATA / "engines" / "trtllm_serve.txt").read_bytes()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            request = await reader.readuntil(b"\r\n\r\n")
            body = page if request.startswith(b"GET /prometheus/metrics ") else b"[]"
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async def body() -> None:
        view, news = View(NODE), asyncio.Event()
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            view.place([pod("a", "u1", (port,), "127.0.0.1")], {place("a", "u1", port): Owner(0, 1)})
            pages = EnginePages(view, 0.02, news.set)
            task = asyncio.create_task(pages.run())
            await news.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        (report,) = view.frame(None, 0).endpoints
        assert (report.engine.engine, report.engine.running, report.engine.kv_blocks) == ("trtllm-serve", 6, 8192)
        assert (pages.read, pages.failed) == (1, 0)

    run(body())


def test_numbers_are_as_old_as_the_request_for_them() -> None:
    """An engine that takes five seconds to write its page wrote it some time in these."""
    clock = [1 * S]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            clock[0] = 6 * S
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(PAGE), PAGE))

    async def body() -> None:
        view, news = View(NODE), asyncio.Event()
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            view.place([pod("a", "u1", (port,), "127.0.0.1")], {place("a", "u1", port): Owner(0, 1)})
            task = asyncio.create_task(EnginePages(view, 1.0, news.set, lambda: clock[0]).run())
            await news.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert view.frame(None, 6 * S).endpoints[0].engine.age_us == 5_000_000

    run(body())
