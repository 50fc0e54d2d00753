"""`python -m bench.policy.tune`: the best constants of each peer by grid search, as text for `tuned.py`.

On other seeds than the matrix, over a homogeneous and a mixed pool, a straggler, several pickers and shared prefixes.
The measure is the geometric mean of TTFT p99 and, where it is worse, of what goodput is lost; the same for every peer.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from bench.policy import measures, rivals
from bench.policy.scenarios import DURATION_S, WARM_S, Cell, matrix
from bench.policy.simulation import TIMEOUT_S, Simulation
from bench.policy.workloads import requests

SEEDS = (101, 102)
CELLS = ("B1/80", "B3/65", "B4/x2", "B7/4", "B8/groups", "B8/chat")
GRIDS: dict[str, Mapping[str, tuple[Any, ...]]] = {
    "peak-ewma": {"decay_s": (1.0, 3.0, 10.0, 30.0), "default_s": (0.05, 0.3, 1.0)},
    "prequal": {"q_rif": (0.25, 0.5, 0.6, 0.75, 0.84, 0.9, 0.99), "probes": (3, 5, 8)},
    "vllm-dp": {"waiting": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)},
    "llm-d": {
        "weights": (
            (2.0, 2.0, 3.0),
            (1.0, 2.0, 3.0),
            (2.0, 1.0, 3.0),
            (2.0, 6.0, 3.0),
            (1.0, 9.0, 3.0),
            (1.0, 20.0, 3.0),
            (1.0, 20.0, 6.0),
            (0.2, 9.0, 1.0),
        )
    },
    "dynamo": {"prefill_scale": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)},
    "sglang": {"absolute": (2.0, 4.0, 8.0, 16.0, 64.0), "relative": (1.0, 1.1, 1.5), "match": (0.1, 0.3, 0.5)},
    "aibrix-prefix": {"imbalance": (2.0, 4.0, 8.0, 16.0, 64.0), "deviations": (0.5, 1.0, 2.0)},
    "predicted-latency": {
        "weights": ((0.8, 0.2), (0.5, 0.5), (0.95, 0.05)),
        "affinity": (0.6, 0.8, 2.0),
        "most_penalty_s": (0.1, 0.5, 5.0),
    },
}


def points(peer: str) -> list[dict[str, Any]]:
    grid = GRIDS[peer]
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def score(cell: Cell, peer: str, constants: Mapping[str, Any], seed: int) -> float:
    """Log of TTFT p99 in seconds, plus 10 for each unit of goodput lost."""
    sent = requests(cell.load, len(cell.plant.gpus), DURATION_S, seed)
    rival = rivals.with_constants(peer, **constants)
    Simulation(cell.plant, rival, sent, seed).run(DURATION_S + TIMEOUT_S)
    found = measures.measure(sent, WARM_S, cell.ttft_slo_s, cell.tpot_slo_s)
    return math.log(found.ttft_p99_s) + 10 * (1 - found.good)


def _total(one: tuple[str, dict[str, Any]]) -> float:
    peer, constants = one
    cells = [cell for cell in matrix() if cell.key in CELLS]
    return sum(score(cell, peer, constants, seed) for cell in cells for seed in SEEDS) / (len(cells) * len(SEEDS))


def main() -> int:
    peers = sys.argv[1:] or list(GRIDS)
    if unknown := [peer for peer in peers if peer not in GRIDS]:
        print(f"got {unknown[0]!r}, expected some of {' '.join(GRIDS)}", file=sys.stderr)
        return 2
    wanted = [(peer, constants) for peer in peers for constants in points(peer)]
    print(f"... {len(wanted)} points, each {len(CELLS) * len(SEEDS)} runs", flush=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        scores = list(pool.map(_total, wanted))
    print("TUNED: dict[str, dict[str, Any]] = {")
    for peer in peers:
        found = [(value, constants) for value, (name, constants) in zip(scores, wanted, strict=True) if name == peer]
        value, constants = min(found, key=lambda one: one[0])
        worst = max(one[0] for one in found)
        print(f'    "{peer}": {constants},  # score {value:.3f}; the worst point {worst:.3f}')
    print("}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
