"""The HTTP edge of the metrics port: Prometheus text, the state as JSON, and the live page where it is wanted.

Every connection has a thread of its own and a time limit, so what reads slowly holds nothing else. Answers GET and
HEAD only and takes nothing from a request but its path. Refuses to know what the documents hold.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socket import AF_INET, AF_INET6, SHUT_RDWR, socket
from typing import Any

from agent.exporting.exposition import CONTENT_TYPE
from agent.exporting.metrics_server import packed
from controller.looking.live import Board

log = logging.getLogger(__name__)

# A connection on which nothing moves for so long, in either direction, is given up.
STUCK_S = 20.0

FILES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "stream.js": "text/javascript; charset=utf-8",
    "pods.js": "text/javascript; charset=utf-8",
    "row.js": "text/javascript; charset=utf-8",
    "badges.js": "text/javascript; charset=utf-8",
    "past.js": "text/javascript; charset=utf-8",
    "picks.js": "text/javascript; charset=utf-8",
    "parts.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
SAFETY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NO_STORE = {"Cache-Control": "no-store"}
PAGE_IS_OFF = b"the live page is off: start sonde-controller with --ui\n"
EXPLAIN_IS_OFF = b"picks are not explained: start sonde-controller with --explain-sample N\n"
READ_ONLY = b"nothing can be changed here: GET and HEAD only\n"


@dataclass(frozen=True, slots=True)
class Pages:
    """What is served beside the metrics, by what may be called from any thread. None: it is off."""

    state: Callable[[], bytes]
    board: Board | None = None
    explain: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class _File:
    kind: str
    body: bytes
    tag: str


def _files() -> Mapping[str, _File]:
    folder = resources.files("controller.looking") / "ui"
    found = {}
    for name, kind in FILES.items():
        body = (folder / name).read_bytes()
        found[name] = _File(kind, body, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
    return found


class _Handler(BaseHTTPRequestHandler):
    metrics: Callable[[], Iterable[str]]
    pages: Pages
    files: Mapping[str, _File]
    timeout = STUCK_S
    disable_nagle_algorithm = True  # events are small and shall not wait for each other
    server_version = "sonde"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/state":
            self._waiting(lambda: self._answer(200, "application/json", self.pages.state(), NO_STORE))
        elif path == "/debug/explain":
            self._explain()
        elif path == "/ui" or path.startswith("/ui/"):
            self._page(path.removeprefix("/ui"))
        else:
            self._waiting(self._metrics)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """A scrape each few seconds is no news."""

    def _metrics(self) -> None:
        body, more = packed(type(self).metrics(), self.headers.get("Accept-Encoding", ""))
        self._answer(200, CONTENT_TYPE, body, more)

    def _refuse(self) -> None:
        self._answer(405, "text/plain; charset=utf-8", READ_ONLY, {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _waiting(self, answer: Callable[[], None]) -> None:
        """Answers with what the event loop makes, which may be too busy to."""
        try:
            answer()
        except TimeoutError:
            self._answer(503, "text/plain; charset=utf-8", b"too busy to answer\n", {"Retry-After": "1"})

    def _explain(self) -> None:
        explain = self.pages.explain
        if explain is None:
            self._answer(404, "text/plain; charset=utf-8", EXPLAIN_IS_OFF, {})
        else:
            self._waiting(lambda: self._answer(200, "application/json", explain(), NO_STORE))

    def _page(self, name: str) -> None:
        if self.pages.board is None:
            self._answer(404, "text/plain; charset=utf-8", PAGE_IS_OFF, {})
        elif not name:
            self._answer(308, "text/plain", b"", {"Location": "ui/"})  # relative: proxies put paths in front
        elif name == "/events":
            self._events(self.pages.board)
        elif (file := self.files.get(name[1:] or "index.html")) is None:
            self._answer(404, "text/plain; charset=utf-8", b"no such page\n", {})
        elif self.headers.get("If-None-Match") == file.tag:
            self._answer(304, file.kind, b"", {"ETag": file.tag})
        else:
            self._answer(200, file.kind, file.body, {"ETag": file.tag, "Cache-Control": "no-cache"})

    def _events(self, board: Board) -> None:
        if self.command == "HEAD":
            self._answer(200, "text/event-stream", b"", NO_STORE)
            return
        if not board.join():
            self._answer(503, "text/plain; charset=utf-8", b"too many viewers\n", {"Retry-After": "5"})
            return
        try:
            self._head(200, "text/event-stream", NO_STORE)
            for event in board.events():
                self.wfile.write(event)
        finally:
            board.leave()

    def _answer(self, status: int, kind: str, body: bytes, more: Mapping[str, str]) -> None:
        self._head(status, kind, {"Content-Length": str(len(body)), **more} if status != 304 else more)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, kind: str, more: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **SAFETY, **more}.items():
            self.send_header(name, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a viewer that hangs does not hold up the end of the process
    request_queue_size = 64

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Called while the exception is handled: one that went away is no fault of ours."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            log.debug("%s: %s", client_address, error)
        else:
            log.error("answering %s", client_address, exc_info=error)


def serve(
    metrics: Callable[[], Iterable[str]], bind: str, port: int, pages: Pages, stuck_s: float = STUCK_S
) -> tuple[int, Callable[[], None]]:
    """Serves from threads of its own, which give up who takes nothing for `stuck_s`.

    Returns the port and what ends it. Raises OSError.
    """
    own = {"metrics": staticmethod(metrics), "pages": pages, "files": _files(), "timeout": stuck_s}
    handler = type("Handler", (_Handler,), own)
    family = {"address_family": AF_INET6 if ":" in bind else AF_INET}
    try:
        server = type("Server", (_Server,), family)((bind, port), handler)
    except OSError as error:
        raise OSError(f"cannot listen at {bind}:{port} for metrics: {error.strerror or error}") from error
    ended = threading.Event()

    def accept() -> None:
        # serve_forever() would look again and again whether it shall end
        while not ended.is_set():
            server.handle_request()

    thread = threading.Thread(target=accept, name="web", daemon=True)
    thread.start()

    def close() -> None:
        ended.set()
        server.socket.shutdown(SHUT_RDWR)  # wakes who waits for the next connection
        thread.join()
        server.server_close()

    return int(server.server_port), close
