"""Whether several controllers that exchange nothing choose worse than one: `python -m bench.herding`.

The same requests through a real Envoy to 1, 2 and 4 controllers, all of which see the pods' counts every 20 ms as from
an agent, and for comparison to one that goes by chance. The pods note at each request how many more they had in flight
than the pool's least busy one: 0 is a perfect pick. Herding would show as a figure that grows with the replicas.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from bench.gateway import HOST, standing
from bench.pressure import pressure, request
from lab import wire
from lab.machine.envoy import BodyMode

PODS = 8
CASES = (("random", 1), ("sonde", 1), ("sonde", 2), ("sonde", 4))
CONNECTIONS = 48


@dataclass(frozen=True, slots=True)
class Spread:
    """How far above the least busy pod requests landed."""

    mean: float
    share_perfect: float
    worst: int
    answered: int
    failed: int


async def spread(folder: Path, policy: str, replicas: int, seconds: float) -> Spread:
    async with standing(folder, PODS, BodyMode.FULL_DUPLEX_STREAMED, replicas=replicas, policy=policy) as bench:
        sent = request("/varied/v1/completions", 500)
        async with pressure(HOST, bench.gateway_port, sent, CONNECTIONS) as tally:
            await asyncio.sleep(1)  # until the connections are out of step
            await wire.get(HOST, bench.pods_port, "/clear")
            await asyncio.sleep(seconds)
            told = json.loads(await wire.get(HOST, bench.pods_port, "/spread"))
    counts = {int(above): count for above, count in told.items()}
    total = sum(counts.values()) or 1
    mean = sum(above * count for above, count in counts.items()) / total
    return Spread(mean, counts.get(0, 0) / total, max(counts, default=0), tally.answered, tally.failed)


async def compare(seconds: float) -> int:
    print("| policy | controllers | mean above the least busy | perfect picks | worst |\n|---|---|---|---|---|")
    failed = 0
    with TemporaryDirectory(prefix="sonde-bench-") as folder:
        for at, (policy, replicas) in enumerate(CASES):
            found = await spread(Path(folder) / str(at), policy, replicas, seconds)
            failed += found.failed
            print(
                f"| {policy} | {replicas} | {found.mean:.2f} | {found.share_perfect:.0%} | {found.worst} |", flush=True
            )
    return failed


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=8.0)
    failed = uvloop.run(compare(options.parse_args().seconds))
    if failed:
        print(f"{failed} requests failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
