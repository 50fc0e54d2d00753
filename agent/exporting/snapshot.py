"""What one scrape of the agent's metrics is made from: values, taken by who owns the state, written elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agent.devices.inventory import Described
from agent.kernel.programs import Programs
from agent.placing.queues import Sockets
from agent.placing.slots import Owner
from agent.signals import Row
from agent.steering.state import SteeringState

Histogram = npt.NDArray[np.uint32]


class Histograms(Protocol):
    """Those of one slot, by field of struct sonde_slot."""

    def __getitem__(self, name: str, /) -> Histogram: ...


@dataclass(frozen=True, slots=True)
class SlotState:
    owner: Owner
    row: Row
    histograms: Histograms
    sockets: Sockets = field(default_factory=Sockets)


@dataclass(frozen=True, slots=True)
class PodState:
    """One pod, by its slots: one for each serving port."""

    namespace: str
    pod: str
    slots: Sequence[SlotState]


@dataclass(frozen=True, slots=True)
class PodDevices:
    """One pod's accelerators."""

    namespace: str
    pod: str
    devices: Described


@dataclass(frozen=True, slots=True)
class AgentState:
    drops: Mapping[str, int]
    owners_used: int
    owners_capacity: int
    slots_used: int
    slots_retired: int
    slots_capacity: int
    endpoints: Mapping[str, int]  # by which signals are known of them
    rows_sampled: int
    watchers: int
    pages_read: int
    pages_failed: int
    cpu_s: float
    rss_bytes: int
    programs: Programs = field(default_factory=dict)
    sample_age_s: float | None = None  # None: no slot was ever read
    measurement_level: int = 1  # 1: segments, 2: also write and read calls
    kernel_share: float | None = None  # of one core, in the programs; None: not timed
    shed: Sequence[str] = ()  # what the programs leave out by now
    node: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    now_ns: int
    pods: Sequence[PodState]
    agent: AgentState
    devices: Sequence[PodDevices] = ()
    steering: SteeringState | None = None  # None: nothing steers on this node
