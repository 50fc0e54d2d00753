"""One arm of the demo: the same schedule through one of Envoy's listeners while one pod stands still for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from lab import load, summary, truth, wire
from lab.config import MODEL, DemoConfig
from lab.load import Progress, Result, Target
from lab.stack import HUNG_POD, Stack
from lab.workload import Request

REDRAW_S = 1.0

LISTENERS = {
    "sonde": "Sonde",
    "round_robin": "Envoy round robin",
    "least_request": "Envoy least request",
}


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm came to."""

    name: str
    results: tuple[Result, ...]
    hang: summary.Hang | None


async def run_arm(
    name: str,
    schedule: Sequence[Request],
    stack: Stack,
    config: DemoConfig,
    redraw: Callable[[str, Progress], Awaitable[None]],
) -> Arm:
    """Runs one arm to its last answer. Raises ProcessError if anything of the lab ends meanwhile."""
    ground = stack.ground
    target = Target(ground.node_ip, getattr(ground.ports, name), MODEL, label=name)
    progress = Progress(len(schedule))
    since_ns = time.monotonic_ns()
    async with asyncio.TaskGroup() as group:
        helpers = [
            group.create_task(stack.broken(), name="processes"),
            group.create_task(_every(REDRAW_S, lambda: redraw(LISTENERS[name], progress)), name="redraw"),
        ]
        hang = group.create_task(_hang(stack, config), name="hang")
        results = await load.send(schedule, target, progress)
        await hang
        for helper in helpers:
            helper.cancel()
    log = stack.home.truth(ground.pods[HUNG_POD].name)
    records, happenings = truth.read(log)
    return Arm(name, results, summary.hang(records, happenings, since_ns, time.monotonic_ns()))


async def _hang(stack: Stack, config: DemoConfig) -> None:
    """Stops the third pod's engine at half time; returns when it goes on."""
    await asyncio.sleep(config.duration_s / 2)
    pod = stack.ground.pods[HUNG_POD]
    await wire.turn_knobs(pod.ip, stack.ground.ports.control, hang_s=config.hang_s)
    await asyncio.sleep(config.hang_s)


async def _every(interval_s: float, action: Callable[[], Awaitable[None]]) -> None:
    while True:
        await action()
        await asyncio.sleep(interval_s)


async def first(wanted: Coroutine[Any, Any, object], stack: Stack) -> None:
    """Runs something while watching the processes. Raises ProcessError if one of them ends."""
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(stack.broken(), name="processes")
        await wanted
        watch.cancel()
