"""Serves envoy.service.ext_proc.v3.ExternalProcessor: carries bytes between gateways and exchanges over grpc.aio.

Owns streams, their deadlines and their end; refuses to know what the messages mean. Messages stay serialized on both
sides of gRPC: parsing is the exchange's, and its answers are stored bytes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from controller.catalog.classes import Refusal
from controller.catalog.resolving import Resolver
from controller.choosing.admission import Gate, Nobody, admit_all, no_endpoint
from controller.choosing.picker import Picker
from controller.choosing.room import Room
from controller.exporting.counts import Counts
from controller.gateway.bodies import Bodies
from controller.gateway.deadlines import Deadlines
from controller.gateway.exchange import BODY_LIMIT_BYTES, QUIET_S, Exchange
from controller.gateway.modes import BUFFERED, UNDECLARED
from controller.gateway.stream import Crowded, Shared, Stream
from controller.model import Source

log = logging.getLogger(__name__)

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD = f"/{SERVICE}/Process"
# Envoy applies no time limit in FULL_DUPLEX_STREAMED, so the request must be here after so long, slow uploads included.
REQUEST_LIMIT_S = 60.0
# A BUFFERED body is one message, and one that is a little too large shall get its 413; grpcio's default is 4 MiB.
MESSAGE_LIMIT_BYTES = BODY_LIMIT_BYTES + (1 << 20)
BODY_MEMORY_BYTES = 1 << 30  # of all bodies that are held at once
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
    body_memory_bytes: int = BODY_MEMORY_BYTES
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
        self._manner = manner or Manner()
        self._counts = counts
        self.room = Room(picker, gate, nobody=nobody)
        self.bodies: Bodies[Stream] = Bodies(self._manner.body_memory_bytes)
        resolver = Resolver(picker.table, picker.rng)
        self._shared = Shared(resolver, self.room, counts, self.bodies, self.fault)
        # A response is of use where it may tell which endpoint served, and where nothing else tells its end.
        self._follows_all = self._manner.hooks or picker.max_endpoints > 1
        self._modes: dict[str, int] = {}  # what gateways without protocol_config turned out to speak, by connection
        self._answered: set[asyncio.Task[Any]] = set()  # streams that may close without harm to their request
        self._deadlines = Deadlines(self._manner.request_limit_s)
        self._draining = False
        self._next_trace_s = 0.0
        self.open = 0

    def handler(self) -> grpc.GenericRpcHandler:
        return _Handler(self)

    def ends_with_request(self) -> bool:
        """Whether no stream that begins now is going to be kept for the response."""
        return not self._follows_all and self._picker.table.all_counted

    def drain(self) -> None:
        """From now on a stream ends as soon as its request has its pick; the server's grace is for the others."""
        self._draining = True
        for task in self._answered:
            task.cancel()

    async def process(self, _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        stream = Stream(self._exchange(), self._shared, context)
        self.open += 1
        try:
            await self._request_phase(stream)
            if stream.exchange.answered and not self._draining and self._follows(stream):
                await self._response_phase(stream)
        finally:
            self._close(stream)

    async def process_request(self, _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
        """The same without a response phase. Returns the last answer: gRPC sends it together with the stream's end."""
        stream = Stream(self._exchange(), self._shared, context, returns_last=True)
        self.open += 1
        try:
            await self._request_phase(stream)
        finally:
            self._close(stream)
        if stream.last is None:
            await context.abort(grpc.StatusCode.CANCELLED, "the gateway ended the stream before its request was whole")
        return stream.last or b""

    def _exchange(self) -> Exchange:
        return Exchange(self._manner.assumed_mode, self._manner.hooks, self._manner.reads)

    def _close(self, stream: Stream) -> None:
        self.open -= 1
        stream.close()

    def _follows(self, stream: Stream) -> bool:
        """Whether the response phase is of use: not where the kernel counts, which tells the end itself.

        The stream may end as soon as the body went back: the gateway goes on without us, and a response of a
        thousand chunks costs nothing here even where the gateway would send each one.
        """
        if self._follows_all or not stream.exchange.done or stream.pick is None:
            return True
        return stream.pick.row.source is not Source.KERNEL

    async def _request_phase(self, stream: Stream) -> None:
        stream.limit = self._deadlines.begin()
        try:
            with stream.limit:
                return await self._arrive(stream)
        except Crowded:
            pass
        text = f"request did not arrive within {self._manner.request_limit_s:g} s"
        await stream.give_up(Refusal(408, "RequestTimeout", text))

    async def _arrive(self, stream: Stream) -> None:
        exchange = stream.exchange
        while not exchange.done:
            if exchange.undecided:
                await self._decide(stream)
            if not await stream.step():
                return
            if (exchange.answered or exchange.destination) and stream.limit is not None:
                stream.limit.lift()  # the rest of a streamed body takes its time, and a read that is cancelled loses it
            if exchange.learned is not None:
                self._remember(stream.peer, exchange.learned)

    async def _decide(self, stream: Stream) -> None:
        """A gateway that does not say how it sends bodies shows it by waiting, or by not waiting, for an answer."""
        stream.peer = stream.context.peer()  # once, while the call lives: later grpcio reads freed memory
        mode = self._modes.get(stream.peer)
        if mode is None:
            mode = None if await stream.look(self._manner.quiet_s) else BUFFERED
        if mode == BUFFERED:
            await stream.send(stream.exchange.quiet())

    def _remember(self, peer: str, mode: int) -> None:
        """Gateways come back on new connections, so the oldest go; one that is still there shows its mode again."""
        self._modes[peer] = mode
        if len(self._modes) > PEER_LIMIT:
            del self._modes[next(iter(self._modes))]

    def fault(self, error: Exception) -> bool:
        """A fault of our own met a request; returns whether the request goes on without a pick."""
        self._counts.faulted()
        now = time.monotonic()
        if now >= self._next_trace_s:  # a fault that every request meets would fill the disk
            self._next_trace_s = now + TRACE_PAUSE_S
            log.error("a request met a fault of ours; the pool's failureMode answers it", exc_info=error)
        pool = self._picker.table.pool
        return pool is not None and pool.failure_mode == "FailOpen"

    async def _response_phase(self, stream: Stream) -> None:
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


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Says for each stream that begins how it is served."""

    def __init__(self, processor: ExternalProcessor) -> None:
        self._processor = processor
        self._whole = grpc.stream_stream_rpc_method_handler(processor.process)
        self._request = grpc.stream_unary_rpc_method_handler(processor.process_request)

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if call.method != METHOD:
            return None
        return self._request if self._processor.ends_with_request() else self._whole


def context_is_done(context: grpc.aio.ServicerContext) -> bool:
    """Whether the gateway is gone, so that there is nobody to end in order for."""
    return bool(context.done())
