"""Follows the controllers' streams of weights: one task for each address, reconnecting; frames become values.

Refuses to know what the weights are for. A frame that cannot be used is one line in the log, and the last good one
stays.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

import grpc
import grpc.aio

from agent.address import address_of
from agent.backoff import backoff_s
from agent.identity import tls
from agent.identity.trust import Trust
from agent.proto.weights_pb2 import EndpointWeights, WeightsRequest
from agent.proto.weights_pb2_grpc import WeightsStub
from agent.steering.weighing import Frame, FrameError, read

log = logging.getLogger(__name__)

RESOLVE_S = 5.0  # between two looks for the controllers' addresses
SILENCE_LIMIT_S = 12.0  # controllers send something each five seconds
STEADY_S = 5.0  # a stream that ends sooner is one more failure in a row
FIRST_S, MOST_S = 0.4, 5.0  # of the back-off
FRAME_LIMIT_BYTES = 4 << 20

Origin = tuple[str, int]  # host or address, port
OPTIONS = (("grpc.max_receive_message_length", FRAME_LIMIT_BYTES),)


class Follower:
    def __init__(self, origins: Sequence[Origin], trust: Trust, node: str, rng: Random | None = None) -> None:
        self._origins = origins
        self._trust = trust
        self._node = node
        self._rng = rng or Random()
        self._tasks: dict[Origin, asyncio.Task[None]] = {}
        self._refused: set[Origin] = set()
        self._unresolved: set[Origin] = set()
        self._faults: dict[Origin, str] = {}
        self.connected = 0
        self.frames = 0

    async def run(self, hear: Callable[[Frame], None]) -> None:
        """Until cancelled. Names are asked for by a thread of our own: an answer may take very long."""
        with ThreadPoolExecutor(1, "weights") as resolver:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._reconcile(group, await self._resolve(resolver), hear)
                    await asyncio.sleep(RESOLVE_S)

    async def _resolve(self, resolver: ThreadPoolExecutor) -> set[Origin]:
        """Every address of every name. A name that has none now keeps those it had."""
        found: set[Origin] = set()
        for origin in self._origins:
            try:
                addresses = await asyncio.get_running_loop().run_in_executor(resolver, _addresses, origin)
            except OSError as error:
                if origin not in self._unresolved:
                    log.warning("--weights-from %s: %s; trying on", origin[0], error.strerror or error)
                self._unresolved.add(origin)
                return set(self._tasks)
            self._unresolved.discard(origin)
            found |= addresses
        for one in sorted(found - self._refused):
            if not self._trust.allows(one[0]):
                self._refused.add(one)
                log.warning("weights of %s: it is not on loopback, so --tls-path DIR or --plain-text is needed", one[0])
        return found - self._refused

    def _reconcile(self, group: asyncio.TaskGroup, wanted: set[Origin], hear: Callable[[Frame], None]) -> None:
        for gone in self._tasks.keys() - wanted:
            self._tasks.pop(gone).cancel()
        for new in wanted - self._tasks.keys():
            self._tasks[new] = group.create_task(self._follow(new, hear), name=f"weights of {new[0]}")

    async def _follow(self, origin: Origin, hear: Callable[[Frame], None]) -> None:
        failures = 0
        while True:
            began_s = time.monotonic()
            problem = await self._stream(origin, hear)
            failures = 1 if time.monotonic() - began_s >= STEADY_S else failures + 1
            if failures == 1:
                log.warning("weights of %s:%d: %s; trying again", *origin, problem)
            await asyncio.sleep(backoff_s(failures, self._rng, FIRST_S, MOST_S))

    async def _stream(self, origin: Origin, hear: Callable[[Frame], None]) -> str:
        """Follows one stream to its end; returns why it ended."""
        opened = False
        try:
            async with self._trust.channel(address_of(*origin), tls.CONTROLLER, OPTIONS) as channel:
                stub = WeightsStub(channel)  # type: ignore[no-untyped-call]
                call = stub.Watch(WeightsRequest(node=self._node, subscriber="sonde-agent"))
                while True:
                    async with asyncio.timeout(SILENCE_LIMIT_S):
                        message = await call.read()
                    if message is grpc.aio.EOF:
                        return "the stream ended"
                    if not opened:
                        opened, self.connected = True, self.connected + 1
                        log.info("weights of %s:%d: following pool %s/%s", *origin, message.namespace, message.pool)
                    self._take(origin, message, hear)
        except TimeoutError:
            return f"silent for {SILENCE_LIMIT_S:g} s"
        except tls.TlsError as error:
            return str(error)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        finally:
            self.connected -= opened

    def _take(self, origin: Origin, message: EndpointWeights, hear: Callable[[Frame], None]) -> None:
        self.frames += 1
        try:
            frame = read(message, time.monotonic())
        except FrameError as error:
            fault = f"weights of {origin[0]}:{origin[1]} for pool {message.namespace}/{message.pool}: {error}"
            if self._faults.get(origin) != fault:
                log.warning("%s: the last good ones stay", fault)
            self._faults[origin] = fault
            return
        self._faults.pop(origin, None)
        hear(frame)


def _addresses(origin: Origin) -> set[Origin]:
    """Raises OSError."""
    found = socket.getaddrinfo(*origin, type=socket.SOCK_STREAM)
    return {(str(place[0]), int(place[1])) for *_, place in found}
