"""Serves one metrics page over HTTP from threads of its own, and the state as JSON beside it; knows no metric.

`GET` of any path but /state is the page, compressed for who accepts that. A page that cannot be made in time is a 503
with one line of why, never half a page: Prometheus would take what is missing for gone.
"""

from __future__ import annotations

import logging
import socket
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from agent.exporting.exposition import CONTENT_TYPE, encoded

log = logging.getLogger(__name__)

Page = Callable[[], Iterable[str]]  # in pieces; may be called in any thread and in several at once; raises TimeoutError
State = Callable[[], bytes]  # one JSON document, under the same conditions
STATE_PATH = "/state"

IDLE_LIMIT_S = 30.0  # a scraper that says nothing for so long loses its connection
# the first level: a page is so repetitive that it shrinks to a twentieth, and the next levels take twice the time
LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a scraper that hangs must not keep the daemon from ending
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily, page: Page, state: State | None) -> None:
        self.address_family = family
        self.page = page
        self.state = state
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A scraper that went away in the middle is its own affair."""
        log.debug("scrape from %s ended early", client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_LIMIT_S
    server: _Server

    def do_GET(self) -> None:
        try:
            if self.server.state is not None and self.path.partition("?")[0] == STATE_PATH:
                self._answer(200, "application/json", self.server.state(), {"Cache-Control": "no-store"})
                return
            body, more = packed(self.server.page(), self.headers.get("Accept-Encoding", ""))
        except TimeoutError:
            self._answer(503, "text/plain; charset=utf-8", b"the daemon is too busy to tell its metrics now\n", {})
            return
        self._answer(200, CONTENT_TYPE, body, more)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """A scrape each few seconds is no news."""

    def _answer(self, status: int, kind: str, body: bytes, more: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def packed(page: Iterable[str], accepted: str) -> tuple[bytes, Mapping[str, str]]:
    """The body for who accepts these codings, and the headers that go with it.

    Compressed piece by piece: the whole text at once, some megabytes, takes a quarter more processor time.
    """
    if not _takes_gzip(accepted):
        return b"".join(map(encoded, page)), {"Vary": "Accept-Encoding"}
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
    body = b"".join((*(packer.compress(encoded(piece)) for piece in page), packer.flush()))
    return body, {"Vary": "Accept-Encoding", "Content-Encoding": "gzip"}


def _takes_gzip(accepted: str) -> bool:
    for entry in accepted.lower().split(","):
        coding, _, parameters = entry.partition(";")
        if coding.strip() == "gzip":
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def serve(page: Page, bind: str, port: int, state: State | None = None) -> tuple[int, Callable[[], None]]:
    """Returns the port and what ends it. Raises OSError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = _Server((str(address[0]), port), family, page, state)
    except OSError as error:
        raise OSError(f"cannot listen at {bind}:{port} for metrics: {error.strerror or error}") from error
    ended = threading.Event()

    def accept() -> None:
        # serve_forever() would look again and again whether it shall end
        while not ended.is_set():
            server.handle_request()

    thread = threading.Thread(target=accept, name="metrics", daemon=True)
    thread.start()

    def close() -> None:
        ended.set()
        server.socket.shutdown(socket.SHUT_RDWR)  # wakes who waits for the next connection
        thread.join()
        server.server_close()

    return server.server_port, close
