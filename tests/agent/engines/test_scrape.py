import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest

from agent.engines.scrape import PAGE_LIMIT_BYTES, ScrapeError, Scraper
from controller.gateway.tls import self_signed
from tests.conftest import run

HOST = "127.0.0.1"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"


class Engine:
    """Answers each request with the next of `answers` (the last one again and again); None hangs up."""

    def __init__(self, *answers: bytes | None, hang: bool = False) -> None:
        self.answers = list(answers)
        self.hang = hang
        self.requests: list[bytes] = []
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is None:
                    return
                writer.write(answer)
                if not self.hang and b"Content-Length" not in answer and b"chunked" not in answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def engine(*answers: bytes | None, hang: bool = False):
    made = Engine(*answers, hang=hang)
    server = await asyncio.start_server(made.serve, HOST, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.writers:
            if not writer.is_closing():
                writer.transport.abort()
        await asyncio.sleep(0)


def fetch_from(*answers: bytes | None, times: int = 1, timeout_s: float = 5) -> tuple[list[bytes], Engine]:
    async def body() -> tuple[list[bytes], Engine]:
        async with engine(*answers) as server:
            scraper = Scraper()
            try:
                pages = [await scraper.fetch(HOST, server.port, "/metrics", timeout_s) for _ in range(times)]
            finally:
                scraper.close()
            return pages, server

    return run(body())


def test_two_pages_come_over_one_connection():
    pages, server = fetch_from(PLAIN, times=2)
    assert (pages, server.connections) == ([b"page", b"page"], 1)


def test_the_request_names_path_and_host():
    _, server = fetch_from(PLAIN)
    assert server.requests[0].startswith(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % server.port)


def test_a_chunked_page_is_joined_and_the_connection_kept():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\npa\r\n2\r\nge\r\n0\r\nTrailer: 1\r\n\r\n"
    pages, server = fetch_from(chunked, times=2)
    assert (pages, server.connections) == ([b"page", b"page"], 1)


def test_a_page_without_length_ends_with_the_connection():
    pages, server = fetch_from(b"HTTP/1.0 200 OK\r\n\r\npage", times=2)
    assert (pages, server.connections) == ([b"page", b"page"], 2)


def test_connection_close_is_honoured():
    pages, server = fetch_from(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\npage", times=2)
    assert (pages, server.connections) == ([b"page", b"page"], 2)


def test_a_kept_connection_that_the_server_closed_is_made_anew():
    pages, server = fetch_from(PLAIN, None, PLAIN, times=2)
    assert (pages, server.connections) == ([b"page", b"page"], 2)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "status 503 Busy"),
        (b"SSH-2.0-OpenSSH\r\n", "not an HTTP/1 answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (PAGE_LIMIT_BYTES + 1), "the limit is"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "not a number"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not a hexadecimal number"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(PAGE_LIMIT_BYTES + 1), "the limit is"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000 + b"\r\n\r\n", "header line exceeds"),
        (b"HTTP/1.1 200", "ended inside the answer"),
        (None, "ended before an answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_that_is_no_page_is_an_error_that_says_why(answer, reason):
    with pytest.raises(ScrapeError, match=reason):
        fetch_from(answer)


def test_nobody_listening_is_an_error_that_says_where():
    async def body() -> None:
        async with engine(PLAIN) as server:
            port = server.port
        with pytest.raises(ScrapeError, match=f"http://127.0.0.1:{port}/metrics: "):
            await Scraper().fetch(HOST, port, "/metrics", 5)

    run(body())


def test_a_host_that_is_none_is_an_error():
    with pytest.raises(ScrapeError):
        run(Scraper().fetch("a..b", 80, "/metrics", 5))


def test_silence_ends_with_the_time_limit():
    async def body() -> None:
        async with engine(b"", hang=True) as server:
            with pytest.raises(ScrapeError, match=r"no answer within 0\.05 s"):
                await Scraper().fetch(HOST, server.port, "/metrics", 0.05)

    run(body())


def test_an_address_no_longer_wanted_is_disconnected():
    async def body() -> None:
        async with engine(PLAIN) as server:
            scraper = Scraper()
            await scraper.fetch(HOST, server.port, "/metrics", 5)
            scraper.keep_only([])
            await scraper.fetch(HOST, server.port, "/metrics", 5)
            scraper.close()
            assert server.connections == 2

    run(body())


def test_a_page_behind_tls_is_read_whoever_signed_it(tmp_path):
    key, certificate = self_signed()
    (tmp_path / "pair.pem").write_bytes(key + certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "pair.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PLAIN)
        await reader.read()
        writer.close()

    async def body() -> None:
        async with await asyncio.start_server(serve, HOST, 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            scraper = Scraper()
            assert await scraper.fetch(HOST, port, "/metrics", 5, tls=True) == b"page"
            scraper.close()

    run(body())


def test_a_plain_server_asked_for_tls_is_an_error():
    async def body() -> None:
        async with engine(b"") as server:
            with pytest.raises(ScrapeError, match=f"https://127.0.0.1:{server.port}/metrics: "):
                await Scraper().fetch(HOST, server.port, "/metrics", 0.5, tls=True)

    run(body())
