"""How long until the controller's table shows what a pod's kernel saw: request starts, at random times.

    python -m bench.freshness [--events N]

A request is sent to a pod; the time stops when the table's count of started requests has it. Real engines, agent and
stream; the table and the code that follows streams are the controller's own, in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.address import address_of
from agent.cluster.folder import Folder
from bench.ground import REFUSALS, measured
from controller.endpoints.table import Table
from controller.model import ClusterChanged, Event, FrameReceived
from controller.sources.agents import Agents
from lab.machine import manifests
from lab.machine.stack import Stack

BODY = b'{"model": "lab", "prompt": "hello", "max_tokens": 1}'
REQUEST = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


@dataclass(slots=True)
class Watched:
    """The table, and when each pod's count of started requests last grew."""

    table: Table
    shown_s: dict[str, tuple[int, float]] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def emit(self, event: Event, now: float) -> None:
        self.table.apply(event, now)
        if isinstance(event, FrameReceived):
            after = time.monotonic()
            for report in event.reports:
                if report.kernel and report.kernel.started > self.shown_s.get(report.pod, (-1, 0.0))[0]:
                    self.shown_s[report.pod] = (report.kernel.started, after)
            self.news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self.news.clear()
            await self.news.wait()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--events", type=int, default=500)
    arguments = options.parse_args()
    try:
        delays = sorted(measured(4, 1, lambda lab: measure(lab, arguments.events)))
    except REFUSALS as reason:
        print(f"bench.freshness: {reason}", file=sys.stderr)
        return 1
    print(f"{len(delays)} request starts, agent's interval 20 ms; kernel event to controller's table")
    for name, share in (("median", 0.5), ("p90", 0.9), ("p99", 0.99)):
        print(f"  {name:8} {delays[min(len(delays) - 1, int(share * len(delays)))] * 1e3:6.1f} ms")
    return 0


async def measure(lab: Stack, events: int) -> list[float]:
    rng, place = random.Random(1), lab.ground
    async with asyncio.TaskGroup() as group:
        watched = Watched(Table("inference.networking.k8s.io", manifests.NAMESPACE, manifests.POOL))
        cluster = Folder(lab.home.manifests).read()
        assert cluster is not None
        watched.emit(ClusterChanged(cluster), time.monotonic())
        agents = Agents(group, watched.emit, "bench", rng)
        agents.reconcile([address_of(place.node_ip, place.ports.agent)])
        await watched.until(lambda: len(watched.shown_s) == len(place.pods))
        delays = [await one(lab, watched, rng) for _ in range(events)]
        agents.close()
        return delays


async def one(lab: Stack, watched: Watched, rng: random.Random) -> float:
    pod = rng.choice(lab.ground.pods)
    started, _ = watched.shown_s[pod.name]
    reader, writer = await asyncio.open_connection(pod.ip, lab.ground.ports.engine)
    await asyncio.sleep(rng.uniform(0.005, 0.045))  # anywhere in the agent's interval
    sent_s = time.monotonic()
    writer.write(REQUEST)
    await watched.until(lambda: watched.shown_s[pod.name][0] > started)
    await reader.read(1)
    writer.close()
    return watched.shown_s[pod.name][1] - sent_s


if __name__ == "__main__":
    sys.exit(main())
