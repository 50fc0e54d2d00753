"""What an agent knows of its node, as plain values for /nodez: pods, slots, devices, levels, what is wrong. Pure."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from agent.devices.health import State
from agent.devices.inventory import Described
from agent.signals import gauge
from agent.view import Place, Seen

Json = dict[str, Any]
WARNINGS = 20


def pods_of(endpoints: Mapping[Place, Seen], cgroups: Callable[[Seen], int | None], now_ns: int) -> list[Json]:
    return [_pod(place, seen, cgroups(seen), now_ns) for place, seen in sorted(endpoints.items())]


def _pod(place: Place, seen: Seen, cgroups: int | None, now_ns: int) -> Json:
    known = [name for name, told in (("kernel", seen.row), ("engine", seen.engine)) if told is not None]
    return {
        "namespace": place.namespace,
        "pod": place.pod,
        "uid": place.uid,
        "port": place.port,
        "ip": seen.ip,
        "level": "+".join(known) or "none",
        "slot": seen.owner.slot if seen.owner else None,
        "cgroups": cgroups,
        "in_flight": None if seen.row is None else gauge(seen.row, "in_flight"),
        "engine": seen.engine.metrics.engine if seen.engine else None,
        "devices": devices_of(seen.devices, now_ns),
    }


def devices_of(described: Described, now_ns: int) -> list[Json]:
    return [{**asdict(one), **_state(state, now_ns)} for one, state in described]


def _state(state: State, now_ns: int) -> Json:
    told = asdict(state)
    read_ns = told.pop("read_ns")
    return {**told, "age_s": None if read_ns is None else round(max(0, now_ns - read_ns) / 1e9, 1)}


class Warnings(logging.Handler):
    """The last warnings of the log, for who comes later."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[str] = deque(maxlen=WARNINGS)
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
