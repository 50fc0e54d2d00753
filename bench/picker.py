"""What a pick costs: the controller's CPU per request behind a real Envoy, beside that of a server that does nothing.

    python -m bench.picker [--only costs|responses|idle|memory|open] [--seconds S] [--rounds N]
                           [--sizes BYTES ...] [--pools ENDPOINTS ...]

CPU is that of the picker's process (user and system, all threads, /proc/PID/task/*/schedstat) divided by the requests
answered meanwhile, 16 connections, no TLS: median and, in brackets, least of alternated rounds. Endpoints are
measured: a stand-in for the node's agent streams their counts every 20 ms while requests run. Needs Envoy (`make
setup`), no root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import statistics
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from bench.gateway import HOST, Bench, cpu_ns, resident_mib, standing
from bench.pressure import pressure, request
from bench.standin import MANY
from lab.machine.envoy import BodyMode

SIZES = (500, 20_000, 200_000)
POOLS = (10, 1000)
MODES = (BodyMode.BUFFERED, BodyMode.FULL_DUPLEX_STREAMED)
CONNECTIONS = 16
WARM_S = 0.5
IDLE_PODS, IDLE_S = 100, 10.0
MEMORY_REQUESTS = 100_000
OPEN = 1000
LIMITS_US = {500: 450, 200_000: 1100}


@dataclass(frozen=True, slots=True)
class Cost:
    us: float
    answered: int
    failed: int


async def cost(bench: Bench, path: str, size: int, seconds: float, connections: int = CONNECTIONS) -> Cost:
    """CPU per request of the picker that stands."""
    sent = request(f"{path}/v1/completions", size)
    async with pressure(HOST, bench.gateway_port, sent, connections) as tally:
        await asyncio.sleep(WARM_S)
        before_ns, before = cpu_ns(bench.picker_pid), tally.answered
        await asyncio.sleep(seconds)
        used_ns, answered = cpu_ns(bench.picker_pid) - before_ns, tally.answered - before
    return Cost(used_ns / 1000 / answered if answered else float("nan"), answered, tally.failed)


async def costs(options: argparse.Namespace, folder: Path) -> bool:
    """The table of bodies, modes and pools; all pickers stand at once and are measured in turn, round by round."""
    pickers = {"nothing": options.pools[0]} | {f"{pods} endpoints": pods for pods in options.pools}
    found: dict[tuple[BodyMode, int, str], list[Cost]] = {}
    for mode in MODES:
        async with contextlib.AsyncExitStack() as held:
            benches = {
                name: await held.enter_async_context(standing(folder / f"{mode.value}-{at}", pods, mode, at == 0))
                for at, (name, pods) in enumerate(pickers.items())
            }
            for size, _ in itertools.product(options.sizes, range(options.rounds)):
                for name, bench in benches.items():
                    one = await cost(bench, "/now", size, options.seconds)
                    found.setdefault((mode, size, name), []).append(one)
    print("| mode | body | " + " | ".join(pickers) + " | target |")
    print("|---" * (len(pickers) + 3) + "|")
    for mode, size in itertools.product(MODES, options.sizes):
        cells = " | ".join(_cell(found[mode, size, name]) for name in pickers)
        limit = f"{LIMITS_US[size]} us" if size in LIMITS_US else ""
        print(f"| {mode.value} | {size:,} B | {cells} | {limit} |")
    return all(one.failed == 0 for ones in found.values() for one in ones)


def _cell(ones: list[Cost]) -> str:
    """Median and least: the least is nearest to what the code costs on a machine that others use too."""
    us = sorted(one.us for one in ones)
    return f"{statistics.median(us):.0f} us ({us[0]:.0f})"


async def responses(options: argparse.Namespace, folder: Path) -> bool:
    """Long responses against short ones that take the same time, so that both come at the same rate."""
    good = True
    for sends in (False, True):
        where = folder / f"responses-{sends}"
        async with standing(where, POOLS[0], BodyMode.FULL_DUPLEX_STREAMED, sends_responses=sends) as bench:
            pairs = [
                [await cost(bench, path, 500, options.seconds, 4 * CONNECTIONS) for path in ("/one", "/many")]
                for _ in range(options.rounds + 1)
            ]
        one, many = (statistics.median(pair[at].us for pair in pairs) for at in (0, 1))
        how = "sends responses to the picker" if sends else "keeps responses to itself"
        ratio = f"{many:.0f} / {one:.0f} us = {many / one:.2f}"
        print(f"responses of {MANY} chunks over responses of one, gateway {how}: {ratio}")
        good = good and all(cost.failed == 0 for pair in pairs for cost in pair)
    return good


async def idle(_options: argparse.Namespace, folder: Path) -> bool:
    async with standing(folder / "idle", IDLE_PODS, BodyMode.BUFFERED) as bench:
        await asyncio.sleep(2)
        before_ns = cpu_ns(bench.picker_pid)
        await asyncio.sleep(IDLE_S)
        share = (cpu_ns(bench.picker_pid) - before_ns) / 1e9 / IDLE_S
    print(f"idle with {IDLE_PODS} endpoints: {share:.2%} of a core (target 1 %)")
    return True


async def memory(_options: argparse.Namespace, folder: Path) -> bool:
    async with standing(folder / "memory", POOLS[0], BodyMode.BUFFERED) as bench:
        marks = [f"{resident_mib(bench.picker_pid):.0f} MiB at first"]
        sent = request("/now/v1/completions", 500)
        async with pressure(HOST, bench.gateway_port, sent, CONNECTIONS) as tally:
            for mark in (MEMORY_REQUESTS // 10, MEMORY_REQUESTS // 2, MEMORY_REQUESTS):
                await tally.reaches(mark)
                marks.append(f"{resident_mib(bench.picker_pid):.0f} MiB after {mark:,} requests")
    print("resident: " + ", ".join(marks) + " (target 120 MiB)")
    return tally.failed == 0


async def open_at_once(options: argparse.Namespace, folder: Path) -> bool:
    """Clients that send half a body hold their exchange open; the others must not notice."""
    async with standing(folder / "open", POOLS[0], BodyMode.FULL_DUPLEX_STREAMED) as bench:
        before = resident_mib(bench.picker_pid)
        async with contextlib.AsyncExitStack() as held:
            for _ in range(OPEN):
                _, writer = await asyncio.open_connection(HOST, bench.gateway_port)
                held.callback(writer.close)
                writer.write(request("/now/v1/completions", 500)[:-200])
            await bench.reaches("sonde_controller_exchanges_open", OPEN)
            loaded = await cost(bench, "/now", 500, options.seconds)
            grown = (resident_mib(bench.picker_pid) - before) / OPEN * 1024
        print(
            f"{OPEN} exchanges whose body stalls: {grown:.0f} KiB each; "
            f"of the others meanwhile {loaded.answered} answered, {loaded.failed} failed, {loaded.us:.0f} us each"
        )
    return loaded.failed == 0


PARTS = {"costs": costs, "responses": responses, "idle": idle, "open": open_at_once, "memory": memory}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="BYTES")
    options.add_argument("--pools", type=int, nargs="+", default=POOLS, metavar="ENDPOINTS")
    options.add_argument("--only", choices=tuple(PARTS))
    given = options.parse_args()
    parts = [PARTS[given.only]] if given.only else list(PARTS.values())
    with TemporaryDirectory(prefix="sonde-bench-") as folder:
        return uvloop.run(_all([part(given, Path(folder)) for part in parts]))


async def _all(parts: list[Coroutine[Any, Any, bool]]) -> int:
    good = [await part for part in parts]
    if not all(good):
        print("some requests failed", file=sys.stderr)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
