"""Where a pick's time goes: CPU of each stage of a request in the controller, without gRPC and without a gateway.

    python -m bench.stages [--pods N ...] [--sizes BYTES ...]

The controller's own objects take messages as Envoy sends them, one request after the other, and the counts of the pods'
node as an agent streams them, one frame for so many requests. What gRPC costs around them is the figure of
bench.nothing in bench.picker. Here caches are warm and nobody else runs: behind Envoy the same code takes two to three
times as long. Of each figure about 0.7 us are the clock's.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from agent.cluster.objects import Pod, Pool, cluster_of
from agent.proto.telemetry_pb2 import EndpointReport, Frame
from bench.pressure import request as http_request
from controller.catalog.resolving import Resolver
from controller.choosing.admission import gate_of
from controller.choosing.picker import Pick, Picker
from controller.choosing.room import Room
from controller.choosing.saturation import SONDE as LIMITS
from controller.endpoints.table import Table
from controller.exporting.counts import Counts, Series
from controller.gateway.exchange import Exchange
from controller.gateway.modes import BUFFERED, FULL_DUPLEX
from controller.model import ClusterChanged, FrameReceived
from controller.sources.agents import frame_event

MODES = {"BUFFERED": BUFFERED, "FULL_DUPLEX_STREAMED": FULL_DUPLEX}
GROUP, NAMESPACE, POOL, PORT = "inference.networking.k8s.io", "default", "p", 8000
# as bench.picker's stand-in sees it: 1500 requests a second, a frame each 20 ms, 16 requests at once
REQUESTS_PER_FRAME = 30
OPEN = 16
STEP_S = 1 / 1500
BEAT = 50  # frames between two full ones
ROUNDS = 5
REQUESTS = 600
STAGES = ("read messages", "resolve", "pick", "count", "answer", "close", "read frames", "apply frames")


def messages(mode: int, size: int) -> list[bytes]:
    """What Envoy 1.40 sends of one completion."""
    _head, _, body = http_request("/now/v1/completions", size).partition(b"\r\n\r\n")
    first = ext_proc.ProcessingRequest()
    first.protocol_config.request_body_mode = mode
    first.metadata_context.SetInParent()
    told = {
        ":authority": b"bench",
        ":path": b"/now/v1/completions",
        ":method": b"POST",
        ":scheme": b"http",
        "content-type": b"application/json",
        "content-length": str(len(body)).encode(),
        "x-forwarded-proto": b"http",
        "x-request-id": b"4b36c1d2-7a2e-4c2f-9f5a-7f4f1d1c6c1e",
    }
    for key, value in told.items():
        first.request_headers.headers.headers.add(key=key, raw_value=value)
    whole = ext_proc.ProcessingRequest(request_body=ext_proc.HttpBody(body=body, end_of_stream=mode != FULL_DUPLEX))
    sent = [first, whole]
    if mode == FULL_DUPLEX:
        sent.append(ext_proc.ProcessingRequest(request_body=ext_proc.HttpBody(end_of_stream=True)))
    for message in sent:
        message.metadata_context.SetInParent()
    return [message.SerializeToString() for message in sent]


@dataclass(slots=True)
class Pods:
    """Counts of pods whose requests end after so many others."""

    count: int
    started: list[int] = field(init=False)
    ended: list[int] = field(init=False)
    changed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.started, self.ended = [0] * self.count, [0] * self.count

    def begin(self, at: int) -> None:
        self.started[at] += 1
        self.changed.add(at)

    def end(self, at: int) -> None:
        self.ended[at] += 1
        self.changed.add(at)

    def frame(self, full: bool) -> bytes:
        frame = Frame(node="node", full=full, age_us=0)
        for at in range(self.count) if full else sorted(self.changed):
            report = EndpointReport(namespace=NAMESPACE, pod=f"pod-{at}", pod_uid=f"uid-{at}", port=PORT)
            kernel = report.kernel
            kernel.started, kernel.completed = self.started[at], self.ended[at]
            kernel.in_flight = self.started[at] - self.ended[at]
            kernel.chunks = self.ended[at]
            kernel.usual_ttft_us, kernel.usual_gap_us, kernel.low_gap_us, kernel.srtt_us = 5000, 500, 400, 200
            if kernel.in_flight:
                kernel.progress_age_us = 500
            report.engine.engine, report.engine.running, report.engine.waiting = "vllm", kernel.in_flight, 0
            frame.endpoints.append(report)
        self.changed.clear()
        return frame.SerializeToString()


class Bench:
    """The parts of a controller, wired as the daemon and extproc.py wire them."""

    def __init__(self, pods: int) -> None:
        self.table = Table(GROUP, NAMESPACE, POOL)
        self.picker = Picker(self.table, rng=Random(1))
        self.room = Room(self.picker, gate_of("sonde", LIMITS))
        self.resolver = Resolver(self.table, Random(1))
        self.counts = Counts()
        self.pods = Pods(pods)
        self.now = 1000.0
        self.turn = 0
        self.places = {f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}:{PORT}": at for at in range(pods)}
        objects: list[Any] = [Pool(NAMESPACE, POOL, GROUP, "v1", {"app": "llm"}, (PORT,), "FailClose", "")]
        for address, at in self.places.items():
            objects.append(
                Pod(NAMESPACE, f"pod-{at}", f"uid-{at}", {"app": "llm"}, {}, address.split(":")[0], "node", True, False)
            )
        self.table.apply(ClusterChanged(cluster_of(objects)), self.now)
        self.spent: dict[str, list[int]] = {}
        self.open: deque[int] = deque()  # the pods of requests in flight
        self.frames = 0
        self._hear(full=True)

    def timed(self, stage: str, act: Callable[[], Any]) -> Any:
        began = time.thread_time_ns()
        result = act()
        self.spent.setdefault(stage, []).append(time.thread_time_ns() - began)
        return result

    def request(self, sent: list[bytes]) -> None:
        self.now += STEP_S
        self.turn += 1
        exchange = self.timed("read messages", lambda: _read(sent))
        asks = exchange.asks
        request = self.timed("resolve", lambda: asks.looked_up(self.resolver.resolve(asks, self.now)))
        pick = self.timed("pick", lambda: self.room.enter(request, self.now, exchange.hurried))
        series = self.timed("count", lambda: self.counts.picked(request, 1e-5, size_bytes=exchange.size_bytes))
        self.timed("answer", lambda: exchange.answer(pick.destination, request.resolved.rewrite))
        self.timed("close", lambda: self._close(series, pick))
        self._serve(pick)
        if self.turn % REQUESTS_PER_FRAME == 0:
            self._hear(full=self.frames % BEAT == 0)

    def _serve(self, pick: Pick) -> None:
        """The pod takes the request, and another one ends."""
        at = self.places[pick.row.endpoint.address]
        self.pods.begin(at)
        self.open.append(at)
        if len(self.open) > OPEN:
            self.pods.end(self.open.popleft())

    def _hear(self, full: bool) -> None:
        data = self.pods.frame(full)
        self.frames += 1
        frame: FrameReceived = self.timed("read frames", lambda: frame_event(Frame.FromString(data), self.now))
        self.timed("apply frames", lambda: self._apply(frame))

    def _close(self, series: Series, pick: Pick) -> None:
        self.counts.ended(series, None)
        pick.detach(self.now)

    def _apply(self, frame: FrameReceived) -> None:
        self.table.apply(frame, self.now)
        self.picker.prepare(self.now)


def _read(sent: list[bytes]) -> Exchange:
    exchange = Exchange()
    for message in sent:
        exchange.receive(message)
    return exchange


def measured(pods: int, sent: list[bytes]) -> dict[str, float]:
    """Microseconds of each stage, the best of the rounds: the nearest to what the code costs on a shared machine."""
    bench = Bench(pods)
    best: dict[str, float] = {}
    for turn in range(ROUNDS + 1):
        bench.spent.clear()
        for _ in range(REQUESTS):
            bench.request(sent)
        for stage, spent_ns in bench.spent.items() if turn else ():  # the first round warms up
            best[stage] = min(best.get(stage, math.inf), sum(spent_ns) / REQUESTS / 1000)
    return best


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pods", type=int, nargs="+", default=(10, 1000), metavar="N")
    options.add_argument("--sizes", type=int, nargs="+", default=(500, 200_000), metavar="BYTES")
    given = options.parse_args()
    print("| mode | body | pods | " + " | ".join(STAGES) + " | sum |")
    print("|---" * (len(STAGES) + 4) + "|")
    for (name, mode), size, pods in itertools.product(MODES.items(), given.sizes, given.pods):
        found = measured(pods, messages(mode, size))
        cells = " | ".join(f"{found[stage]:.1f}" for stage in STAGES)
        print(f"| {name} | {size:,} B | {pods} | {cells} | {sum(found.values()):.0f} us |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
