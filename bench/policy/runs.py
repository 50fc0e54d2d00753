"""Runs cells of the matrix side by side and keeps what came out, so that only what changed is run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

from bench.policy import measures, rivals
from bench.policy.faults import Hang
from bench.policy.measures import Measures
from bench.policy.scenarios import DURATION_S, WARM_S, Cell
from bench.policy.simulation import TIMEOUT_S, Simulation
from bench.policy.tuned import TUNED
from bench.policy.workloads import requests
from controller.policies.parts import ENGINE

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "bench" / "out" / "policy.json"

Plain = dict[str, object]


def run(cell: Cell, name: str, seed: int, duration_s: float = DURATION_S, warm_s: float = WARM_S) -> Plain:
    """One run as plain numbers."""
    sent = requests(cell.load, len(cell.plant.gpus), duration_s, seed)
    rival = rivals.rival(name, cell.plant.gpus)
    Simulation(cell.plant, rival, sent, seed).run(duration_s + TIMEOUT_S)
    plain = measures.measure(sent, warm_s, cell.ttft_slo_s, cell.tpot_slo_s).plain()
    for fault in cell.plant.faults:
        if isinstance(fault, Hang):
            plain["detected_s"] = measures.last_sent_s(sent, fault.pods[0], fault.at_s, fault.until_s)
    return plain


def run_all(
    cells: Iterable[Cell], seeds: Sequence[int], jobs: int, say: Callable[[str], None]
) -> dict[str, list[Plain]]:
    """Everything by "cell|rival", a list over the seeds."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    wanted = [(cell, name, seed) for cell in cells for name in cell.rivals for seed in seeds]
    missing = [one for one in wanted if _key(*one) not in kept]
    say(f"{len(wanted)} runs, {len(wanted) - len(missing)} of them known already")
    with ProcessPoolExecutor(jobs) as pool:
        for number, (one, result) in enumerate(zip(missing, pool.map(_one, missing, chunksize=4), strict=True), 1):
            kept[_key(*one)] = result
            if number % 200 == 0 or number == len(missing):
                _keep(kept)
                say(f"{number} of {len(missing)} runs done")
    found: dict[str, list[Plain]] = {}
    for cell, name, seed in wanted:
        found.setdefault(f"{cell.key}|{name}", []).append(kept[_key(cell, name, seed)])
    return found


def _one(wanted: tuple[Cell, str, int]) -> Plain:
    return run(*wanted)


def _keep(kept: dict[str, Plain]) -> None:
    KEPT.parent.mkdir(exist_ok=True)
    fresh = KEPT.with_suffix(".new")
    fresh.write_text(json.dumps(kept))
    fresh.replace(KEPT)


def _key(cell: Cell, name: str, seed: int) -> str:
    """Changes with whatever could change the result: the cell, the simulation's code, and our rule's for our rule."""
    parts = [_digest(("bench/policy", "controller/policies/peers"))]
    if name in rivals.OURS:
        parts.append(_digest(("controller/policies",)))
    if name.startswith("predicted"):  # what it is told
        parts.append(repr(ENGINE))
    if ", tuned" in name:
        parts.append(repr(TUNED[name.removesuffix(", tuned")]))
    setting = repr((cell.plant, cell.load, cell.ttft_slo_s, cell.tpot_slo_s))
    return f"{cell.key}|{name}|{seed}|{_text(setting)}|{_text(repr(parts))}"


UNTOUCHING = ("tune.py", "report.py", "plots.py", "__main__.py", "targets.py", "scenarios.py", "tuned.py", "sockets.py")


@cache
def _digest(folders: tuple[str, ...]) -> str:
    files = [file for folder in folders for file in sorted((ROOT / folder).glob("*.py"))]
    return _text("".join(file.read_text() for file in files if file.name not in UNTOUCHING))


@cache
def _text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def of(results: Sequence[Plain], field: str) -> list[float]:
    """One number of each seed."""
    assert field in Measures.__slots__ or field == "detected_s"
    return [float(str(one[field])) for one in results]
