"""Serves envoy.service.ext_proc.v3.ExternalProcessor: carries bytes between gateways and exchanges over grpc.aio.

Owns streams, their deadlines and their end; refuses to know what the messages mean. Messages stay serialized on both
sides of gRPC: parsing is the exchange's, and its answers are stored bytes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from controller.classes import NO_ENDPOINT, Refusal, unknown_model
from controller.exchange import Exchange
from controller.metrics import Counts
from controller.models import UnknownModel
from controller.picker import Pick, Picker
from controller.resolving import Resolver

log = logging.getLogger(__name__)

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
# Envoy applies no time limit in FULL_DUPLEX_STREAMED, so the request must be here after so long, slow uploads included.
REQUEST_LIMIT_S = 60.0
MESSAGE_LIMIT_BYTES = 64 << 20  # a BUFFERED body is one message; grpcio's default ends at 4 MiB

OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_concurrent_streams", 1 << 20),  # a BUFFERED stream stays open as long as its response
    ("grpc.so_reuseport", 0),  # a second controller on the port must fail, not share it
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # gateways check whether we live
    ("grpc.keepalive_permit_without_calls", 1),
)


class ExternalProcessor:
    """All open streams of one controller."""

    def __init__(self, picker: Picker, counts: Counts, request_limit_s: float = REQUEST_LIMIT_S) -> None:
        self._picker = picker
        self._resolver = Resolver(picker.table, picker.rng)
        self._counts = counts
        self._request_limit_s = request_limit_s
        self._answered: set[asyncio.Task[Any]] = set()  # streams that may close without harm to their request
        self._draining = False
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
        stream = _Stream(Exchange(), self._resolver, self._picker, self._counts, context)
        self.open += 1
        try:
            await self._request_phase(stream)
            if stream.exchange.answered and not self._draining:
                await self._response_phase(stream)
        finally:
            self.open -= 1
            stream.close()

    async def _request_phase(self, stream: _Stream) -> None:
        try:
            async with asyncio.timeout(self._request_limit_s):
                while not stream.exchange.answered and await stream.step():
                    pass
        except TimeoutError:
            text = f"request did not arrive within {self._request_limit_s:g} s"
            await stream.send(stream.exchange.refuse(408, "RequestTimeout", text))

    async def _response_phase(self, stream: _Stream) -> None:
        """Keeps the stream as long as the gateway does: in BUFFERED mode its end is the end of the response."""
        task = asyncio.current_task()
        assert task is not None
        self._answered.add(task)
        try:
            while await stream.step():
                pass
        except asyncio.CancelledError:
            if not self._draining or context_is_done(stream.context):
                raise
            task.uncancel()  # drain() asked for an orderly end, which gRPC sends when this returns
        finally:
            self._answered.discard(task)


def context_is_done(context: grpc.aio.ServicerContext) -> bool:
    """Whether the gateway is gone, so that there is nobody to end in order for."""
    return bool(context.done())


class _Stream:
    """One exchange and its pick, on one gRPC stream."""

    __slots__ = ("_counts", "_picker", "_resolver", "_sent", "context", "exchange", "pick")

    def __init__(
        self,
        exchange: Exchange,
        resolver: Resolver,
        picker: Picker,
        counts: Counts,
        context: grpc.aio.ServicerContext,
    ) -> None:
        self.exchange = exchange
        self.context = context
        self.pick: Pick | None = None
        self._resolver = resolver
        self._picker = picker
        self._counts = counts
        self._sent = False

    async def step(self) -> bool:
        """Reads one message and sends what it leads to; False once the stream has nothing more to say."""
        message = await self.context.read()
        if message is grpc.aio.EOF:
            return False
        await self.send(self.exchange.receive(message))
        if self.exchange.asks is not None:
            answers = self._settle()
            await self.send(answers)
            self._sent = self.pick is not None
        return not self.exchange.over

    async def send(self, answers: list[bytes]) -> None:
        for answer in answers:
            await self.context.write(answer)

    def _settle(self) -> list[bytes]:
        request = self.exchange.asks
        assert request is not None
        began = time.perf_counter()
        now = time.monotonic()
        try:
            request = replace(request, resolved=self._resolver.resolve(request, now))
        except UnknownModel as error:
            return self._refuse(unknown_model(error.model))
        self.pick = self._picker.pick(request, now)
        self._counts.picked(request, time.perf_counter() - began)
        if self.pick is None:
            return self._refuse(NO_ENDPOINT)
        return self.exchange.answer(self.pick.destination)

    def _refuse(self, refusal: Refusal) -> list[bytes]:
        return self.exchange.refuse(refusal.status, refusal.code, refusal.text, refusal.headers)

    def close(self) -> None:
        if self.exchange.refused is not None:
            self._counts.refused(self.exchange.refused)
        if self.pick is None:
            return
        now = time.monotonic()
        if not self._sent:
            self.pick.drop(now)
        elif self.exchange.outlives_stream:
            self.pick.detach(now)
        else:
            self.pick.end(now)
