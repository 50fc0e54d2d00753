"""Makes the images of the documentation from a run of the lab: the live page as Chromium shows it, and a plot.

    python -m docs.images

Runs the demo's contest once through Sonde and once through Envoy's round robin, looks at the page while a pod hangs,
and records what the controller's /state says. Owns the recording; the lab, the browser and the drawing are others'.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import chromium
from bench.chromium import ChromiumError, Page
from docs import plot
from lab import config, wire
from lab.config import DemoConfig
from lab.contests import contest
from lab.contests.load import Progress
from lab.contests.workload import Request, schedule
from lab.looking import relay, story
from lab.machine import envoy, home, stack, substrate
from lab.machine.home import Home
from lab.machine.processes import ProcessError
from lab.machine.stack import HUNG_POD, SLOW_POD, LoadRefused, Stack, StackError
from lab.machine.substrate import Ground, GroundError

IMAGES = Path(__file__).parent / "images"
NAME = "sonde-images"
ARMS = ("sonde", "round_robin")
SAMPLE_S = 0.2
SIZE = (1180, 720)
LATER_S = 3.5  # after the hang began: the stall is seen and its clients still wait
REFUSALS = (GroundError, LoadRefused, StackError, home.HomeError, ProcessError, ChromiumError)


def main() -> int:
    wanted = config.parse(["demo", "--name", NAME, "--arms", ",".join(ARMS), *sys.argv[1:]])
    assert isinstance(wanted, DemoConfig)
    failed = False
    try:
        _make(wanted)
    except* REFUSALS as refused:
        failed = True
        print(f"docs.images: {refused.exceptions[0]}", file=sys.stderr)
    return int(failed)


def _make(wanted: DemoConfig) -> None:
    arms, ground = _on_ground(wanted)
    pods = [pod.name for pod in ground.pods]
    labels = {pod: pod for pod in pods} | {
        pods[SLOW_POD]: f"{pods[SLOW_POD]} ({wanted.slow:g}x slow)",
        pods[HUNG_POD]: f"{pods[HUNG_POD]} (stands still)",
    }
    plot.draw(arms, labels, IMAGES / "contest.png")
    for file in sorted(IMAGES.iterdir()):
        print(f"{file}: {file.stat().st_size / 1024:.0f} KiB")


def _on_ground(wanted: DemoConfig) -> tuple[list[plot.Arm], Ground]:
    binary = envoy.find()
    if binary is None:
        raise StackError("no Envoy found: run 'make setup', or name its binary in $SONDE_ENVOY")
    choice = substrate.choose(NAME, wanted.substrate)
    with contextlib.ExitStack() as held:
        folder, _ = held.enter_context(home.taken(NAME))
        ground = held.enter_context(substrate.stand(choice.kind, NAME, wanted.pods, wanted.seed))
        return asyncio.run(_run(ground, folder, binary, wanted)), ground


async def _run(ground: Ground, folder: Home, binary: Path, wanted: DemoConfig) -> list[plot.Arm]:
    requests = schedule(story.workload(wanted), wanted.seed)
    async with (
        stack.running(ground, folder, binary, wanted, lambda what: print(f"... {what}", flush=True)) as lab,
        chromium.browser() as browser,
    ):
        page = await browser.page()
        await page.size(*SIZE)
        await page.open(relay.address(ground.node_ip, ground.ports.metrics))
        arms = []
        for name in ARMS:
            print(f"... {contest.LISTENERS[name]}", flush=True)
            arms.append(await _arm(name, requests, lab, wanted, page if name == "sonde" else None))
        return arms


async def _arm(name: str, requests: Sequence[Request], lab: Stack, wanted: DemoConfig, page: Page | None) -> plot.Arm:
    """Runs one arm and records it; looks at the page while the pod hangs, where there is one."""
    record, clock = _Record(), asyncio.get_running_loop().time
    began_s = clock()
    async with asyncio.TaskGroup() as group:
        recording = group.create_task(record.run(lab.ground, began_s))
        if page is not None:
            group.create_task(_look(page, wanted.duration_s / 2 + LATER_S))
        arm = await contest.run_arm(name, requests, lab, wanted, Progress(len(requests)))
        recording.cancel()
    half_s = wanted.duration_s / 2
    return plot.Arm(
        contest.LISTENERS[name],
        record.times_s,
        record.in_flight,
        [(one.request.at_s, one.ttft_s, one.pod) for one in arm.results if one.ttft_s is not None and one.pod],
        (half_s, half_s + wanted.hang_s),
    )


async def _look(page: Page, after_s: float) -> None:
    await asyncio.sleep(after_s)
    for scheme in ("light", "dark"):
        await page.scheme(scheme)
        await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        await page.screenshot(IMAGES / f"live-page-{scheme}.png")


@dataclass(slots=True)
class _Record:
    """What /state said of each pod, time after time."""

    times_s: list[float] = field(default_factory=list)
    in_flight: dict[str, list[float | None]] = field(default_factory=dict)

    async def run(self, ground: Ground, began_s: float) -> None:
        clock = asyncio.get_running_loop().time
        self.in_flight = {pod.name: [] for pod in ground.pods}
        while True:
            with contextlib.suppress(wire.CallError):  # one value less
                told = json.loads(await wire.get(ground.node_ip, ground.ports.metrics, "/state"))
                self.times_s.append(clock() - began_s)
                counts = {pod["pod"]: pod["in_flight"] for pod in told["pods"]}
                for name, values in self.in_flight.items():
                    values.append(counts.get(name))
            await asyncio.sleep(SAMPLE_S)


if __name__ == "__main__":
    sys.exit(main())
