"""What the agent costs a node: memory, CPU with idle pods, reading slots, loading.

    python -m bench.agent [--pods N] [--seconds S]

Idle pods are real engines in namespaces, with the agent as in production: 20 ms interval, one watcher, pages read.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import subprocess
import sys
import time
import timeit
from pathlib import Path

import grpc.aio

from agent.kernel.maps import PinnedMaps
from agent.proto import telemetry_pb2 as proto
from agent.proto.telemetry_pb2_grpc import TelemetryStub
from bench.ground import REFUSALS, measured
from lab.machine.stack import Stack
from lab.machine.substrate import Ground, program

ROWS = 1000


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pods", type=int, default=16)
    options.add_argument("--seconds", type=float, default=30.0)
    arguments = options.parse_args()
    try:
        figures = measured(arguments.pods, 1, lambda lab: measure(lab, arguments.seconds))
    except REFUSALS as reason:
        print(f"bench.agent: {reason}", file=sys.stderr)
        return 1
    print(f"{arguments.pods} idle pods, {arguments.seconds:g} s, one watcher")
    print(f"  resident memory of run            {figures['rss_mib']:8.1f} MiB")
    print(f"  CPU of run                        {figures['cpu_percent']:8.2f} % of a core")
    print(f"  copying {ROWS} slots, best         {figures['read_best_us']:8.1f} us")
    print(f"  copying {ROWS} slots, median       {figures['read_us']:8.1f} us")
    print(f"  load, CPU until it has exited     {figures['load_s']:8.2f} s")
    print(f"  processes that load leaves        {figures['left']:8.0f}")
    return 0


def load_cost(place: Ground) -> tuple[float, int]:
    """CPU seconds of one load, a fresh one beside the lab's, and how many processes mention its pins afterwards."""
    assert place.pins is not None
    where = ["--pin-root", f"{place.pins.root}-2"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    load = [*program("agent", "load", *where), "--attach-cgroup", str(place.lab_slice)]
    subprocess.run(load, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    left = sum(where[1] in line for line in command_lines())
    subprocess.run(program("agent", "unload", *where), check=True, capture_output=True)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, left


def command_lines() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_text())
        except OSError:
            continue
    return found


async def measure(lab: Stack, seconds: float) -> dict[str, float]:
    (agent,) = (process for process in lab.running if process.name == "agent")
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watch(lab.ground))
        await asyncio.sleep(3)  # start-up is over
        before, began = cpu_s(agent.pid), time.monotonic()
        await asyncio.sleep(seconds)
        cpu = (cpu_s(agent.pid) - before) / (time.monotonic() - began)
        watcher.cancel()
    load_s, left = load_cost(lab.ground)
    return {
        "cpu_percent": cpu * 100,
        "rss_mib": rss_mib(agent.pid),
        **read_us(lab.ground),
        "load_s": load_s,
        "left": left,
    }


async def watch(place: Ground) -> None:
    async with grpc.aio.insecure_channel(f"{place.node_ip}:{place.ports.agent}") as channel:
        stub = TelemetryStub(channel)  # type: ignore[no-untyped-call]
        async for _ in stub.Watch(proto.WatchRequest(subscriber="bench")):
            pass


def read_us(place: Ground) -> dict[str, float]:
    """What the sampler does each interval, on as many slots."""
    assert place.pins is not None
    maps = PinnedMaps(place.pins)
    try:
        times = timeit.repeat(maps.slots.scalars(ROWS).tobytes, number=200, repeat=25)
    finally:
        maps.close()
    return {"read_us": statistics.median(times) / 200 * 1e6, "read_best_us": min(times) / 200 * 1e6}


def cpu_s(pid: int) -> float:
    """Of all threads alive; /proc/PID/stat counts in whole ticks of 10 ms, too coarse for what sleeps mostly."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


if __name__ == "__main__":
    sys.exit(main())
