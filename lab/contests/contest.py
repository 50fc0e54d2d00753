"""One arm of the demo: the same schedule through one of Envoy's listeners while one pod stands still for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from lab import wire
from lab.config import MODEL, DemoConfig
from lab.contests import load, summary
from lab.contests.load import Progress, Result, Target
from lab.contests.workload import Request
from lab.engines import truth
from lab.machine.stack import HUNG_POD, Stack

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
    progress: Progress,
) -> Arm:
    """Runs one arm to its last answer. Raises ProcessError if anything of the lab ends meanwhile."""
    ground = stack.ground
    target = Target(ground.node_ip, getattr(ground.ports, name), MODEL, label=name)
    since_ns = time.monotonic_ns()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(stack.broken(), name="processes")
        hang = group.create_task(_hang(stack, config), name="hang")
        results = await load.send(schedule, target, progress)
        await hang
        watching.cancel()
    log = stack.home.truth(ground.pods[HUNG_POD].name)
    records, happenings = truth.read(log)
    return Arm(name, results, summary.hang(records, happenings, since_ns, time.monotonic_ns()))


async def _hang(stack: Stack, config: DemoConfig) -> None:
    """Stops the third pod's engine at half time; returns when it goes on."""
    await asyncio.sleep(config.duration_s / 2)
    pod = stack.ground.pods[HUNG_POD]
    await wire.turn_knobs(pod.ip, stack.ground.ports.control, hang_s=config.hang_s)
    await asyncio.sleep(config.hang_s)


async def first(wanted: Coroutine[Any, Any, object], stack: Stack) -> None:
    """Runs something while watching the processes. Raises ProcessError if one of them ends."""
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(stack.broken(), name="processes")
        await wanted
        watch.cancel()
