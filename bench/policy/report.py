"""The matrix as Markdown: targets, one row for each cell, and every policy's numbers. Pure text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.policy import measures, rivals, runs, targets
from bench.policy.scenarios import Cell
from bench.policy.targets import Results

BEGIN = "<!-- begin: written by `make bench-policy` -->"
END = "<!-- end: written by `make bench-policy` -->"
LOSES = 0.97  # a ratio below is a loss even if its interval reaches 1


def write(file: Path, lines: Sequence[str]) -> None:
    """Replaces what stands between the markers."""
    text = file.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    file.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")


def lines(cells: Sequence[Cell], results: Results, seeds: int) -> list[str]:
    rng = np.random.default_rng(1)
    return [
        "",
        f"All numbers are simulated: {seeds} seeds each, the same arrivals for every policy, 95 % bootstrap intervals.",
        "Ratios are peer over sonde: above 1 sonde is better. Failed and shed requests count as offered, with 60 s.",
        "",
        "### What was wanted",
        "",
        *_targets(results, rng),
        "",
        "### Each scenario against its best peer",
        "",
        *_summary(cells, results, rng),
        "",
        *_losses(cells, results, rng),
        "",
        "### Without kernel signals",
        "",
        *_alone(cells, results),
    ]  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _targets(results: Results, rng: np.random.Generator) -> list[str]:
    rows = [
        [one.words, one.wanted, one.found, "reached" if one.reached else "**missed**"]
        for one in targets.outcomes(results, rng)
    ]
    return table(["", "wanted", "found", ""], rows)


def compared(cells: Sequence[Cell]) -> list[Cell]:
    """Cells in which peers take part with what they scrape by default."""
    return [cell for cell in cells if "predicted-latency" in cell.rivals and "sonde" in cell.rivals]


def _summary(cells: Sequence[Cell], results: Results, rng: np.random.Generator) -> list[str]:
    rows = []
    for cell in compared(cells):
        row = [cell.key, cell.what, _ours(cell, results)]
        row += [_ratio(cell, results, field, rivals.UNTOLD, rng) for field in ("ttft_p99_s", "tpot_p99_s")]
        row.append(_ratio(cell, results, "ttft_p99_s", rivals.TOLD, rng) if rivals.TOLD[0] in cell.rivals else "")
        row.append(_wrong(cell, results, rng))
        rows.append(row)
    head = [
        "",
        "",
        "sonde: TTFT p50 / p99, TPOT p99, good",
        "TTFT p99: best untold peer over sonde",
        "TPOT p99: best untold peer over sonde",
        "TTFT p99: best told peer over sonde",
        "TTFT p99: best untold peer over sonde with constants off by 1.7 to 2",
    ]
    return table(head, rows)


def _mean(results: Results, cell: Cell, name: str, field: str) -> float:
    return float(np.mean(runs.of(results[f"{cell.key}|{name}"], field)))


def _ours(cell: Cell, results: Results) -> str:
    p50, p99, tpot = (
        _mean(results, cell, "sonde", field) * 1e3 for field in ("ttft_p50_s", "ttft_p99_s", "tpot_p99_s")
    )
    return f"{p50:.0f} / {p99:.0f}, {tpot:.1f} ms, {_mean(results, cell, 'sonde', 'good') * 100:.1f} %"


def _ratio(cell: Cell, results: Results, field: str, names: Sequence[str], rng: np.random.Generator) -> str:
    peer = targets.best(results, cell.key, field, names)
    middle, low, high = targets.against(results, cell.key, field, peer, rng)
    text = f"{middle:.2f} ({low:.2f} to {high:.2f}), {peer}"
    return f"**{text}**" if middle < LOSES else text


def _wrong(cell: Cell, results: Results, rng: np.random.Generator) -> str:
    found = []
    peer = targets.best(results, cell.key, "ttft_p99_s", rivals.UNTOLD)
    own = runs.of(results[f"{cell.key}|{peer}"], "ttft_p99_s")
    for name in rivals.WRONG:
        if name in cell.rivals:
            middle, _, _ = measures.ratio(own, runs.of(results[f"{cell.key}|{name}"], "ttft_p99_s"), rng)
            found.append(f"{middle:.2f}")
    return " and ".join(found)


def _losses(cells: Sequence[Cell], results: Results, rng: np.random.Generator) -> list[str]:
    """Every cell and number in which some untold peer is better by more than noise allows to hide."""
    rows = []
    for cell in compared(cells):
        for field, words in (
            ("ttft_p50_s", "TTFT p50"),
            ("ttft_p99_s", "TTFT p99"),
            ("tpot_p99_s", "TPOT p99"),
            ("e2e_p99_s", "whole p99"),
        ):
            peer = targets.best(results, cell.key, field, rivals.UNTOLD)
            middle, low, high = targets.against(results, cell.key, field, peer, rng)
            if middle < LOSES:
                rows.append([cell.key, words, peer, f"{middle:.2f} ({low:.2f} to {high:.2f})"])
        good = max(_mean(results, cell, name, "good") for name in rivals.UNTOLD if name in cell.rivals)
        own = _mean(results, cell, "sonde", "good")
        if own < good - 0.005:
            rows.append([cell.key, "goodput", "best peer", f"{own * 100:.1f} % against {good * 100:.1f} %"])
    if not rows:
        return ["No cell is lost to any untold peer."]
    return [
        "Where sonde loses (a ratio below 0.97, or half a point of goodput):",
        "",
        *table(["", "", "peer", "peer over sonde"], rows),
    ]


def _alone(cells: Sequence[Cell], results: Results) -> list[str]:
    text = (
        "Without fresh counts of at least half of the kernels the rule does not price seconds: "
        "it is least-request weighted by tokens. "
        "TTFT p99 in ms / TPOT p99 in ms / good %:"
    )
    names = (rivals.SONDE_ALONE, "least-request", "sonde")
    chosen = [cell for cell in compared(cells) if rivals.SONDE_ALONE in cell.rivals]
    rows = [[cell.key, *(_numbers(results, cell, name) for name in names)] for cell in chosen]
    return [text, "", *table(["", *names], rows)]


def _numbers(results: Results, cell: Cell, name: str) -> str:
    ttft, tpot, good = (_mean(results, cell, name, field) for field in ("ttft_p99_s", "tpot_p99_s", "good"))
    lost = _mean(results, cell, name, "failed") + _mean(results, cell, name, "shed")
    return f"{ttft * 1e3:.0f}/{tpot * 1e3:.0f}/{good * 100:.1f}" + (f" (lost {lost * 100:.1f} %)" if lost else "")


def everybody(cells: Sequence[Cell], results: Results) -> list[str]:
    rng = np.random.default_rng(1)
    found = ["TTFT p99 in ms with its interval / TPOT p99 in ms / good %; lost: failed and shed."]
    for cell in cells:
        found += ["", f"**{cell.key}**: {cell.what}", ""]
        rows = []
        for name in cell.rivals:
            middle, low, high = measures.interval(runs.of(results[f"{cell.key}|{name}"], "ttft_p99_s"), rng)
            span = f"{low * 1e3:.0f} to {high * 1e3:.0f}"
            cached = _mean(results, cell, name, "cached")
            rows.append(
                (middle, [name, _numbers(results, cell, name), span, f"{cached * 100:.0f} %" if cached else ""])
            )
        found += table(["", "", "TTFT p99", "found cached"], [row for _, row in sorted(rows, key=lambda one: one[0])])
    return found
