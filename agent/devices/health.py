"""What is known of a device's state, and when it is lost. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# What an application did wrong: the device is well. All other Xids mean that requests on the device fail.
APPLICATION_XIDS = frozenset((13, 31, 43, 45, 68, 109))


@dataclass(frozen=True, slots=True)
class State:
    """None is unknown."""

    utilization: float | None = None  # 0..1
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()  # why its clocks are held down
    fault: str | None = None  # it is lost, and why
    # when its source last told, on the monotonic clock; the same state read again is no news
    read_ns: int | None = field(default=None, compare=False)


def xid_fault(xid: int) -> str | None:
    """What an Xid says against a device; None where only an application failed, or nothing did."""
    return None if xid <= 0 or xid in APPLICATION_XIDS else f"Xid {xid}"


def share(value: float, whole: float) -> float | None:
    """A part of a whole as 0..1; None for what cannot be."""
    if not (math.isfinite(value) and math.isfinite(whole)) or whole <= 0 or not 0 <= value <= whole:
        return None
    return value / whole


def whole_bytes(value: float, unit_bytes: int) -> int | None:
    """None for what is no amount: exporters print NaN, and counters of dead devices are absurd."""
    if not math.isfinite(value) or value < 0 or value * unit_bytes >= 2**63:
        return None
    return round(value * unit_bytes)


def number(value: float, low: float, high: float) -> float | None:
    return value if math.isfinite(value) and low <= value <= high else None


def joined(first: State, second: State) -> State:
    """What either knows; of two that know, the first is believed. A fault that either knows counts."""
    return State(
        utilization=_known(first.utilization, second.utilization),
        memory_used_bytes=_known_bytes(first.memory_used_bytes, second.memory_used_bytes),
        memory_total_bytes=_known_bytes(first.memory_total_bytes, second.memory_total_bytes),
        power_w=_known(first.power_w, second.power_w),
        temperature_c=_known(first.temperature_c, second.temperature_c),
        throttled=first.throttled or second.throttled,
        fault=first.fault or second.fault,
        read_ns=min((at for at in (first.read_ns, second.read_ns) if at is not None), default=None),
    )


def _known(first: float | None, second: float | None) -> float | None:
    return second if first is None else first


def _known_bytes(first: int | None, second: int | None) -> int | None:
    return second if first is None else first
