"""`sonde-lab demo` and `up`: brings the lab up, runs the contest, says what came of it, takes the lab down."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from lab import wire
from lab.config import DemoConfig, Kind
from lab.contests import contest
from lab.contests.load import Progress
from lab.contests.workload import schedule
from lab.looking import relay, story
from lab.looking.faults import leaves
from lab.looking.panel import Panel
from lab.looking.screen import Screen
from lab.machine import ending, envoy, home, stack, substrate
from lab.machine.home import Home
from lab.machine.processes import ProcessError
from lab.machine.stack import HUNG_POD, SLOW_POD, Stack, StackError
from lab.machine.substrate import Ground, GroundError

SETTLE_S = 1.0  # agents report and the controller knows every pod
STEPS = {Kind.NAMESPACES: 5, Kind.LOOPBACK: 4}  # until the contest


def main(config: DemoConfig) -> int:
    """0 if every request got its answer, 1 if not or if the lab could not stand, 130 if stopped before."""
    screen = Screen(sys.stdout)
    status = 1
    try:
        status = _choose_ground(config, screen)
    except* BrokenPipeError:  # nobody reads on: the lab has been taken down, there is nobody to tell
        screen.mute()
    except* (ProcessError, StackError, GroundError, home.HomeError, wire.CallError, OSError) as failed:
        for line in leaves(failed):
            screen.say(f"sonde-lab: {line}")
    except* (KeyboardInterrupt, asyncio.CancelledError):
        screen.say("sonde-lab: stopped")
        status = 130
    return status


def _choose_ground(config: DemoConfig, screen: Screen) -> int:
    """The best ground this machine has. What only shows on trying sends a lab that may choose to loopback."""
    binary = envoy.find()
    if binary is None:
        raise StackError("no Envoy found: run 'make setup', or name its binary in $SONDE_ENVOY")
    choice = substrate.choose(config.lab, config.substrate)
    for line in choice.why:
        screen.say(line)
    try:
        return _on_ground(choice.kind, binary, config, screen)
    except (GroundError, stack.LoadRefused) as refused:
        if config.substrate is not None or choice.kind is Kind.LOOPBACK:
            raise
        for line in (f"No measuring in the kernel here: {refused}", substrate.WITHOUT_KERNEL):
            screen.say(line)
    return _on_ground(Kind.LOOPBACK, binary, config, screen)


def _on_ground(kind: Kind, binary: Path, config: DemoConfig, screen: Screen) -> int:
    """Prepares folder and ground before any event loop runs, since pyroute2 wants one of its own."""
    ending.obey()
    with contextlib.ExitStack() as held:
        folder, ended = held.enter_context(home.taken(config.lab))
        left = [f"{ended} processes"] if ended else []
        if kind is Kind.NAMESPACES:
            left += substrate.clear(config.lab)
        if left:
            screen.say(f"Removed what a killed lab left: {', '.join(left)}.")
        panel = _panel(kind, config, screen)
        panel.begin("preparing cgroups and network namespaces", time.monotonic(), short=True)
        outside = held.enter_context(contextlib.closing(relay.listen())) if kind is Kind.NAMESPACES else None
        ground = held.enter_context(substrate.stand(kind, config.lab, config.pods, config.seed))
        held.callback(ending.ignore)  # runs first: nothing shall interrupt the removal
        return ending.run(_run(ground, folder, binary, config, panel, outside))


def _panel(kind: Kind, config: DemoConfig, screen: Screen) -> Panel:
    names = [substrate.pod_name(index) for index in range(config.pods)]
    notes = {names[SLOW_POD]: f"{config.slow:g}x slow"}
    if config.load:
        notes[names[HUNG_POD]] = "hangs at half time"
    steps = STEPS[kind] + (len(config.arms) if config.load else 0)
    return Panel(screen, names, notes, steps)


async def _run(
    ground: Ground, folder: Home, binary: Path, config: DemoConfig, panel: Panel, outside: socket.socket | None
) -> int:
    loop = asyncio.get_running_loop()
    async with (
        _drawn(panel, ground),
        stack.running(ground, folder, binary, config, lambda what: panel.begin(what, loop.time())) as lab,
        _page(ground, outside) as page,
    ):
        panel.say([f"Live page: {page} (as long as the lab is up)"])
        panel.begin("waiting for the first measurements", loop.time(), short=True)
        await contest.first(asyncio.sleep(SETTLE_S), lab)
        failed = await _contest(lab, config, panel) if config.load else 0
        panel.end()
        if config.keep:
            await _keep(lab, panel, page)
        return 1 if failed else 0


@contextlib.asynccontextmanager
async def _drawn(panel: Panel, ground: Ground) -> AsyncIterator[None]:
    """Keeps the table moving; takes it away at the end, so that what is said of the end stands alone."""
    drawing = asyncio.create_task(panel.run(ground.node_ip, ground.ports.metrics), name="panel")
    try:
        yield
    finally:
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)
        panel.end()


@contextlib.asynccontextmanager
async def _page(ground: Ground, outside: socket.socket | None) -> AsyncIterator[str]:
    """The live page's address for a browser on this machine."""
    if outside is None:
        yield relay.address(ground.node_ip, ground.ports.metrics)
        return
    port = outside.getsockname()[1]
    async with relay.carrying(outside, ground.node_ip, ground.ports.metrics):
        yield relay.address(relay.HOST, port)


async def _keep(lab: Stack, panel: Panel, page: str) -> None:
    """Says how to look around; returns when told to stop. Raises ProcessError if the lab breaks first."""
    stopped = asyncio.Event()
    for number in ending.SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    panel.say(story.how_to_look(lab.ground, lab.home, page))
    await contest.first(stopped.wait(), lab)
    panel.say(["Taking the lab down."])


async def _contest(lab: Stack, config: DemoConfig, panel: Panel) -> int:
    """Returns how many requests got no answer."""
    requests = schedule(story.workload(config), config.seed)
    panel.say(story.scenario(config, requests, lab.ground))
    clock, arms = asyncio.get_running_loop().time, []
    for name in config.arms:
        panel.say()
        progress = Progress(len(requests))
        panel.begin(contest.LISTENERS[name], clock(), progress)
        arms.append(await contest.run_arm(name, requests, lab, config, progress))
        panel.keep(clock())
    panel.end()
    panel.say(["", *story.outcome(arms, lab.ground)])
    return sum(result.error is not None for arm in arms for result in arm.results)
