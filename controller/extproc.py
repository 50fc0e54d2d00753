"""Serves envoy.service.ext_proc.v3.ExternalProcessor: carries bytes between gateways and exchanges over grpc.aio.

Owns streams, their deadlines and their end; refuses to know what the messages mean. Messages stay serialized on both
sides of gRPC: parsing is the exchange's, and its answers are stored bytes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio

from controller.admission import Gate, Nobody, admit_all, no_endpoint
from controller.classes import Refusal, unknown_model
from controller.counts import Counts, Series
from controller.exchange import QUIET_S, Exchange
from controller.model import Request, Source
from controller.models import UnknownModel
from controller.modes import BUFFERED, UNDECLARED
from controller.picker import Pick, Picker
from controller.policies.admission import Waiter
from controller.resolving import Resolver
from controller.room import Room

log = logging.getLogger(__name__)

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
# Envoy applies no time limit in FULL_DUPLEX_STREAMED, so the request must be here after so long, slow uploads included.
REQUEST_LIMIT_S = 60.0
MESSAGE_LIMIT_BYTES = 64 << 20  # a BUFFERED body is one message; grpcio's default ends at 4 MiB
TRACE_PAUSE_S = 1.0
PEER_LIMIT = 1024  # connections of gateways without protocol_config whose mode is remembered

OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_concurrent_streams", 1 << 20),  # a BUFFERED stream stays open as long as its response
    ("grpc.so_reuseport", 0),  # a second controller on the port must fail, not share it
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # gateways check whether we live
    ("grpc.keepalive_permit_without_calls", 1),
)


@dataclass(frozen=True, slots=True)
class Manner:
    """How exchanges are held."""

    request_limit_s: float = REQUEST_LIMIT_S
    assumed_mode: int = UNDECLARED
    hooks: bool = False  # the conformance suite's
    reads: bool = True  # the model in bodies
    quiet_s: float = QUIET_S


class ExternalProcessor:
    """All open streams of one controller."""

    def __init__(
        self,
        picker: Picker,
        counts: Counts,
        manner: Manner | None = None,
        gate: Gate = admit_all,
        nobody: Nobody = no_endpoint,
    ) -> None:
        self._picker = picker
        self._resolver = Resolver(picker.table, picker.rng)
        self.room = Room(picker, gate, nobody=nobody)
        self._counts = counts
        self._manner = manner or Manner()
        # A response is of use where it may tell which endpoint served, and where nothing else tells its end.
        self._follows_all = self._manner.hooks or picker.max_endpoints > 1
        self._modes: dict[str, int] = {}  # what gateways without protocol_config turned out to speak, by connection
        self._answered: set[asyncio.Task[Any]] = set()  # streams that may close without harm to their request
        self._draining = False
        self._next_trace_s = 0.0
        self.open = 0

    def handler(self) -> grpc.GenericRpcHandler:
        method = grpc.stream_stream_rpc_method_handler(self.process)
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": method})

    def drain(self) -> None:
        """From now on a stream ends as soon as its request has its pick; the server's grace is for the others."""
        self._draining = True
        for task in self._answered:
            task.cancel()

    async def process(self, _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        exchange = Exchange(self._manner.assumed_mode, self._manner.hooks, self._manner.reads)
        stream = _Stream(exchange, self._resolver, self.room, self._counts, context, self.fault)
        self.open += 1
        try:
            await self._request_phase(stream)
            if exchange.answered and not self._draining and self._follows(stream):
                await self._response_phase(stream)
        finally:
            self.open -= 1
            stream.close()

    def _follows(self, stream: _Stream) -> bool:
        """Whether the response phase is of use: not where the kernel counts, which tells the end itself.

        The stream may end as soon as the body went back: the gateway goes on without us, and a response of a
        thousand chunks costs nothing here even where the gateway would send each one.
        """
        if self._follows_all or not stream.exchange.done or stream.pick is None:
            return True
        return stream.pick.row.source is not Source.KERNEL

    async def _request_phase(self, stream: _Stream) -> None:
        try:
            async with asyncio.timeout(self._manner.request_limit_s):
                while not stream.exchange.done:
                    if stream.exchange.undecided:
                        await self._decide(stream)
                    if not await stream.step():
                        return
                    if stream.exchange.learned is not None and len(self._modes) < PEER_LIMIT:
                        self._modes[stream.peer] = stream.exchange.learned
        except TimeoutError:
            text = f"request did not arrive within {self._manner.request_limit_s:g} s"
            await stream.send(stream.exchange.refuse(408, "RequestTimeout", text))
            if not stream.exchange.over and not stream.exchange.answered:  # an orderly end would lose the rest of it
                await stream.context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, text)

    async def _decide(self, stream: _Stream) -> None:
        """A gateway that does not say how it sends bodies shows it by waiting, or by not waiting, for an answer."""
        stream.peer = stream.context.peer()  # once, while the call lives: later grpcio reads freed memory
        mode = self._modes.get(stream.peer)
        if mode is None:
            mode = None if await stream.look(self._manner.quiet_s) else BUFFERED
        if mode == BUFFERED:
            await stream.send(stream.exchange.quiet())

    def fault(self, error: Exception) -> bool:
        """A fault of our own met a request; returns whether the request goes on without a pick."""
        self._counts.faulted()
        now = time.monotonic()
        if now >= self._next_trace_s:  # a fault that every request meets would fill the disk
            self._next_trace_s = now + TRACE_PAUSE_S
            log.error("a request met a fault of ours; the pool's failureMode answers it", exc_info=error)
        pool = self._picker.table.pool
        return pool is not None and pool.failure_mode == "FailOpen"

    async def _response_phase(self, stream: _Stream) -> None:
        """Keeps the stream as long as the gateway does: in BUFFERED mode its end is the end of the response."""
        task = asyncio.current_task()
        assert task is not None
        self._answered.add(task)
        try:
            while await stream.step():
                pass
            stream.saw_end = True
        except asyncio.CancelledError:
            if not self._draining or context_is_done(stream.context):
                stream.saw_end = True
                raise
            task.uncancel()  # drain() asked for an orderly end, which gRPC sends when this returns
        finally:
            self._answered.discard(task)


def context_is_done(context: grpc.aio.ServicerContext) -> bool:
    """Whether the gateway is gone, so that there is nobody to end in order for."""
    return bool(context.done())


class _Stream:
    """One exchange and its pick, on one gRPC stream."""

    __slots__ = (
        "_began_s",
        "_counts",
        "_fault",
        "_judged",
        "_next",
        "_resolver",
        "_room",
        "_sent",
        "_series",
        "context",
        "exchange",
        "peer",
        "pick",
        "saw_end",
    )

    def __init__(
        self,
        exchange: Exchange,
        resolver: Resolver,
        room: Room,
        counts: Counts,
        context: grpc.aio.ServicerContext,
        fault: Callable[[Exception], bool],
    ) -> None:
        self.exchange = exchange
        self.context = context
        self.peer = ""
        self.pick: Pick | None = None
        self.saw_end = False  # the gateway closed the stream, with or after the response
        self._resolver = resolver
        self._room = room
        self._counts = counts
        self._fault = fault
        self._next: asyncio.Future[Any] | None = None  # a message that is already waited for
        self._began_s = time.monotonic()
        self._series: Series | None = None  # what the request is counted under, once it came to its pick
        self._sent = False
        self._judged = False

    async def look(self, limit_s: float) -> bool:
        """Waits so long for the next message and leaves it to step(): gRPC loses what a cancelled read would get."""
        self._next = asyncio.ensure_future(self.context.read())
        await asyncio.wait({self._next}, timeout=limit_s)
        return self._next.done()

    async def step(self) -> bool:
        """Reads one message and sends what it leads to; False once the stream has nothing more to say."""
        awaited, self._next = self._next, None
        message = await (awaited or self.context.read())
        if message is grpc.aio.EOF:
            return False
        await self.send(self._guarded(lambda: self.exchange.receive(message)))
        if self.exchange.asks is not None:
            await self.send(await self._settled())
            self._sent = bool(self.exchange.destination)
        if self.exchange.served is not None and not self._judged:
            self._judged = True
            if self.pick:
                self.pick.served_by(self.exchange.served, time.monotonic())
        return not self.exchange.over

    async def send(self, answers: list[bytes]) -> None:
        for answer in answers:
            await self.context.write(answer)

    def _guarded(self, act: Callable[[], list[bytes]]) -> list[bytes]:
        """Whatever goes wrong in here, the gateway gets an answer: it would wait for ever in FULL_DUPLEX_STREAMED."""
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - logged by _fault
            return self.exchange.fail(self._fault(error))

    async def _settled(self) -> list[bytes]:
        try:
            return await self._settle()
        except Exception as error:  # noqa: BLE001 - as above
            return self.exchange.fail(self._fault(error))

    async def _settle(self) -> list[bytes]:
        request = self.exchange.asks
        assert request is not None
        began = time.perf_counter()
        now = time.monotonic()
        try:
            request = replace(request, resolved=self._resolver.resolve(request, now))
        except UnknownModel as error:
            return self._refuse(unknown_model(error.model))
        outcome = self._room.enter(request, now, self.exchange.hurried)
        decision_s = time.perf_counter() - began
        self._series = self._counts.picked(request, decision_s, size_bytes=self.exchange.size_bytes)
        if isinstance(outcome, Waiter):
            outcome = await self._room.wait(outcome)
        if isinstance(outcome, Refusal):
            return self._declined(request, outcome)
        self.pick = outcome
        rewrite = request.resolved.rewrite if request.resolved else None
        return self.exchange.answer(self.pick.destination, rewrite)

    def _declined(self, request: Request, refusal: Refusal) -> list[bytes]:
        if refusal.declined and request.resolved:
            self._counts.declined(refusal.declined, request.resolved.objective, request.resolved.priority)
        return self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> list[bytes]:
        return self.exchange.refuse(refusal.status, refusal.code, refusal.text, refusal.headers)

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
        now = time.monotonic()
        self._count_end(now)
        if self.pick is None:
            return
        if not self._sent:
            self.pick.drop(now)
        elif self.saw_end and not self.exchange.outlives_stream:
            self.pick.end(now)
        else:
            self.pick.detach(now)

    def _count_end(self, now: float) -> None:
        if self.exchange.refused is not None:
            self._counts.refused(self.exchange.refused, self._series)
        if self._series is None:
            return
        status = self.exchange.response_status
        if status is not None and self.pick is not None:
            self.pick.answered(status, now)
        if status is not None and status >= 400:
            self._counts.failed(status, self._series)
        followed = self.pick is None or not self._sent or (self.saw_end and not self.exchange.outlives_stream)
        self._counts.ended(self._series, now - self._began_s if followed else None)
