"""What befalls pods during a simulation. Pure values; `simulation.py` brings them about."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slow:
    """Work takes longer for a while: a throttled, shared or broken accelerator."""

    pods: tuple[int, ...]
    at_s: float
    prefill: float
    decode: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing comes out, connections stay, and the page says what it said."""

    pods: tuple[int, ...]
    at_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class Far:
    """The way to a pod becomes longer, each way."""

    pods: tuple[int, ...]
    at_s: float
    one_way_s: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Lossy:
    """Packets to and from a pod are lost; each costs a retransmission timeout at least."""

    pods: tuple[int, ...]
    at_s: float
    rate: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Dark:
    """New connections to a pod time out."""

    pods: tuple[int, ...]
    at_s: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Absent:
    """Pods that are not ready until `until_s`; then cold (slow) for `cold_s`."""

    pods: tuple[int, ...]
    until_s: float
    at_s: float = 0.0
    cold_s: float = 20.0
    prefill: float = 3.0
    decode: float = 1.5


@dataclass(frozen=True, slots=True)
class AgentDead:
    """No news from the kernels any more."""

    at_s: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class AgentLies:
    """The kernels' counts are replaced by these for every pod, or by anything up to them, fresh each time."""

    at_s: float
    in_flight: float
    waiting: float
    until_s: float = math.inf
    by_chance: bool = False


@dataclass(frozen=True, slots=True)
class AgentStuck:
    """The kernels' counts stay what they were, and are said to be fresh."""

    at_s: float
    until_s: float = math.inf


Fault = Slow | Hang | Far | Lossy | Dark | Absent | AgentDead | AgentLies | AgentStuck
