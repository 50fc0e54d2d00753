"""`sonde-lab demo` and `up`: brings the lab up, runs the contest, says what came of it, takes the lab down."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from lab import contest, envoy, home, stack, story, substrate, summary, watch, wire
from lab.config import DemoConfig, Kind
from lab.home import Home
from lab.load import Progress
from lab.processes import ProcessError
from lab.screen import Screen
from lab.stack import HUNG_POD, SLOW_POD, Stack, StackError
from lab.substrate import Ground, GroundError
from lab.workload import schedule

SETTLE_S = 1.0  # agents report and the controller knows every pod


def main(config: DemoConfig) -> int:
    """0 if every request got its answer, 1 if not or if the lab could not stand, 130 if stopped before."""
    screen = Screen(sys.stdout)
    status = 1
    try:
        status = _choose_ground(config, screen)
    except* BrokenPipeError:  # nobody reads on: the lab has been taken down, there is nobody to tell
        screen.mute()
    except* (ProcessError, StackError, GroundError, home.HomeError, wire.CallError, OSError) as failed:
        for line in _leaves(failed):
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
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.ExitStack() as held:
        folder, ended = held.enter_context(home.taken(config.lab))
        left = [f"{ended} processes"] if ended else []
        if kind is Kind.NAMESPACES:
            left += substrate.clear(config.lab)
        if left:
            screen.say(f"Removed what a killed lab left: {', '.join(left)}.")
        ground = held.enter_context(substrate.stand(kind, config.lab, config.pods, config.seed))
        held.callback(_ignore_signals)  # runs first: nothing shall interrupt the removal
        return asyncio.run(_run(ground, folder, binary, config, screen))


async def _run(ground: Ground, folder: Home, binary: Path, config: DemoConfig, screen: Screen) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with stack.running(ground, folder, binary, config, lambda what: screen.say(f"... {what}")) as lab:
        await contest.first(asyncio.sleep(SETTLE_S), lab)
        failed = await _contest(lab, config, screen) if config.load else 0
        if config.keep:
            await _keep(lab, screen)
        return 1 if failed else 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


async def _keep(lab: Stack, screen: Screen) -> None:
    """Says how to look around; returns when told to stop. Raises ProcessError if the lab breaks first."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    for line in story.how_to_look(lab.ground, lab.home):
        screen.say(line)
    await contest.first(stopped.wait(), lab)
    screen.say("Taking the lab down.")


async def _contest(lab: Stack, config: DemoConfig, screen: Screen) -> int:
    """Returns how many requests got no answer."""
    requests = schedule(story.workload(config), config.seed)
    for line in story.scenario(config, requests, lab.ground):
        screen.say(line)
    arms = []
    for name in config.arms:
        screen.say()
        arms.append(await contest.run_arm(name, requests, lab, config, _Redraw(lab, config, screen)))
    screen.say()
    for line in story.outcome(arms, lab.ground):
        screen.say(line)
    return sum(result.error is not None for arm in arms for result in arm.results)


class _Redraw:
    """Draws the live table of one arm."""

    def __init__(self, lab: Stack, config: DemoConfig, screen: Screen) -> None:
        self._lab = lab
        self._screen = screen
        self._notes = {
            lab.ground.pods[SLOW_POD].name: f"{config.slow:g}x slow",
            lab.ground.pods[HUNG_POD].name: "hangs at half time",
        }

    async def __call__(self, arm: str, progress: Progress) -> None:
        ground = self._lab.ground
        page = b""
        with contextlib.suppress(wire.CallError):  # a page late by a second is no reason to end
            page = await wire.get(ground.node_ip, ground.ports.metrics, "/metrics")
        pods = [pod.name for pod in ground.pods]
        rows = watch.rows(page.decode(errors="replace"), pods, progress.by_pod)
        head = f"{arm}: {progress.sent}/{progress.total} sent, {progress.ended} answered, {progress.failed} failed"
        ttfts = [result.ttft_s for result in progress.results if result.ttft_s is not None]
        if (p99_s := summary.quantile(ttfts, 0.99)) is not None:
            head += f", TTFT p99 so far {p99_s * 1e3:.0f} ms"
        now_s = asyncio.get_running_loop().time()
        self._screen.draw([head, *watch.lines(rows, self._notes)], f"{head}; {watch.short(rows)}", now_s)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[str]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield str(error) or type(error).__name__
