"""The metrics page over HTTP."""

from __future__ import annotations

import contextlib
import gzip
import http.client
from collections.abc import Callable, Iterable, Iterator

import pytest

from agent.exporting.exposition import CONTENT_TYPE
from agent.exporting.metrics_server import serve

PIECES = ["# HELP g Text.\n# TYPE g gauge\n", "g 1\n"]
PAGE = "".join(PIECES).encode()


@contextlib.contextmanager
def served(page: Callable[[], Iterable[str]], bind: str = "127.0.0.1") -> Iterator[int]:
    port, close = serve(page, bind, 0)
    try:
        yield port
    finally:
        close()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_the_page_is_at_its_path_and_wherever_else_a_scraper_looks() -> None:
    with served(lambda: PIECES) as port:
        status, headers, body = ask(port, "/metrics?x=1")
        assert (status, body, headers["content-type"]) == (200, PAGE, CONTENT_TYPE)
        assert ask(port, "/")[2] == PAGE


@pytest.mark.parametrize(("accepted", "zipped"), [("gzip", True), ("br, gzip;q=1.0", True), ("gzip;q=0", False)])
def test_who_accepts_gzip_gets_it(accepted: str, zipped: bool) -> None:
    with served(lambda: PIECES) as port:
        _, headers, body = ask(port, "/metrics", accept_encoding=accepted)
    assert (headers.get("content-encoding") == "gzip") == zipped
    assert (gzip.decompress(body) if zipped else body) == PAGE


def test_head_has_no_body() -> None:
    with served(lambda: PIECES) as port:
        status, headers, body = ask(port, "/metrics", "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(PAGE)), b"")


def test_a_daemon_too_busy_to_tell_says_so_instead_of_half_a_page() -> None:
    def late() -> Iterator[str]:
        yield "# HELP"
        raise TimeoutError

    with served(late) as port:
        status, _, body = ask(port, "/metrics")
    assert status == 503
    assert b"too busy" in body


def test_a_taken_port_is_refused_in_one_line_that_names_it() -> None:
    with served(lambda: PIECES) as port, pytest.raises(OSError, match=rf"cannot listen at 127\.0\.0\.1:{port} "):
        serve(lambda: PIECES, "127.0.0.1", port)


def test_a_name_that_is_no_address_is_refused_in_one_line() -> None:
    with pytest.raises(OSError, match=r"cannot listen at nowhere\.invalid:0"):
        serve(lambda: PIECES, "nowhere.invalid", 0)


def test_it_ends_while_a_client_holds_its_connection() -> None:
    with (
        served(lambda: PIECES) as port,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection,
    ):
        connection.request("GET", "/metrics")
        assert connection.getresponse().read() == PAGE


def test_the_state_is_json_beside_the_page() -> None:
    port, close = serve(lambda: PIECES, "127.0.0.1", 0, lambda: b'{"node": "n"}')
    try:
        status, headers, body = ask(port, "/state")
        assert (status, headers["content-type"], body) == (200, "application/json", b'{"node": "n"}')
        assert ask(port, "/metrics")[2] == PAGE
    finally:
        close()


def test_without_a_state_its_path_is_the_page_as_any_other() -> None:
    with served(lambda: PIECES) as port:
        assert ask(port, "/state")[2] == PAGE
