"""The load generator: sends a schedule at its times whatever the answers do, and writes down what came back when.

Open loop: no request waits for another. Times are seconds of the event loop's clock from the start of the schedule.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from lab.contests.workload import Request
from lab.engines import http1

WORD = "the "
IDLE_LIMIT_S = 3.0  # below the 5 s after which vLLM closes


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request. None where something did not happen; `error` is None for a whole answer."""

    request: Request
    sent_s: float
    header_s: float | None
    first_data_s: float | None
    end_s: float | None
    gaps_s: tuple[float, ...]  # between arrivals of data after the first
    events: int  # `data:` events other than [DONE]
    status: int | None
    pod: str | None
    error: str | None

    @property
    def ttft_s(self) -> float | None:
        """From the time it was due, so that a late generator hides nothing."""
        return None if self.first_data_s is None else self.first_data_s - self.request.at_s


@dataclass(slots=True)
class Progress:
    """What a watcher may look at while the load runs."""

    total: int
    sent: int = 0
    ended: int = 0
    failed: int = 0
    by_pod: Counter[str] = field(default_factory=Counter)  # requests whose answer has begun
    results: list[Result] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send, and what to ask for."""

    host: str
    port: int
    model: str
    timeout_s: float = 60.0
    label: str = "lab"  # begins every x-request-id
    keep_alive: bool = True  # False: a new connection for each request


async def send(
    schedule: Sequence[Request], target: Target, progress: Progress | None = None, begin_s: float | None = None
) -> tuple[Result, ...]:
    """Sends all requests and waits for all answers. Results are in the order of the schedule.

    `begin_s`: when the schedule starts, on the loop's clock, so that several senders can start it together; else now.
    """
    watched = progress or Progress(len(schedule))
    pool = Pool(target.host, target.port, target.keep_alive)
    started_s = asyncio.get_running_loop().time() if begin_s is None else begin_s

    async def one(request: Request) -> Result:
        result = await _exchange(request, target, pool, started_s, watched.by_pod)
        watched.ended += 1
        watched.failed += result.error is not None
        watched.results.append(result)
        return result

    try:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for request in schedule:
                await asyncio.sleep(started_s + request.at_s - asyncio.get_running_loop().time())
                tasks.append(group.create_task(one(request), name=f"request {request.index}"))
                watched.sent += 1
        return tuple(task.result() for task in tasks)
    finally:
        pool.close()


class Pool:
    """Idle keep-alive connections to one address, the most recently used first."""

    def __init__(self, host: str, port: int, keep_alive: bool = True) -> None:
        self._host = host
        self._port = port
        self._keep_alive = keep_alive
        self._idle: list[tuple[float, Client]] = []

    async def take(self) -> Client:
        while self._idle:
            since_s, client = self._idle.pop()
            if client.usable and time.monotonic() - since_s < IDLE_LIMIT_S:
                return client
            client.close()
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(Client, self._host, self._port)
        return client

    def give(self, client: Client) -> None:
        if client.usable and self._keep_alive:
            self._idle.append((time.monotonic(), client))
        else:
            client.close()

    def close(self) -> None:
        for _, client in self._idle:
            client.close()


@dataclass(slots=True)
class _Seen:
    """What has come back of the answer under way."""

    done: asyncio.Future[None]
    on_time: Callable[[], float]
    by_pod: Counter[str]
    status: int | None = None
    pod: str | None = None
    streamed: bool = False
    header_s: float | None = None
    end_s: float | None = None
    data_s: list[float] = field(default_factory=list)
    events: int = 0
    line: bytes = b""
    error: str | None = None


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._reader = http1.Reader(responses=True)
        self._seen: _Seen | None = None
        self._keep = True

    @property
    def idle(self) -> bool:
        return self._seen is None

    @property
    def usable(self) -> bool:
        return self._keep and self.idle and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def begin(self, request: bytes, seen: _Seen) -> None:
        """Sends a request; `seen.done` resolves when the answer has ended, well or not."""
        self._seen = seen
        self._transport.write(request)

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._seen is None:
            self._keep = False
            return
        now_s = self._seen.on_time()
        try:
            for event in self._reader.feed(data):
                self._take(event, now_s)
        except http1.FramingError as error:
            self._finish(str(error))

    def connection_lost(self, error: Exception | None) -> None:
        self._keep = False
        try:
            for event in self._reader.close():
                self._take(event, 0.0)
        except http1.FramingError as cut:
            self._finish(str(cut))
        self._finish("the connection ended before the answer")

    def _take(self, event: http1.Event, now_s: float) -> None:
        seen = self._seen
        if seen is None:
            return
        if isinstance(event, http1.Head):
            seen.status, seen.header_s = int(event.first[1]), now_s
            seen.pod = event.headers.get("x-sonde-pod")
            if seen.pod is not None:
                seen.by_pod[seen.pod] += 1
            seen.streamed = event.headers.get("content-type", "").startswith("text/event-stream")
            self._keep = event.headers.get("connection", "").lower() != "close"
        elif isinstance(event, http1.Data):
            if seen.streamed:
                self._take_events(seen, event.payload, now_s)
            elif not seen.data_s:
                seen.data_s.append(now_s)
        else:
            self._finish(None)

    @staticmethod
    def _take_events(seen: _Seen, payload: bytes, now_s: float) -> None:
        *lines, seen.line = (seen.line + payload).split(b"\n")
        data = [line for line in lines if line.startswith(b"data:")]
        tokens = [line for line in data if line != b"data: [DONE]"]
        seen.events += len(tokens)
        if tokens:
            seen.data_s.append(now_s)
        for line in tokens:
            if line.startswith(b'data: {"error"'):
                seen.error = line.decode(errors="replace")

    def _finish(self, error: str | None) -> None:
        seen, self._seen = self._seen, None
        if seen is None:
            return
        if error is not None:
            self._keep = False
        seen.error = seen.error or error
        if not seen.done.done():
            seen.done.set_result(None)


def request_bytes(request: Request, target: Target) -> bytes:
    """An OpenAI completion request whose prompt has the asked number of tokens, one word each.

    No two prompts begin alike, unless their requests share a beginning.
    """
    asked = {
        "model": target.model,
        "max_tokens": request.output_tokens,
        "stream": request.stream,
        "ignore_eos": True,
        "prompt": _prompt(request, target),
    }
    body = json.dumps(asked).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: {target.host}:{target.port}\r\ncontent-type: application/json\r\n"
        f"x-request-id: {target.label}-{request.index}\r\ncontent-length: {len(body)}\r\n"
    )
    if request.objective:
        head += f"x-gateway-inference-objective: {request.objective}\r\n"
    return f"{head}\r\n".encode() + body


def _prompt(request: Request, target: Target) -> str:
    shared = min(request.shared_tokens, request.prompt_tokens - 1)
    beginning = f"{target.label}-group-{request.group} " + WORD * (shared - 1) if shared > 0 else ""
    return beginning + f"{target.label}-{request.index} " + WORD * (request.prompt_tokens - max(0, shared) - 1)


async def _exchange(request: Request, target: Target, pool: Pool, started_s: float, by_pod: Counter[str]) -> Result:
    loop = asyncio.get_running_loop()

    def since_start() -> float:
        return loop.time() - started_s

    data = request_bytes(request, target)
    sent_s = since_start()
    seen = _Seen(loop.create_future(), since_start, by_pod)
    client: Client | None = None
    try:
        async with asyncio.timeout(target.timeout_s):
            client = await pool.take()
            sent_s = since_start()
            client.begin(data, seen)
            await seen.done
            seen.end_s = since_start()
        pool.give(client)
    except TimeoutError:  # an OSError, too, hence first
        seen.error = f"no whole answer within {target.timeout_s:g} s"
    except OSError as error:
        seen.error = f"cannot connect: {error}"
    finally:
        if client is not None and not client.idle:
            client.close()
    return _result(request, sent_s, seen)


def _result(request: Request, sent_s: float, seen: _Seen) -> Result:
    error = seen.error
    if error is None and seen.status != 200:
        error = f"status {seen.status}"
    if error is None and request.stream and seen.events < request.output_tokens:
        error = f"{seen.events} events for {request.output_tokens} tokens"
    gaps_s = tuple(later - earlier for earlier, later in itertools.pairwise(seen.data_s))
    first_s = seen.data_s[0] if seen.data_s else None
    return Result(
        request, sent_s, seen.header_s, first_s, seen.end_s, gaps_s, seen.events, seen.status, seen.pod, error
    )
