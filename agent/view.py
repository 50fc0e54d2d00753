"""Everything the agent knows of its node's endpoints, and since which version: the one state that all tasks share.

Owned by the event loop: every method is called there and none waits. Knows no maps, sockets or clocks: rows, pages and
times are given to it. A version is a count of changes; whoever remembers the version last sent gets what is newer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agent.devices.health import State
from agent.devices.inventory import Described
from agent.devices.names import Device
from agent.engines.families import EngineMetrics
from agent.engines.places import Hint
from agent.placing.pods import ServingPod
from agent.placing.slots import Owner
from agent.proto import telemetry_pb2 as proto
from agent.proto.telemetry_pb2 import EndpointReport, EngineSignal, Frame
from agent.recent import NO_GAPS, Counts, Gaps, Usual, begin_usual, follow_gaps, follow_usual
from agent.signals import ACTIVITY, COLUMN, FIELDS, REPORTED, Row, kernel_signal, sums_of

_REPORTED = np.array([field in REPORTED for field in FIELDS])
_GAPS = COLUMN["gaps"]
_ACTIVITY = [COLUMN[field] for field in ACTIVITY]


class Place(NamedTuple):
    """One serving port of one pod, as the stream names it."""

    namespace: str
    pod: str
    uid: str  # "": the manifest has none
    port: int


@dataclass(slots=True)
class Engine:
    metrics: EngineMetrics
    read_ns: int


@dataclass(slots=True)
class Seen:
    """What is known of one endpoint."""

    ip: str | None
    hint: Hint  # where its engine's page may be
    owner: Owner | None = None  # None: nothing in the kernel counts it
    row: Row | None = None
    usual: Usual | None = None
    gaps: Gaps = NO_GAPS
    renewed: Row | None = None  # the row that the two were last renewed by
    engine: Engine | None = None
    version: int = 0  # of the last change that is news
    devices: Described = ()
    activity: int = 0  # version of the last change that may have moved the engine's gauges

    def report(self, place: Place, sampled_ns: int, now_ns: int) -> EndpointReport:
        report = EndpointReport(namespace=place.namespace, pod=place.pod, pod_uid=place.uid, port=place.port)
        if self.row is not None and self.usual is not None:
            report.kernel.CopyFrom(kernel_signal(self.row, self.usual, self.gaps, sampled_ns, now_ns))
        if self.engine is not None:
            report.engine.CopyFrom(_engine_signal(self.engine, now_ns))
        report.devices.extend(_device(one, state, now_ns) for one, state in self.devices)
        return report


def _device(one: Device, state: State, now_ns: int) -> proto.Device:
    return proto.Device(
        id=one.id,
        resource=one.resource,
        kind=one.kind.value,
        share=one.share,
        fault=state.fault or "",
        utilization=state.utilization,
        memory_used_bytes=state.memory_used_bytes,
        memory_total_bytes=state.memory_total_bytes,
        age_us=None if state.read_ns is None else max(0, now_ns - state.read_ns) // 1000,
    )


def _engine_signal(engine: Engine, now_ns: int) -> EngineSignal:
    return EngineSignal(
        age_us=max(0, now_ns - engine.read_ns) // 1000,
        engine=engine.metrics.engine or "",
        running=engine.metrics.running,
        waiting=engine.metrics.waiting,
        kv_cache_usage=engine.metrics.kv_cache_usage,
        models=engine.metrics.models,
        running_adapters=engine.metrics.running_adapters,
        waiting_adapters=engine.metrics.waiting_adapters,
        max_adapters=engine.metrics.max_adapters,
        kv_blocks=engine.metrics.kv_blocks,
        kv_block_tokens=engine.metrics.kv_block_tokens,
    )


class View:
    def __init__(self, node: str) -> None:
        self._node = node
        self._seen: dict[Place, Seen] = {}
        self._by_slot: dict[int, Seen] = {}
        self._last: npt.NDArray[np.int64] = np.zeros((0, len(FIELDS)), np.int64)
        self.version = 0
        self.membership = 0  # version of the last change of who is there
        self.sampled_ns = 0

    @property
    def placed(self) -> bool:
        """Whether it is known who is there; before, an empty frame would say that nobody is."""
        return self.membership > 0

    def endpoints(self) -> Mapping[Place, Seen]:
        return self._seen

    def get(self, place: Place) -> Seen | None:
        return self._seen.get(place)

    def place(self, pods: Collection[ServingPod], owners: Mapping[Place, Owner]) -> bool:
        """Sets who is there and which slot counts whom; True where that is news. Sample before the next frame."""
        known = dict(_places(pods))
        seen = {place: self._seen.get(place) or Seen(ip, hint) for place, (ip, hint) in known.items()}
        changed = not self.placed or seen.keys() != self._seen.keys()
        for place, one in seen.items():
            owner, (ip, one.hint) = owners.get(place), known[place]
            if (one.ip, one.owner) == (ip, owner):
                continue
            if one.owner != owner:
                one.row = one.usual = one.renewed = None
                one.gaps = NO_GAPS
            one.ip, one.owner = ip, owner
            changed = True
        if changed:
            self._seen = seen
            self._by_slot = {one.owner.slot: one for one in seen.values() if one.owner is not None}
            self._last = self._last[:0]  # every row counts as changed in the next sample
            self.version += 1
            self.membership = self.version
        return changed

    def sample(self, rows: npt.NDArray[np.int64], now_ns: int) -> bool:
        """Takes the rows of the first slots; True where one that is reported changed.

        `rows` is kept until the next call and must not change before.
        """
        self.sampled_ns = now_ns
        last, self._last = self._last, rows
        if len(last) != len(rows):
            last = np.full_like(rows, -1)
        different = rows != last
        if not different.any():
            return False
        news = (different & _REPORTED).any(axis=1)
        version = self.version + 1
        for slot in np.flatnonzero(different.any(axis=1)).tolist():
            self._take_row(slot, rows[slot].tolist(), bool(news[slot]), version)
        if not news.any():
            return False
        self.version = version
        return True

    def confirm(self, now_ns: int) -> None:
        """The rows are those that sample() was given last."""
        self.sampled_ns = now_ns

    def _take_row(self, slot: int, row: list[int], news: bool, version: int) -> None:
        one = self._by_slot.get(slot)
        # between the reset of a slot and place() the row may be another pod's than the view knows
        if one is None or one.owner is None or one.owner.generation != row[COLUMN["generation"]]:
            return
        before, one.row = one.row, row
        if one.usual is None:
            one.usual = begin_usual(sums_of(row, self.sampled_ns))
        if news:
            one.version = version
        if before is None or any(row[column] != before[column] for column in _ACTIVITY):
            one.activity = version

    def take_page(self, place: Place, metrics: EngineMetrics, read_ns: int) -> bool:
        """Notes what an engine's page said; True where it is news."""
        one = self._seen.get(place)
        if one is None:
            return False
        changed = one.engine is None or one.engine.metrics != metrics
        one.engine = Engine(metrics, read_ns)
        if changed:
            self.version += 1
            one.version = self.version
        return changed

    def take_devices(self, devices: Mapping[tuple[str, str], Described]) -> bool:
        """Sets the devices of pods, by namespace and name; True where that is news."""
        version = self.version + 1
        for place, one in self._seen.items():
            now = devices.get((place.namespace, place.pod), ())
            if one.devices != now:
                one.version = self.version = version
            one.devices = now  # the same may have been read anew
        return self.version == version

    def renew(self, now_ns: int, histogram: Callable[[int], Counts]) -> bool:
        """Moves the window of what pods usually take; True where that is news. `histogram` gives the gaps of a slot."""
        version = self.version + 1
        for slot, one in self._by_slot.items():
            if one.row is not None and one.usual is not None and not (one.row is one.renewed and one.usual.settled):
                before = one.usual.ttft_us, one.usual.gap_us, one.gaps.quartile_us
                if one.renewed is None or one.row[_GAPS] != one.renewed[_GAPS]:
                    one.gaps = follow_gaps(one.gaps, histogram(slot), now_ns)
                one.usual, one.renewed = follow_usual(one.usual, sums_of(one.row, now_ns)), one.row
                if before != (one.usual.ttft_us, one.usual.gap_us, one.gaps.quartile_us):
                    one.version = self.version = version
        return self.version == version

    def frame(self, since: int | None, now_ns: int) -> Frame:
        """What changed after version `since`; everything where `since` is None or somebody came or went after it."""
        full = since is None or since < self.membership
        news = self._seen.items() if full or since != self.version else ()
        reports = [
            one.report(place, self.sampled_ns, now_ns) for place, one in news if full or one.version > (since or 0)
        ]
        age_us = max(0, now_ns - self.sampled_ns) // 1000 if self.sampled_ns else None
        return Frame(node=self._node, full=full, endpoints=reports, age_us=age_us)


def _places(pods: Collection[ServingPod]) -> Iterator[tuple[Place, tuple[str | None, Hint]]]:
    for pod in pods:
        for port in pod.ports:
            yield Place(pod.namespace, pod.name, pod.uid or "", port), (pod.ip, pod.hint(port))
