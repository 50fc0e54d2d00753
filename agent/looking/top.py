"""`sonde-agent top`: what the agent of a node streams, as a live table. Reads the running agent's own /state.

Not its stream, which wants a controller's certificate: who may see the node's metrics may see this.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf import json_format

from agent.looking import asking, terminal
from agent.looking.columns import Column
from agent.looking.terminal import Feed, Options, Seen
from agent.proto import telemetry_pb2 as proto

RATE_S = 5.0
SILENT_S = 1.0  # worth a colour: in flight and no byte of an answer for so long

COLUMNS = (
    Column("pod", "pod", "text", "its name"),
    Column("namespace", "namespace", "text", "of the pod"),
    Column("port", "port", "count", "that is measured"),
    Column("in_flight", "in flight", "count", "requests begun and not ended"),
    Column("waiting", "waiting", "count", "of these, nothing of the answer's data sent yet"),
    Column("streaming", "streaming", "count", "of these, the answer is under way"),
    Column("ttft_s", "TTFT", "time", "recent mean time to first token"),
    Column("gap_s", "gap", "time", "recent mean time between two chunks"),
    Column("silent_s", "silent", "time", "since the last byte of an answer, while something is in flight", ""),
    Column("rate", "starts/s", "number", "requests begun a second, over the last seconds"),
    Column("started", "started", "count", "requests begun since the programs were loaded"),
    Column("aborted", "aborted", "count", "requests that the client or the pod broke off"),
    Column("errors", "5xx", "count", "answers with a status of 500 or more"),
    Column("connections", "conns", "count", "connections open"),
    Column("retransmits", "retrans", "count", "segments the pod sent again"),
    Column("rtt_s", "RTT", "time", "smoothed round trip of a recent connection"),
    Column("engine", "engine", "text", "what its metrics page looks like"),
    Column("running", "running", "count", "requests, as the engine says"),
    Column("queued", "queued", "count", "requests waiting, as the engine says"),
    Column("kv", "KV", "share", "KV cache in use, as the engine says"),
    Column("utilization", "devices", "share", "mean utilization of its accelerators, where somebody tells", ""),
    Column("fault", "fault", "text", "why requests on one of its accelerators fail", ""),
)

Key = tuple[str, str, int]


def parse(arguments: Sequence[str]) -> Options:
    """What is wanted. Faults print one line to stderr and exit with status 2."""
    parser = terminal.Parser(
        prog="sonde-agent top",
        description="The endpoints as a running agent streams them: a live table, or lines into a pipe.",
        allow_abbrev=False,
    )
    terminal.add_flags(parser, "127.0.0.1:9432", COLUMNS)
    return terminal.options(parser.parse_args(arguments))


def main(arguments: Sequence[str]) -> int:
    wanted = parse(arguments)
    feed = Feed()
    return terminal.run("sonde-agent top", feed, lambda: follow(feed, wanted), COLUMNS, wanted)


def follow(feed: Feed, wanted: Options) -> None:
    """Asks for ever; what fails is asked again."""
    mirror = Mirror()
    while True:
        try:
            frame = json_format.ParseDict(
                asking.state(wanted.address, "agent"), proto.Frame(), ignore_unknown_fields=True
            )
            now = time.monotonic()
            mirror.take(frame, now)
            feed.put(mirror.seen(now))
        except asking.NoDaemon as fault:
            feed.fail(str(fault))
        except json_format.ParseError as error:
            feed.fail(f"what answers at {wanted.address} is no agent's metrics port ({error})")
        time.sleep(wanted.interval_s)


class Mirror:
    """The endpoints of a node as its frames tell them."""

    def __init__(self) -> None:
        self._node = ""
        self._reports: dict[Key, proto.EndpointReport] = {}
        self._starts: dict[Key, deque[tuple[float, int]]] = {}

    def take(self, frame: proto.Frame, now: float) -> None:
        """A full frame."""
        self._node = frame.node
        self._reports = told = {(one.namespace, one.pod, one.port): one for one in frame.endpoints}
        self._starts = {key: self._starts.get(key, deque()) for key in self._reports}
        for key, one in told.items():
            if one.HasField("kernel"):
                self._count(self._starts[key], one.kernel.started, now)

    @staticmethod
    def _count(starts: deque[tuple[float, int]], started: int, now: float) -> None:
        if starts and started < starts[-1][1]:  # counted anew
            starts.clear()
        starts.append((now, started))
        while len(starts) > 2 and starts[1][0] <= now - RATE_S:
            starts.popleft()

    def seen(self, now: float) -> Seen:
        rows = [_row(one, rate(self._starts[key])) for key, one in sorted(self._reports.items())]
        facts = {"node": self._node}
        alarms = frozenset(at for at, row in enumerate(rows) if (row["silent_s"] or 0.0) >= SILENT_S or row["fault"])
        return Seen([_title(self._node, rows)], facts, rows, now, alarms)


def rate(starts: Iterable[tuple[float, int]]) -> float | None:
    """Starts a second between the oldest and the latest count; None where there is but one."""
    counts = list(starts)
    if len(counts) < 2 or counts[-1][0] <= counts[0][0]:
        return None
    return (counts[-1][1] - counts[0][1]) / (counts[-1][0] - counts[0][0])


def _title(node: str, rows: list[dict[str, Any]]) -> str:
    known = [row["in_flight"] for row in rows if row["in_flight"] is not None]
    flight = f"{sum(known)} in flight" if known or not rows else "in flight unknown"
    unknown = f", {len(rows) - len(known)} not measured" if len(known) < len(rows) else ""
    return f"sonde-agent  node {node}  {len(rows)} endpoints  {flight}{unknown}"


def _row(one: proto.EndpointReport, starts_per_s: float | None) -> dict[str, Any]:
    return {
        "pod": one.pod,
        "namespace": one.namespace,
        "port": one.port,
        **_kernel(one.kernel if one.HasField("kernel") else None),
        "rate": starts_per_s,
        **_engine(one.engine if one.HasField("engine") else None),
        **_devices(one.devices),
    }


def _devices(devices: Sequence[proto.Device]) -> Mapping[str, Any]:
    told = [one.utilization for one in devices if one.HasField("utilization")]
    return {
        "utilization": sum(told) / len(told) if told else None,
        "fault": ", ".join(f"{one.id}: {one.fault}" for one in devices if one.fault) or None,
        "devices": [_device(one) for one in devices],
    }


def _device(one: proto.Device) -> Mapping[str, Any]:
    return {
        "id": one.id,
        "resource": one.resource,
        "kind": one.kind,
        "share": one.share or None,
        "fault": one.fault or None,
        "utilization": one.utilization if one.HasField("utilization") else None,
        "memory_used_bytes": one.memory_used_bytes if one.HasField("memory_used_bytes") else None,
        "memory_total_bytes": one.memory_total_bytes if one.HasField("memory_total_bytes") else None,
        "age_s": one.age_us / 1e6 if one.HasField("age_us") else None,
    }


def _kernel(signal: proto.KernelSignal | None) -> Mapping[str, Any]:
    if signal is None:
        names = "in_flight waiting streaming ttft_s gap_s silent_s started aborted errors connections retransmits rtt_s"
        return dict.fromkeys(names.split())
    return {
        "in_flight": signal.in_flight,
        "waiting": signal.waiting,
        "streaming": max(0, signal.in_flight - signal.waiting),
        "ttft_s": _seconds(signal, "usual_ttft_us"),
        "gap_s": _seconds(signal, "usual_gap_us"),
        "silent_s": _seconds(signal, "progress_age_us"),
        "started": signal.started,
        "aborted": signal.client_aborted + signal.server_aborted,
        "errors": signal.status_5xx,
        "connections": signal.connections,
        "retransmits": signal.retransmits,
        "rtt_s": _seconds(signal, "srtt_us"),
    }


def _engine(signal: proto.EngineSignal | None) -> Mapping[str, Any]:
    if signal is None:
        return dict.fromkeys(("engine", "running", "queued", "kv"))
    return {
        "engine": signal.engine or None,
        "running": signal.running if signal.HasField("running") else None,
        "queued": signal.waiting if signal.HasField("waiting") else None,
        "kv": signal.kv_cache_usage if signal.HasField("kv_cache_usage") else None,
    }


def _seconds(signal: proto.KernelSignal, name: Any) -> float | None:
    return getattr(signal, name) / 1e6 if signal.HasField(name) else None
