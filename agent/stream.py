"""Serves the view to whoever watches it over gRPC (agent/proto/telemetry.proto); decides nothing about its content.

A watcher remembers the version it was sent, so nothing is queued for it: one that reads slowly gets the newest state
when it is ready, and costs no memory until then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio

from agent.identity import tls, trust
from agent.proto import telemetry_pb2_grpc
from agent.proto.telemetry_pb2 import Frame, WatchRequest
from agent.view import View

log = logging.getLogger(__name__)

_NAME_LIMIT = 80


class Telemetry(telemetry_pb2_grpc.TelemetryServicer):
    """With `controllers_only` a stream needs a controller's certificate; TLS itself has verified it."""

    def __init__(
        self, view: View, clock_ns: Callable[[], int] = time.monotonic_ns, controllers_only: bool = False
    ) -> None:
        self._view = view
        self._clock_ns = clock_ns
        self._controllers_only = controllers_only
        self._wakes: set[asyncio.Event] = set()
        self._beats = 0
        self._pulses = 0
        self._closed = False
        self._told = 0  # version of the view at the last ring
        self.rings = 0

    @property
    def watchers(self) -> int:
        return len(self._wakes)

    def tell(self) -> None:
        """The view may have changed: who waits is woken only if it has."""
        if self._view.version != self._told:
            self.ring()

    def ring(self) -> None:
        """Each watcher looks whether there is news for it."""
        self._told = self._view.version
        self.rings += 1
        for wake in self._wakes:
            wake.set()

    def pulse(self) -> None:
        """Each watcher gets a frame, if only to know that nothing changed."""
        self._pulses += 1
        self.ring()

    def beat(self) -> None:
        """Each watcher gets a full frame."""
        self._beats += 1
        self.ring()

    def close(self) -> None:
        """Every stream ends, in order, after the frame it is sending."""
        self._closed = True
        self.ring()

    async def Watch(self, request: WatchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[Frame]:
        if self._controllers_only:
            await trust.refuse_others(context, tls.CONTROLLER, "stream")
        wake = asyncio.Event()
        self._wakes.add(wake)
        name = request.subscriber[:_NAME_LIMIT]
        peer = context.peer()  # asked for once: after the call has ended grpcio reads freed memory here
        log.info("watcher came name=%r peer=%s", name, peer)
        try:
            async for frame in self._frames(wake):
                yield frame
        finally:
            self._wakes.discard(wake)
            log.info("watcher left name=%r peer=%s", name, peer)

    async def _frames(self, wake: asyncio.Event) -> AsyncIterator[Frame]:
        since: int | None = None
        sequence, beats = 0, self._beats
        pulses = self._pulses
        while not self._closed:
            if self._view.placed:
                frame = self._view.frame(since, self._clock_ns())
                since = self._view.version
                if frame.full or frame.endpoints or pulses != self._pulses:
                    sequence, pulses = sequence + 1, self._pulses
                    frame.sequence = sequence
                    yield frame
            await wake.wait()
            wake.clear()
            if beats != self._beats:
                since, beats = None, self._beats


def make_server(
    telemetry: Telemetry, bind: str, port: int, credentials: grpc.ServerCredentials | None = None
) -> tuple[grpc.aio.Server, int]:
    """A server that is not started yet, and its port. Raises OSError where the address cannot be had."""

    def add(server: grpc.aio.Server) -> None:
        telemetry_pb2_grpc.add_TelemetryServicer_to_server(telemetry, server)  # type: ignore[no-untyped-call]

    return trust.make_server(add, bind, port, "gRPC", credentials)
