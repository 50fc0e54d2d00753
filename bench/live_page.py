"""What the live page's stream costs the controller: CPU with viewers over CPU without, everything else the same.

    python -m bench.live_page [--pods N] [--viewers N] [--seconds S]

A real controller process follows simulated agents, and every pod changes twice a second, so that every event carries
every pod. Periods with and without viewers take turns; the figures are their medians.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

from bench.agent import cpu_s
from lab.machine import fleet as fleets
from lab.machine.fleet import HOST, Fleet

STIR_S = 0.5
TURNS = 4


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pods", type=int, default=200)
    options.add_argument("--viewers", type=int, default=5)
    options.add_argument("--seconds", type=float, default=40.0, help="of measuring, all periods together")
    arguments = options.parse_args()
    without, watched, rate = asyncio.run(measure(arguments.pods, arguments.viewers, arguments.seconds))
    print(f"{arguments.pods} pods, all changing twice a second; {arguments.viewers} viewers; {arguments.seconds:g} s")
    print(f"  CPU without viewers        {without * 100:6.2f} % of a core")
    print(f"  CPU with viewers           {watched * 100:6.2f} % of a core")
    print(f"  the page's stream          {(watched - without) * 100:6.2f} % of a core")
    print(f"  sent to each viewer        {rate / 1024:6.1f} KiB/s")
    return 0


async def measure(pods: int, viewers: int, seconds: float) -> tuple[float, float, float]:
    """CPU shares without and with viewers, and bytes a second to each."""
    with tempfile.TemporaryDirectory(prefix="sonde-bench-") as name:
        folder, fleet = Path(name), fleets.fleet(pods)
        async with fleet.serving(folder), fleets.controller(folder, fleet) as at, asyncio.TaskGroup() as group:
            stirring = group.create_task(stir(fleet))
            await asyncio.sleep(3)  # start-up is over
            period_s = seconds / TURNS / 2
            turns = [await turn(at.process.pid, at.port, viewers, period_s) for _ in range(TURNS)]
            stirring.cancel()
    without, watched, rates = zip(*turns, strict=True)
    return statistics.median(without), statistics.median(watched), statistics.median(rates)


async def turn(pid: int, port: int, viewers: int, period_s: float) -> tuple[float, float, float]:
    without = await share(pid, period_s)
    async with contextlib.AsyncExitStack() as looking:
        counts = [await looking.enter_async_context(viewer(port)) for _ in range(viewers)]
        await asyncio.sleep(1)  # the first event of each has everything
        before = sum(map(sum, counts))
        watched = await share(pid, period_s)
        rate = (sum(map(sum, counts)) - before) / period_s / max(1, viewers)
    await asyncio.sleep(1)
    return without, watched, rate


async def share(pid: int, period_s: float) -> float:
    before, began_s = cpu_s(pid), time.monotonic()
    await asyncio.sleep(period_s)
    return (cpu_s(pid) - before) / (time.monotonic() - began_s)


@contextlib.asynccontextmanager
async def viewer(port: int) -> AsyncIterator[list[int]]:
    """One that reads all it is sent; the list gets the size of each piece."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"GET /ui/events HTTP/1.1\r\nhost: bench\r\n\r\n")
    pieces: list[int] = []

    async def read() -> None:
        while piece := await reader.read(1 << 20):
            pieces.append(len(piece))

    reading = asyncio.create_task(read(), name="viewer")
    try:
        yield pieces
    finally:
        reading.cancel()
        writer.close()


async def stir(fleet: Fleet) -> None:
    rng = Random(1)
    while True:
        fleet.stir(rng)
        await asyncio.sleep(STIR_S)


if __name__ == "__main__":
    sys.exit(main())
