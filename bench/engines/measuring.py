"""One load on one engine, the kernel's slot and the engine's page read around and during it. Knows no engine."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agent.engines.families import read_page
from agent.engines.samples import Page
from bench.engines.comparison import Load, Look, Said
from bench.engines.histograms import Histogram, of_kernel
from bench.engines.load import Ask, Reply, ask_all
from bench.wire_ground import Server, WireGround

LOOK_S = 0.25
SETTLE_S = 30.0
Judge = Callable[[Page, Page, Histogram], Said]  # pages before and after, and the kernel's first tokens


@dataclass(frozen=True, slots=True)
class Bench:
    """An engine that runs, and where its page is."""

    ground: WireGround
    server: Server
    metrics_port: int

    def page(self) -> bytes:
        with urllib.request.urlopen(f"http://{self.server.host}:{self.metrics_port}/metrics", timeout=30) as answer:
            return bytes(answer.read())

    def now(self) -> tuple[int, int]:
        row = self.ground.row(self.server)
        return row["in_flight"], row["waiting"]

    def histogram(self, name: str, sum_name: str) -> Histogram:
        buckets = self.ground.maps.histogram(name, self.server.slot)
        return of_kernel(buckets.tolist(), self.ground.row(self.server)[sum_name])

    def until(self, holds: Callable[[], bool], within_s: float = SETTLE_S) -> bool:
        """Whether it came to hold in time."""
        deadline_s = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.01)
        return True

    async def load(self, name: str, asks: Sequence[Ask], lanes: int, judge: Judge) -> Load:
        return await self.measure(name, lambda: ask_all(self.server.host, self.server.port, asks, lanes), judge)

    async def measure(self, name: str, run: Callable[[], Awaitable[list[Reply]]], judge: Judge) -> Load:
        print(f"... {name}", flush=True)
        page, row = Page(await asyncio.to_thread(self.page)), self.ground.row(self.server)
        first, whole = self.histogram("ttft_hist", "ttft_ns_sum"), self.histogram("duration_hist", "duration_ns_sum")
        looks: list[Look] = []
        looking = asyncio.create_task(self._look(looks))
        try:
            replies = await run()
        finally:
            looking.cancel()
        await asyncio.to_thread(self.until, lambda: self.now()[0] == 0)
        await asyncio.sleep(1.0)  # an engine counts an answer a moment after its last byte
        added = self.ground.row(self.server)
        kernel = {what: count - row[what] for what, count in added.items()}
        first = self.histogram("ttft_hist", "ttft_ns_sum").since(first)
        whole = self.histogram("duration_hist", "duration_ns_sum").since(whole)
        said = judge(page, Page(await asyncio.to_thread(self.page)), first)
        return Load(name, tuple(replies), kernel, first.times(), whole.times(), said, tuple(looks))

    async def _look(self, looks: list[Look]) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            at_ns, before = time.monotonic_ns(), self.now()
            page = read_page(await asyncio.to_thread(self.page))
            looks.append(Look(at_ns, before, page.running, page.waiting, self.now()))
