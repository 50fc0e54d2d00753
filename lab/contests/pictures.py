"""A comparison as a picture; the only module of the lab that knows matplotlib, which only development installs have."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from lab.contests import verdict
from lab.contests.verdict import Sample


def possible() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(file: Path, samples: Sequence[Sample]) -> None:
    """Bars of TTFT p99 by scenario, one colour for each policy, with intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "sonde"
    policies = list(dict.fromkeys(one.policy for one in samples))
    scenarios = list(dict.fromkeys(one.scenario for one in samples))
    figure, axes = plt.subplots(figsize=(1.5 + 1.4 * len(scenarios), 3.8), layout="constrained")
    width = 0.8 / len(policies)
    for number, policy in enumerate(policies):
        for at, scenario in enumerate(scenarios):
            arms = [one for one in samples if one.policy == policy and one.scenario == scenario]
            if arms:
                found = verdict.p99(arms, "ttft_s")
                spread = [[max(0.0, found.value - found.low)], [max(0.0, found.high - found.value)]]
                label = policy if at == 0 else None
                axes.bar(at + number * width, found.value, width, yerr=spread, color=f"C{number}", label=label)
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(scenarios))], scenarios)
    axes.set_yscale("log")
    axes.set_ylabel("TTFT p99, s (simulated engines, real sockets)")
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
