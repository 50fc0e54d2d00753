"""Follows the agents' streams: one task for each agent, reconnecting; frames become events.

Refuses to know what the events are for. An agent that goes away is an event too; its signals then age out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

import grpc
import grpc.aio

from agent.backoff import backoff_s
from agent.identity import tls
from agent.identity.trust import Trust
from agent.proto import telemetry_pb2 as proto
from agent.proto.telemetry_pb2_grpc import TelemetryStub
from controller.model import Address, AgentGone, Device, EngineSignal, Event, FrameReceived, KernelSignal, Report

log = logging.getLogger(__name__)

# Full frames come each second. A stream that is silent for longer hangs on a node that went away without a word.
SILENCE_LIMIT_S = 3.0
# A stream that ends sooner is one more failure in a row, even if it carried something: the agent may be crashing.
STEADY_S = 5.0
FRAME_LIMIT_BYTES = 16 << 20

OPTIONS = (("grpc.max_receive_message_length", FRAME_LIMIT_BYTES),)

Emit = Callable[[Event, float], None]


@dataclass(slots=True)
class Traffic:
    """What the streams carried, for the metrics page."""

    connected: int = 0
    frames: int = 0
    reconnects: int = 0


class Agents:
    """Keeps one following task for each address that reconcile() names, inside a TaskGroup of the caller's."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        emit: Emit,
        subscriber: str,
        rng: Random,
        trust: Trust | None = None,
        silence_limit_s: float = SILENCE_LIMIT_S,
    ) -> None:
        self._group = group
        self._emit = emit
        self._subscriber = subscriber
        self._rng = rng
        self._trust = trust or Trust()
        self._silence_limit_s = silence_limit_s
        self._tasks: dict[Address, asyncio.Task[None]] = {}
        self._streams: Counter[str] = Counter()  # open ones by node: two while an agent's pod is replaced
        self.traffic = Traffic()

    def reconcile(self, addresses: Iterable[Address]) -> None:
        wanted = set(addresses)
        for gone in self._tasks.keys() - wanted:
            self._tasks.pop(gone).cancel()
        for new in wanted - self._tasks.keys():
            self._tasks[new] = self._group.create_task(self._follow(new), name=f"agent {new}")

    @property
    def known(self) -> int:
        """Agents that reconcile() named last, whether they answer or not."""
        return len(self._tasks)

    def close(self) -> None:
        self.reconcile(())

    async def _follow(self, address: Address) -> None:
        failures = 0
        while True:
            began_s = time.monotonic()
            problem = await self._stream(address)
            failures = 1 if time.monotonic() - began_s >= STEADY_S else failures + 1
            if failures == 1:
                log.warning("agent %s: %s; trying again", address, problem)
            self.traffic.reconnects += 1
            await asyncio.sleep(backoff_s(failures, self._rng))

    async def _stream(self, address: Address) -> str:
        """Follows one stream to its end; returns why it ended."""
        node: str | None = None
        try:
            async with self._trust.channel(address, tls.AGENT, OPTIONS) as channel:
                stub = TelemetryStub(channel)  # type: ignore[no-untyped-call]
                call = stub.Watch(proto.WatchRequest(subscriber=self._subscriber))
                while True:
                    async with asyncio.timeout(self._silence_limit_s):
                        frame = await call.read()
                    if frame is grpc.aio.EOF:
                        return "the stream ended"
                    if node is None:
                        node = frame.node
                        self._streams[node] += 1
                        self.traffic.connected += 1
                        log.info("agent %s: following node %s", address, node)
                    self.traffic.frames += 1
                    now = time.monotonic()
                    self._emit(frame_event(frame, now), now)
        except TimeoutError:
            return f"silent for {self._silence_limit_s:g} s"
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        finally:
            if node is not None:
                self.traffic.connected -= 1
                self._leave(node)

    def _leave(self, node: str) -> None:
        self._streams[node] -= 1
        if not self._streams[node]:
            del self._streams[node]
            self._emit(AgentGone(node), time.monotonic())


def frame_event(frame: proto.Frame, now: float) -> FrameReceived:
    """A frame as an event: ages become times of the controller's clock."""
    true_at_s = now - frame.age_us * 1e-6 if frame.HasField("age_us") else None
    return FrameReceived(frame.node, frame.full, [_report(report, now) for report in frame.endpoints], true_at_s)


def _report(report: proto.EndpointReport, now: float) -> Report:
    return Report(
        namespace=report.namespace,
        pod=report.pod,
        uid=report.pod_uid,
        port=report.port,
        kernel=_kernel(report.kernel, now) if report.HasField("kernel") else None,
        engine=_engine(report.engine, now) if report.HasField("engine") else None,
        fault=", ".join([f"{one.id}: {one.fault}" for one in report.devices if one.fault]),
        devices=tuple([_device(one, now) for one in report.devices]),
    )


def _device(one: proto.Device, now: float) -> Device:
    return Device(
        id=one.id,
        resource=one.resource,
        kind=one.kind,
        share=one.share,
        fault=one.fault,
        utilization=_share(round(one.utilization, 3)) if one.HasField("utilization") else None,
        memory_used_bytes=one.memory_used_bytes if one.HasField("memory_used_bytes") else None,
        memory_total_bytes=one.memory_total_bytes if one.HasField("memory_total_bytes") else None,
        at_s=round(now - one.age_us * 1e-6) if one.HasField("age_us") else None,
    )


def _share(value: float) -> float | None:
    return value if 0.0 <= value <= 1.0 else None  # NaN fails the test too


def _kernel(signal: proto.KernelSignal, now: float) -> KernelSignal:
    true_at_s = now - signal.age_us * 1e-6
    progress_at_s = now - signal.progress_age_us * 1e-6 if signal.HasField("progress_age_us") else None
    return KernelSignal(
        true_at_s=true_at_s,
        in_flight=signal.in_flight,
        waiting=min(signal.waiting, signal.in_flight),
        started=signal.started,
        progress=signal.chunks + signal.completed,
        progress_at_s=progress_at_s,
        usual_ttft_s=signal.usual_ttft_us * 1e-6 if signal.HasField("usual_ttft_us") else None,
        usual_gap_s=signal.usual_gap_us * 1e-6 if signal.HasField("usual_gap_us") else None,
        low_gap_s=signal.low_gap_us * 1e-6 if signal.HasField("low_gap_us") else None,
        srtt_s=signal.srtt_us * 1e-6 if signal.HasField("srtt_us") else None,
        completed=signal.completed,
        failed=signal.status_5xx + signal.server_aborted,
        chunks=signal.chunks,
    )


def _engine(signal: proto.EngineSignal, now: float) -> EngineSignal:
    return EngineSignal(
        true_at_s=now - signal.age_us * 1e-6,
        engine=signal.engine,
        running=signal.running if signal.HasField("running") else None,
        waiting=signal.waiting if signal.HasField("waiting") else None,
        kv_cache_usage=_share(signal.kv_cache_usage) if signal.HasField("kv_cache_usage") else None,
        models=tuple(signal.models),
        running_adapters=tuple(signal.running_adapters),
        waiting_adapters=tuple(signal.waiting_adapters),
        max_adapters=signal.max_adapters if signal.HasField("max_adapters") else None,
        kv_blocks=signal.kv_blocks if signal.HasField("kv_blocks") else None,
        kv_block_tokens=signal.kv_block_tokens if signal.HasField("kv_block_tokens") else None,
    )
