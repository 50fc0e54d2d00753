"""The simulated engine's HTTP side: connections in, the bytes vLLM would write out, each write logged.

One event is one write, the end of the stream two more, as measured on vLLM. Knows nothing of batching.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import deque
from dataclasses import dataclass
from typing import cast

from lab.engines import control, http1, openai, page
from lab.engines.engine import Engine
from lab.engines.truth import CLIENT_ABORTED, COMPLETED, REFUSED, Log, Record

IDLE_TIMEOUT_S = 5.0  # vLLM's VLLM_HTTP_TIMEOUT_KEEP_ALIVE
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@dataclass(slots=True)
class Server:
    """What the connections of one engine share."""

    engine: Engine
    pod: str
    log: Log | None
    idle_timeout_s: float = IDLE_TIMEOUT_S

    async def listen(self, host: str, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        # asyncio sets TCP_NODELAY on every connection
        return await loop.create_server(lambda: Connection(self), host, port, backlog=1024)

    def record(self, record: Record) -> None:
        if self.log is not None:
            self.log.write(record)


@dataclass(slots=True)
class _Request:
    head: http1.Head
    first_byte_ns: int
    body: bytes = b""
    whole_ns: int = 0

    @property
    def path(self) -> str:
        return self.head.first[1].split("?")[0]


class Connection(asyncio.Protocol):
    """One client connection: answers its requests one after the other."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peer_port = 0
        self._reader = http1.Reader(responses=False)
        self._begun_ns: int | None = None
        self._incoming: _Request | None = None
        self._queue: deque[_Request] = deque()
        self._exchange: Exchange | None = None
        self._keep = True
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.peer_port = self.transport.get_extra_info("peername")[1]
        self._wait_idle()

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        if self._idle is not None:
            self._idle.cancel()
        if self._reader.idle:
            self._begun_ns = now_ns
        try:
            for event in self._reader.feed(data):
                self._take(event, now_ns)
        except http1.FramingError:
            self._keep = False
            self.transport.write(http1.response_head(400, "text/plain; charset=utf-8", 31, close=True))
            self.transport.write(b"Invalid HTTP request received.\n")
            self.transport.close()
            return
        self._serve_next()

    def eof_received(self) -> bool:
        return False  # vLLM takes a half-close for the client's abort, too

    def connection_lost(self, error: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._exchange is not None:
            self._exchange.abort()

    def exchange_ended(self) -> None:
        self._exchange = None
        if self.transport.is_closing():
            return
        if self._keep:
            self._wait_idle()
            asyncio.get_running_loop().call_soon(self._serve_next)
        else:
            self.transport.close()

    def _take(self, event: http1.Event, now_ns: int) -> None:
        if isinstance(event, http1.Head):
            self._incoming = _Request(event, self._begun_ns or now_ns)
            self._begun_ns = now_ns  # a pipelined next request began with these bytes as well
        elif isinstance(event, http1.Data):
            if self._incoming is not None:
                self._incoming.body += event.payload
        elif self._incoming is not None:
            self._incoming.whole_ns = now_ns
            self._queue.append(self._incoming)
            self._incoming = None

    def _serve_next(self) -> None:
        if self._exchange is not None or not self._queue or self.transport.is_closing():
            return
        request = self._queue.popleft()
        self._keep = request.head.headers.get("connection", "").lower() != "close"
        self._exchange = Exchange(self, request)
        self._exchange.begin()

    def _wait_idle(self) -> None:
        if self._queue:
            return
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self.server.idle_timeout_s, self.transport.close)


class Exchange:
    """One request and its answer."""

    _numbers = itertools.count(1)

    def __init__(self, connection: Connection, request: _Request) -> None:
        self._connection = connection
        self._server = connection.server
        self._engine = connection.server.engine
        self._request = request
        self._sequence: int | None = None
        self._comments: asyncio.TimerHandle | None = None
        self._answer: openai.Answer | None = None
        self._record = Record(
            pod=self._server.pod,
            peer_port=connection.peer_port,
            path=request.path,
            request_id=request.head.headers.get("x-request-id"),
            first_byte_ns=request.first_byte_ns,
            request_ns=request.whole_ns,
        )

    def begin(self) -> None:
        method, path = self._request.head.first[0], self._request.path
        if path in (CHAT, COMPLETIONS):
            if method == "POST":
                self._generate(path == CHAT)
            else:
                self._plain(405, b'{"detail":"Method Not Allowed"}', REFUSED)
        elif path == "/health":
            self._unlogged(b"", "text/plain")
        elif path == "/metrics":
            self._unlogged(self._engine.metrics_page(), page.CONTENT_TYPE)
        elif path == control.KNOBS:
            status, body = control.turn_knobs(self._engine, self._request.head.first, self._request.body)
            self._unlogged(body, "application/json", status)
        elif path == "/v1/models":
            card = {"id": self._engine.name, "object": "model", "max_model_len": self._engine.model.kv_tokens}
            self._unlogged(json.dumps({"object": "list", "data": [card]}).encode(), "application/json")
        else:
            self._plain(404, b'{"detail":"Not Found"}', REFUSED)

    def token(self, index: int, last: bool) -> None:
        """The engine made a token. Streams it, or answers with all of them after the last."""
        assert self._answer is not None
        if not self._record.stream:
            if last:
                self._plain(200, self._answer.whole(), COMPLETED)
            return
        self._stop_comments()
        if self._record.header_ns is None:
            self._stream_head()
        if index == 0 and self._answer.asked.chat:
            self._data(self._answer.role_event())
        self._data(self._answer.token_event(index, last))
        if last:
            self._stream_end()

    def abort(self) -> None:
        """The client has gone: frees the request."""
        self._stop_comments()
        if self._sequence is not None:
            self._engine.cancel(self._sequence)
        self._end(CLIENT_ABORTED)

    def _generate(self, chat: bool) -> None:
        try:
            asked = openai.read(self._request.body, chat, self._engine.name, self._engine.model.kv_tokens)
        except openai.Refused as refused:
            self._plain(refused.status, refused.body(), REFUSED)
            return
        self._record.stream = asked.stream
        self._record.prompt_tokens, self._record.output_tokens = asked.prompt_tokens, asked.output_tokens
        kind = "chatcmpl" if chat else "cmpl"
        self._answer = openai.Answer(f"{kind}-{next(self._numbers)}", self._engine.name, int(time.time()), asked)
        if asked.stream and self._engine.knobs.header_early:
            self._stream_head()
        if asked.stream and self._engine.knobs.keep_alive_s is not None:
            self._next_comment(self._engine.knobs.keep_alive_s)
        self._sequence = self._engine.submit(asked.prompt_tokens, asked.output_tokens, self, asked.words)

    def _stream_head(self) -> None:
        self._record.status, self._record.header_ns = 200, time.monotonic_ns()
        self._write(http1.response_head(200, "text/event-stream; charset=utf-8", None, self._server.pod))

    def _stream_end(self) -> None:
        assert self._answer is not None
        if self._answer.asked.include_usage:
            self._data(self._answer.usage_event())
        self._record.done_ns = time.monotonic_ns()
        self._write(http1.chunk(openai.DONE))
        self._record.end_ns = time.monotonic_ns()
        self._write(http1.LAST_CHUNK)
        self._end(COMPLETED)

    def _data(self, event: bytes) -> None:
        framed = http1.chunk(event)
        self._record.data_ns.append(time.monotonic_ns())
        self._write(framed)

    def _next_comment(self, every_s: float) -> None:
        self._comments = asyncio.get_running_loop().call_later(every_s, self._comment, every_s)

    def _comment(self, every_s: float) -> None:
        if self._record.header_ns is None:
            self._stream_head()
        self._record.comment_ns.append(time.monotonic_ns())
        self._write(http1.chunk(openai.COMMENT))
        self._next_comment(every_s)

    def _stop_comments(self) -> None:
        if self._comments is not None:
            self._comments.cancel()
            self._comments = None

    def _plain(self, status: int, body: bytes, outcome: str) -> None:
        """A JSON answer: header and body are two writes, as vLLM's server makes them."""
        self._record.status, self._record.header_ns = status, time.monotonic_ns()
        self._write(http1.response_head(status, "application/json", len(body), self._server.pod))
        self._record.end_ns = time.monotonic_ns()
        self._record.data_ns.append(self._record.end_ns)
        self._write(body)
        self._end(outcome)

    def _unlogged(self, body: bytes, content_type: str, status: int = 200) -> None:
        """Health checks, scrapes and turns of the knobs are nobody's requests."""
        self._connection.transport.write(http1.response_head(status, content_type, len(body)) + body)
        self._connection.exchange_ended()

    def _write(self, data: bytes) -> None:
        self._record.bytes += len(data)
        self._connection.transport.write(data)

    def _end(self, outcome: str) -> None:
        self._record.outcome = outcome
        if self._record.end_ns is None:
            self._record.end_ns = time.monotonic_ns()
        self._server.record(self._record)
        self._connection.exchange_ended()
