"""Draws what an image run of the lab recorded, as dashboards do: one column an arm, one panel a quantity.

The only module that knows matplotlib; refuses to know where the values came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("agg")
STYLE: Any = {  # the library's type for it is a list of every name it knows
    "figure.facecolor": "#111217",
    "axes.facecolor": "#181b1f",
    "axes.edgecolor": "#2c3235",
    "axes.labelcolor": "#ccccdc",
    "axes.titlecolor": "#ccccdc",
    "text.color": "#ccccdc",
    "xtick.color": "#9fa7b3",
    "ytick.color": "#9fa7b3",
    "grid.color": "#2c3235",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
COLOURS = ("#73bf69", "#f2cc0c", "#ff7383", "#5794f2", "#b877d9", "#ff9830", "#8ab8ff", "#fade2a")
HANG = "#f2495c"
WIDTH_INCHES, HEIGHT_INCHES, DOTS = 11.0, 5.6, 100


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm; times are seconds since its load began. `in_flight` None is not known then."""

    title: str
    times_s: Sequence[float]
    in_flight: Mapping[str, Sequence[float | None]]  # by pod, one value a time
    requests: Sequence[tuple[float, float, str]]  # due at, time to first token, pod
    hang_s: tuple[float, float]  # from and to


def draw(arms: Sequence[Arm], labels: Mapping[str, str], file: Path) -> None:
    """`labels`: each pod's name with what is particular about it, in the order of their colours."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS, layout="constrained")
        panels = figure.subplots(2, len(arms), sharex=True, sharey="row", squeeze=False)
        for column, arm in enumerate(arms):
            _in_flight(panels[0][column], arm, labels)
            _first_tokens(panels[1][column], arm, labels)
        panels[0][0].set_ylabel("requests in flight,\nas the kernel counts")
        panels[1][0].set_ylabel("time to first token\nof each request, s")
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, metadata={"Software": None})


def _in_flight(panel: Axes, arm: Arm, labels: Mapping[str, str]) -> None:
    _frame(panel, arm)
    panel.set_title(arm.title, loc="left", fontweight="bold")
    for colour, (pod, label) in zip(COLOURS, labels.items(), strict=False):
        values = [float("nan") if value is None else value for value in arm.in_flight[pod]]
        panel.plot(arm.times_s, values, color=colour, linewidth=1.4, label=label, drawstyle="steps-post")
        panel.fill_between(arm.times_s, values, color=colour, alpha=0.08, step="post")


def _first_tokens(panel: Axes, arm: Arm, labels: Mapping[str, str]) -> None:
    _frame(panel, arm)
    panel.set_yscale("log")
    panel.set_xlabel("seconds since the load began")
    for colour, pod in zip(COLOURS, labels, strict=False):
        points = [(due_s, ttft_s) for due_s, ttft_s, where in arm.requests if where == pod]
        panel.plot([x for x, _ in points], [y for _, y in points], "o", color=colour, markersize=3, alpha=0.85)


def _frame(panel: Axes, arm: Arm) -> None:
    panel.grid(visible=True, linewidth=0.6)
    panel.axvspan(*arm.hang_s, color=HANG, alpha=0.14, linewidth=0)
