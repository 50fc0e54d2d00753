"""The metrics port over real sockets: what it answers, to whom, and for how long."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources

import pytest

from controller.choosing.lastpicks import LastPicks
from controller.looking import web
from controller.looking.document import Document, Summary, document
from controller.looking.live import Board, Live
from tests.conftest import run
from tests.controller.known import pod, table

SUMMARY = Summary("default", "p", True, "sonde", 0, 0, 0)
LIMIT_S = 20


@contextmanager
def served(
    board: Board | None, state=lambda: b"{}", bind: str = "127.0.0.1", explain=None, stuck_s: float = web.STUCK_S
) -> Iterator[int]:
    port, close = web.serve(lambda: ["answer 42.0\n"], bind, 0, web.Pages(state, board, explain), stuck_s)
    try:
        yield port
    finally:
        if board:
            board.close()
        close()


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str):
    connection = http.client.HTTPConnection(host, port, timeout=LIMIT_S)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/metrics", "/", "/metrics?name[]=answer"])
def test_metrics_are_where_they_were(path: str) -> None:
    with served(None) as port:
        answer, body = ask(port, path)
    assert (answer.status, b"answer 42.0" in body) == (200, True)


@pytest.mark.parametrize("path", ["/ui", "/ui/", "/ui/events", "/ui/main.js"])
def test_without_the_flag_there_is_no_page_and_the_answer_says_how_to_get_it(path: str) -> None:
    with served(None) as port:
        answer, body = ask(port, path)
    assert (answer.status, body) == (404, web.PAGE_IS_OFF)


def test_the_state_is_there_without_the_page_too() -> None:
    with served(None, lambda: b'{"a":1}') as port:
        answer, body = ask(port, "/state")
    assert (answer.status, answer.headers["content-type"], body) == (200, "application/json", b'{"a":1}')


def test_a_loop_too_busy_to_answer_is_503_and_not_a_broken_connection() -> None:
    def busy() -> bytes:
        raise TimeoutError

    with served(None, busy) as port:
        assert ask(port, "/state")[0].status == 503


def test_every_file_of_the_page_is_served_with_the_policy_and_nothing_else_is() -> None:
    with served(Board()) as port:
        for name in web.FILES:
            answer, body = ask(port, f"/ui/{name}")
            assert (answer.status, body) == (200, (resources.files("controller.looking") / "ui" / name).read_bytes())
            assert answer.headers["content-security-policy"] == web.POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert ask(port, "/ui/")[1] == ask(port, "/ui/index.html")[1]
        for other in ("/ui/../web.py", "/ui/%2e%2e/web.py", "/ui/x", "/ui//"):
            assert ask(port, other)[0].status == 404
    assert {file.name for file in (resources.files("controller.looking") / "ui").iterdir()} == web.FILES.keys()


def test_the_policy_lets_in_nothing_from_elsewhere_and_nothing_inline() -> None:
    assert "default-src 'none'" in web.POLICY
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "data:", "http:", "https:"} & set(web.POLICY.split())
    page = (resources.files("controller.looking") / "ui" / "index.html").read_text()
    assert "style=" not in page
    assert "://" not in page


def test_the_address_without_a_slash_leads_to_the_one_with_it_wherever_it_is_mounted() -> None:
    with served(Board()) as port:
        answer, _ = ask(port, "/ui")
    assert (answer.status, answer.headers["location"]) == (308, "ui/")


def test_an_unchanged_file_is_not_sent_again() -> None:
    with served(Board()) as port:
        tag = ask(port, "/ui/main.js")[0].headers["etag"]
        answer, body = ask(port, "/ui/main.js", If_None_Match=tag)
    assert (answer.status, body) == (304, b"")


@pytest.mark.parametrize("path", ["/metrics", "/state", "/ui/", "/ui/events"])
def test_it_is_read_only(path: str) -> None:
    with served(Board()) as port:
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer, _ = ask(port, path, method)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
        answer, body = ask(port, path, "HEAD")
        assert (answer.status, body) == (200, b"")


def test_a_port_that_is_taken_is_said() -> None:
    with served(None) as port, pytest.raises(OSError, match=f"cannot listen at 127.0.0.1:{port} for metrics"):
        web.serve(lambda: [], "127.0.0.1", port, web.Pages(lambda: b""))


def test_it_listens_on_ipv6_too() -> None:
    with served(None, bind="::1") as port:
        assert ask(port, "/metrics", host="::1")[0].status == 200


async def _events(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    writer.write(b"GET /ui/events HTTP/1.1\r\nhost: x\r\n\r\n")
    return reader, writer


async def _heading(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


@contextmanager
def live(board: Board, pods: int = 1, stuck_s: float = web.STUCK_S) -> Iterator[tuple[int, Live]]:
    made = table(*(replace(pod("a"), name=f"pod-{at}", ip=f"10.0.{at // 250}.{at % 250 + 1}") for at in range(pods)))
    with served(board, stuck_s=stuck_s) as port:
        yield port, Live(lambda: document(made, made.ranks(0.0), LastPicks(), SUMMARY, 0.0), board)


def test_events_come_one_after_the_other_until_the_end() -> None:
    async def body() -> None:
        board = Board()
        with live(board) as (port, page):
            ticking = asyncio.create_task(page.run())
            reader, writer = await _events(port)
            head = await _heading(reader)
            assert b" 200 " in head.splitlines()[0]
            assert b"text/event-stream" in head
            assert await reader.readuntil(b"\n\n") == b"retry: 1000\n\n"
            assert (await reader.readuntil(b"\n\n")).startswith(b"event: full\nid: 1\n")
            assert (await reader.readuntil(b"\n\n")).startswith(b"event: step\nid: 2\n")
            board.close()
            await reader.read()  # its end
            writer.close()
            ticking.cancel()

    run(body())


def test_more_viewers_than_the_limit_are_told_so_and_one_that_leaves_makes_room() -> None:
    async def body() -> None:
        board = Board(limit=1)
        with live(board) as (port, page):
            ticking = asyncio.create_task(page.run())
            first, writer = await _events(port)
            await first.readuntil(b"event: full")
            second, other = await _events(port)
            assert b" 503 " in (await _heading(second)).splitlines()[0]
            other.close()
            writer.close()
            while board.viewers:
                await asyncio.sleep(0.05)
            third, writer = await _events(port)
            assert b" 200 " in (await _heading(third)).splitlines()[0]
            writer.close()
            ticking.cancel()

    run(body())


def test_a_fault_in_making_the_page_ends_the_page_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        board = Board()

        def broken() -> Document:
            raise ValueError("no such document")

        with served(board) as port:
            await Live(broken, board).run()  # returns, so that a group of tasks goes on
            reader, writer = await _events(port)
            assert b" 503 " in (await _heading(reader)).splitlines()[0]
            writer.close()
            assert (await asyncio.to_thread(ask, port, "/metrics"))[0].status == 200

    run(body())
    assert "the live page cannot be made" in caplog.text


def test_a_viewer_that_reads_nothing_holds_up_nobody() -> None:
    """Its pages fill the socket's buffers; others go on, metrics too, and in the end it is given up."""

    async def body() -> None:
        board = Board()
        with live(board, pods=400, stuck_s=1.0) as (port, page):
            stuck = socket.socket()
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(("127.0.0.1", port))
            stuck.sendall(b"GET /ui/events HTTP/1.1\r\n\r\n")
            while not board.viewers:
                await asyncio.sleep(0.01)
            reader, writer = await _events(port)
            seen = 0
            while board.viewers == 2 or seen < 3:
                page._edition = None  # every edition is a full one, large enough to fill any buffer soon
                page._tick(point=True)
                await reader.readuntil(b"event: full")
                seen += 1
                assert (await asyncio.to_thread(ask, port, "/metrics"))[0].status == 200
            assert board.viewers == 1
            stuck.close()
            writer.close()

    run(body(), timeout_s=60, debug=False)


def test_picks_are_explained_only_where_somebody_asked_for_it() -> None:
    with served(None) as port:
        answer, body = ask(port, "/debug/explain")
        assert (answer.status, b"--explain-sample" in body) == (404, True)
    with served(None, explain=lambda: b"[1]") as port:
        answer, body = ask(port, "/debug/explain")
        assert (answer.status, answer.getheader("Content-Type"), body) == (200, "application/json", b"[1]")
