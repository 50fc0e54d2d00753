"""Stands in for pods and for their node's agent: answers every request, counts it, and streams the counts.

    python -m bench.standin --port P --agent-port A --pods N

All of 127.0.0.0/8 is this machine, so one socket serves a thousand pod addresses. The path says how the answer comes:
/now/... at once, /one/... one chunk after the time that /many/... needs for its MANY chunks, /varied/...
one after half to one and a half of that time. Knows nothing of pickers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

import grpc.aio
import uvloop

from agent.proto import telemetry_pb2_grpc
from agent.proto.telemetry_pb2 import EndpointReport, Frame, WatchRequest
from lab.machine.manifests import NAMESPACE

MANY = 200
GAP_S = 0.001
TICK_S = 0.02  # as an agent looks at its slots
BEAT_S = 1.0
PULSE_S = 0.125
FEW = 64
NODE = "bench"
FIRST = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = b"8\r\ndata: x\n\r\n"
LAST = b"0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def ip_of(pod: int) -> str:
    return f"127.77.{pod >> 8}.{pod & 255}"


def uid_of(pod: int) -> str:
    return f"00000000-0000-4000-8000-{pod:012}"


class Counts:
    """Of one pod."""

    __slots__ = ("changed", "completed", "in_flight", "progress_s", "started")

    def __init__(self) -> None:
        self.started = self.completed = self.in_flight = self.changed = 0
        self.progress_s = 0.0


class Pods:
    def __init__(self, count: int) -> None:
        self.counts = {ip_of(pod): Counts() for pod in range(1, count + 1)}
        self.changes = 0
        self.above: Counter[int] = Counter()  # requests by how much busier their pod was than the least busy one

    def begin(self, ip: str) -> None:
        if counts := self.counts.get(ip):
            if len(self.counts) <= FEW:  # a look at all for each request
                self.above[counts.in_flight - min(other.in_flight for other in self.counts.values())] += 1
            counts.started += 1
            counts.in_flight += 1
            counts.progress_s = counts.progress_s if counts.in_flight > 1 else time.monotonic()
            self._change(counts)

    def end(self, ip: str) -> None:
        if counts := self.counts.get(ip):
            counts.completed += 1
            counts.in_flight -= 1
            counts.progress_s = time.monotonic()
            self._change(counts)

    def _change(self, counts: Counts) -> None:
        self.changes += 1
        counts.changed = self.changes

    def since(self, change: int) -> list[str]:
        """The pods that changed since; each watcher has its own mark."""
        return [ip for ip, counts in self.counts.items() if counts.changed > change]


class Server(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._buffer = b""
        self._ip = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by type
        self._ip = transport.get_extra_info("sockname")[0]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, body = self._buffer.partition(b"\r\n\r\n")
        if not blank or not _whole(head, body):
            return
        self._buffer = b""
        if head.startswith(b"GET "):
            self._tell(head)
            return
        self._pods.begin(self._ip)
        loop = asyncio.get_running_loop()
        if b" /now/" in head:
            self._finish(FIRST + CHUNK + LAST)
        elif b" /one/" in head:
            loop.call_later(MANY * GAP_S, self._finish, FIRST + CHUNK + LAST)
        elif b" /varied/" in head:
            loop.call_later(MANY * GAP_S * random.uniform(0.5, 1.5), self._finish, FIRST + CHUNK + LAST)
        else:
            self._transport.write(FIRST + CHUNK)
            loop.call_later(GAP_S, self._chunk, MANY - 1)

    def _tell(self, head: bytes) -> None:
        body = json.dumps(self._pods.above).encode()
        if b" /clear " in head:
            self._pods.above.clear()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    def _chunk(self, left: int) -> None:
        if left == 0:
            self._finish(LAST)
            return
        self._transport.write(CHUNK)
        asyncio.get_running_loop().call_later(GAP_S, self._chunk, left - 1)

    def _finish(self, data: bytes) -> None:
        self._transport.write(data)
        self._pods.end(self._ip)


def _whole(head: bytes, body: bytes) -> bool:
    if head.startswith(b"GET "):
        return True
    found = _LENGTH.search(head)
    return len(body) >= int(found[1]) if found else body.endswith(b"0\r\n\r\n")


class Telemetry(telemetry_pb2_grpc.TelemetryServicer):
    def __init__(self, pods: Pods, port: int) -> None:
        self._pods = pods
        self._port = port

    async def Watch(self, _request: WatchRequest, _context: grpc.aio.ServicerContext) -> AsyncIterator[Frame]:
        sequence, beat_s, pulse_s, mark = 0, 0.0, 0.0, 0
        while True:
            now = time.monotonic()
            full = now >= beat_s + BEAT_S
            beat_s = now if full else beat_s
            ips = list(self._pods.counts) if full else self._pods.since(mark)
            mark = self._pods.changes
            if ips or now >= pulse_s + PULSE_S:  # if only to say that nothing changed, as agents do
                sequence, pulse_s = sequence + 1, now
                reports = [self._report(pod, now) for pod in ips]
                yield Frame(node=NODE, sequence=sequence, full=full, endpoints=reports, age_us=0)
            await asyncio.sleep(TICK_S)

    def _report(self, ip: str, now: float) -> EndpointReport:
        counts = self._pods.counts[ip]
        pod = int(ip.split(".")[2]) << 8 | int(ip.split(".")[3])
        report = EndpointReport(namespace=NAMESPACE, pod=f"pod-{pod}", pod_uid=uid_of(pod), port=self._port)
        kernel = report.kernel
        kernel.started, kernel.completed, kernel.in_flight = counts.started, counts.completed, counts.in_flight
        if counts.in_flight:
            kernel.progress_age_us = int((now - counts.progress_s) * 1e6)
        report.engine.engine = "vllm"
        report.engine.running, report.engine.waiting = counts.in_flight, 0
        return report


async def serve(port: int, agent_port: int, count: int) -> None:
    pods = Pods(count)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(pods), "0.0.0.0", port, backlog=1024)
    agent = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    telemetry_pb2_grpc.add_TelemetryServicer_to_server(Telemetry(pods, port), agent)  # type: ignore[no-untyped-call]
    agent.add_insecure_port(f"127.0.0.1:{agent_port}")
    await agent.start()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    for name in ("--port", "--agent-port", "--pods"):
        options.add_argument(name, type=int, required=True)
    given = options.parse_args()
    uvloop.run(serve(given.port, given.agent_port, given.pods))
