"""A lab for measuring: namespaces, programs in the kernel, an agent, and engines that one talks to directly."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Coroutine
from typing import TypeVar

from lab.config import Kind
from lab.machine import ending, home, stack, substrate
from lab.machine.home import Home
from lab.machine.stack import LoadRefused, Stack
from lab.machine.substrate import Ground, GroundError

T = TypeVar("T")

REFUSALS = (GroundError, LoadRefused, home.HomeError)


def measured(pods: int, seed: int, body: Callable[[Stack], Coroutine[None, None, T]]) -> T:
    """Runs `body` on a lab of its own, removed at the end. Raises REFUSALS where this machine cannot measure."""
    ending.obey()
    name = f"sonde-bench-{os.getpid()}"
    substrate.choose(name, Kind.NAMESPACES)
    with contextlib.ExitStack() as held:
        folder, _ = held.enter_context(home.taken(name))
        ground = held.enter_context(substrate.stand(Kind.NAMESPACES, name, pods, seed))
        held.callback(ending.ignore)
        return ending.run(_inside(ground, folder, body))


async def _inside(ground: Ground, folder: Home, body: Callable[[Stack], Coroutine[None, None, T]]) -> T:
    async with stack.measured_pods(ground, folder, lambda what: print(f"... {what}", flush=True)) as lab:
        return await body(lab)
