"""The kernel's numbers beside a real engine's: first tokens, durations, in flight; under queueing, aborts, kills.

    python -m bench.engines vllm|triton [--cache DIR] [--only PATTERN]      root; outside CI

The engine is installed once into a virtual environment in the cache folder, by default ~/.cache/sonde/engines, which
takes some minutes and gigabytes. It then runs in a cgroup of the bench's own with the programs attached to that.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.engines import comparison, triton_runs, vllm_runs
from bench.engines.comparison import COUNTS, FIRST, GAUGES, WHOLE, Load
from bench.engines.environment import BuildFailed, default_cache
from bench.wire_ground import GroundRefused, wire_ground

RUNS = {"vllm": vllm_runs.run, "triton": triton_runs.run}


def report(loads: Sequence[Load], notes: Sequence[str]) -> bool:
    print("\n## Requests\n", comparison.table(COUNTS, loads), sep="\n")
    print("\n## Time to first data\n", comparison.table(FIRST, loads), sep="\n")
    print("\n## Durations\n", comparison.table(WHOLE, loads), sep="\n")
    print("\n## In flight\n", comparison.table(GAUGES, loads), sep="\n")
    print("\n## Stopped and killed\n", *(f"- {note}" for note in notes), sep="\n")
    print()
    found = comparison.goals(loads)
    for text, good in found.items():
        print(f"{'reached' if good else 'MISSED '}  {text}")
    return all(found.values())


def main() -> int:
    """0 if every target is reached, 1 if not or where this machine cannot measure."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("engine", choices=sorted(RUNS))
    options.add_argument("--cache", type=Path, default=default_cache(), help="where engines are installed")
    options.add_argument("--only", default="", help="a pattern that names of loads must match")
    flags = options.parse_args()
    try:
        with wire_ground() as ground:
            loads, notes = asyncio.run(RUNS[flags.engine](ground, flags.cache, flags.only))
    except (GroundRefused, BuildFailed) as error:
        print(f"bench.engines: {error}", file=sys.stderr)
        return 1
    return 0 if report(loads, notes) else 1


if __name__ == "__main__":
    sys.exit(main())
