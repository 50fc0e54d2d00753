"""The matrix as pictures; the only module that knows matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.policy import measures, report, rivals, runs, targets
from bench.policy.scenarios import Cell
from bench.policy.targets import Results

OURS, PEER, TOLD = "#1b6ca8", "#9aa5b1", "#d9822b"
NOTE = "simulated"
FARTHEST = 6.0  # of a ratio that is drawn where it is


def draw(folder: Path, cells: Sequence[Cell], results: Results) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Callable[[Axes], None]] = {
        "policy-ratios.svg": lambda axes: _ratios(axes, cells, results),
        "policy-mixed.svg": lambda axes: _mixed(axes, results),
        "policy-scrape.svg": lambda axes: _scrape(axes, results),
    }
    mpl.rcParams.update({"font.size": 9, "svg.hashsalt": "sonde", "axes.spines.top": False, "axes.spines.right": False})
    files = []
    for name, plot in made.items():
        tall = 0.26 * len(report.compared(cells)) + 1 if "ratios" in name else 3.6
        figure, axes = plt.subplots(figsize=(7.5, tall), layout="constrained")
        plot(axes)
        figure.savefig(folder / name, metadata={"Date": None})
        plt.close(figure)
        files.append(folder / name)
    return files


def _ratios(axes: Axes, cells: Sequence[Cell], results: Results) -> None:
    rng = np.random.default_rng(1)
    shown = report.compared(cells)[::-1]
    for at, cell in enumerate(shown):
        for field, shift, colour in (("ttft_p99_s", 0.15, OURS), ("tpot_p99_s", -0.15, TOLD)):
            peer = targets.best(results, cell.key, field, rivals.UNTOLD)
            middle, low, high = targets.against(results, cell.key, field, peer, rng)
            if middle > FARTHEST:
                axes.plot(FARTHEST, at + shift, ">", ms=5, color=colour)
                continue
            axes.errorbar(middle, at + shift, xerr=[[middle - low], [high - middle]], fmt="o", ms=4, color=colour)
    axes.axvline(1.0, color="black", lw=0.8)
    axes.set_xscale("log")
    axes.set_xlim(0.45, 1.08 * FARTHEST)
    axes.set_xticks([0.5, 0.7, 1, 1.5, 2, 3, 5], ["0.5", "0.7", "1", "1.5", "2", "3", "5"])
    axes.minorticks_off()
    axes.set_yticks(range(len(shown)), [f"{cell.key} {cell.what}" for cell in shown], fontsize=7)
    axes.set_xlabel(
        f"best untold peer over sonde, p99; right of 1: sonde is better\n({NOTE}; blue: TTFT, orange: TPOT)"
    )


def _mixed(axes: Axes, results: Results) -> None:
    names = (
        "sonde",
        "weights, told",
        "predicted-latency, told",
        "prequal, tuned",
        "predicted-latency, tuned",
        "least-request",
        "llm-d",
        "dynamo, tuned",
    )
    for name in names:
        good = [float(np.mean(runs.of(results[f"B3/{rate}|{name}"], "good"))) * 100 for rate in targets.MIXED_RATES]
        style = {"color": OURS, "lw": 2.5} if name == "sonde" else {"lw": 1.2, "ls": "--" if "told" in name else "-"}
        axes.plot(targets.MIXED_RATES, good, marker="o", ms=3, label=name, **style)
    axes.axhline(99, color="black", lw=0.6)
    axes.set_ylim(60, 100.5)
    axes.set_xlabel("requests per second, four H100 and four A100")
    axes.set_ylabel(f"good requests, % ({NOTE})")
    axes.legend(fontsize=7, frameon=False)


def _scrape(axes: Axes, results: Results) -> None:
    rng = np.random.default_rng(1)
    periods = (0.01, 0.05, 0.2, 1.0, 5.0, 30.0)
    for name, colour in (("llm-d", PEER), ("vllm-dp", TOLD)):
        found = [measures.interval(runs.of(results[f"B2|{name}@{period:g}"], "ttft_p99_s"), rng) for period in periods]
        middle = np.array([one[0] for one in found])
        spread = np.abs(np.array([[one[1], one[2]] for one in found]).T - middle)
        axes.errorbar(periods, middle, yerr=spread, marker="o", ms=4, color=colour, label=name)
    for name, style in (("sonde", "-"), ("least-request", ":")):
        level = float(np.mean(runs.of(results[f"B2|{name}"], "ttft_p99_s")))
        axes.axhline(level, color=OURS, ls=style, label=f"{name} (reads no pages)")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("seconds between two pages of an engine")
    axes.set_ylabel(f"TTFT p99, s ({NOTE})")
    axes.legend(fontsize=8, frameon=False)
