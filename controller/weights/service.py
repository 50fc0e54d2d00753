"""Serves the weights to the agents that ask for them (agent/proto/weights.proto); decides nothing about their content.

The agents dial, since they are many and a controller's Service finds whichever controllers are there. An agent that
reads slowly gets the newest frame when it is ready: nothing is queued for it. A frame is serialized once, and what is
different for each agent is put behind it, as protobuf allows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio

from agent.identity import tls, trust
from agent.proto.weights_pb2 import DESCRIPTOR, EndpointWeights, WeightsRequest

log = logging.getLogger(__name__)

_NAME_LIMIT = 80
NAME: str = DESCRIPTOR.services_by_name["Weights"].full_name


class Service:
    """With `agents_only` a stream needs an agent's certificate; TLS itself has verified it."""

    def __init__(self, agents_only: bool = False, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.frames = 0  # sent
        self._agents_only = agents_only
        self._clock_s = clock_s
        self._wakes: set[asyncio.Event] = set()
        self._frame: bytes | None = None
        self._at_s = 0.0
        self._version = 0
        self._closed = False

    @property
    def watchers(self) -> int:
        return len(self._wakes)

    def publish(self, frame: EndpointWeights, at_s: float) -> None:
        """Each watcher gets it. `at_s`: when its prices were true."""
        self._frame, self._at_s = frame.SerializeToString(), at_s
        self._version += 1
        self._ring()

    def close(self) -> None:
        """Every stream ends, in order, after the frame it is sending."""
        self._closed = True
        self._ring()

    def _ring(self) -> None:
        for wake in self._wakes:
            wake.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """As generated code would make it, but for answers that are bytes already."""
        watch = grpc.unary_stream_rpc_method_handler(self._watch, request_deserializer=WeightsRequest.FromString)
        return grpc.method_handlers_generic_handler(NAME, {"Watch": watch})

    async def _watch(self, request: WeightsRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        if self._agents_only:
            await trust.refuse_others(context, tls.AGENT, "weights")
        wake = asyncio.Event()
        self._wakes.add(wake)
        node, name = request.node[:_NAME_LIMIT], request.subscriber[:_NAME_LIMIT]
        peer = context.peer()  # asked for once: after the call has ended grpcio reads freed memory here
        log.info("weights: watcher came node=%r name=%r peer=%s", node, name, peer)
        try:
            async for frame in self._frames(wake):
                yield frame
        finally:
            self._wakes.discard(wake)
            log.info("weights: watcher left node=%r name=%r peer=%s", node, name, peer)

    async def _frames(self, wake: asyncio.Event) -> AsyncIterator[bytes]:
        seen, sequence = 0, 0
        while not self._closed:
            if self._frame is not None and seen != self._version:
                seen, sequence = self._version, sequence + 1
                self.frames += 1
                yield self._frame + self._stamp(sequence)
            else:
                await wake.wait()
                wake.clear()

    def _stamp(self, sequence: int) -> bytes:
        age_us = round(max(0.0, self._clock_s() - self._at_s) * 1e6)
        return EndpointWeights(sequence=sequence, age_us=age_us).SerializeToString()


def make_server(
    service: Service, bind: str, port: int, credentials: grpc.ServerCredentials | None = None
) -> tuple[grpc.aio.Server, int]:
    """A server that is not started yet, and its port. Raises OSError where the address cannot be had."""

    def add(server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((service.handler(),))

    return trust.make_server(add, bind, port, "weights", credentials)
