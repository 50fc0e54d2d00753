"""Measures, comparisons and the text made of them."""

from __future__ import annotations

import numpy as np
import pytest

from bench.policy import measures, report, runs, scenarios, targets
from bench.policy.requests import Request
from bench.policy.rivals import TOLD, UNTOLD, WRONG, rival
from bench.policy.targets import TARGETS

RNG = np.random.default_rng(1)


def answered(at_s: float, ttft_s: float, whole_s: float, tokens: int = 11) -> Request:
    return Request(at_s, 100, tokens, first_s=at_s + ttft_s, end_s=at_s + whole_s, over=True)


def test_what_failed_was_shed_or_never_ended_is_offered_and_not_good():
    good = [answered(10.0 + at, 0.1, 0.5) for at in range(5)]
    slow = answered(10.0, 2.1, 2.5)
    dragging = answered(10.0, 0.1, 0.1 + 10 * 0.06)
    failed = Request(10.0, 100, 11, over=True, failed=True)
    shed = Request(10.0, 100, 11, over=True, shed=True)
    lost = Request(10.0, 100, 11)
    early = answered(1.0, 9.0, 9.5)
    bypass = Request(10.0, 100, 11, bypass_pod=1)
    found = measures.measure([*good, slow, dragging, failed, shed, lost, early, bypass], 5.0, 2.0, 0.05)
    assert found.requests == 10
    assert found.good == pytest.approx(0.5)
    assert (found.failed, found.shed) == (pytest.approx(0.2), pytest.approx(0.1))
    assert found.ttft_p99_s > 50.0


def test_goodness_is_told_by_class():
    first, second = answered(10.0, 0.1, 0.5), answered(10.0, 9.0, 9.5)
    second.priority = -1
    assert measures.measure([first, second], 0.0, 2.0, 0.05).good_by_class == {"-1": 0.0, "0": 1.0}


def test_a_ratio_is_paired_by_seed_and_its_interval_holds_it():
    middle, low, high = measures.ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0], RNG)
    assert (middle, low, high) == (pytest.approx(2.0), pytest.approx(2.0), pytest.approx(2.0))
    middle, low, high = measures.ratio([2.0, 4.0, 8.0], [2.0, 2.0, 2.0], RNG)
    assert 1.0 <= low < middle < high <= 4.0


def test_the_last_request_to_a_hung_pod_is_told_without_later_trials():
    sent = [Request(at_s, 1, 1, pod=0, sent_s=at_s) for at_s in (19.0, 20.1, 20.3, 26.0)]
    assert measures.last_sent_s(sent, 0, 20.0, 45.0) == pytest.approx(0.3)


def test_every_cell_has_a_name_of_its_own_and_known_rivals():
    cells = scenarios.matrix()
    assert len({cell.key for cell in cells}) == len(cells)
    for cell in cells:
        for name in cell.rivals:
            assert rival(name, cell.plant.gpus).name == name
    assert {cell.key.split("/")[0] for cell in cells} == {f"B{number}" for number in range(1, 16)}
    assert {target.cell for target in TARGETS} <= {cell.key for cell in cells}


def test_constants_that_are_off_are_off_by_enough():
    for work, step in WRONG.values():
        assert max(work, 1 / work) >= 1.6
        assert max(step, 1 / step) >= 1.6


def invented(value_of: dict[str, float]) -> dict[str, list[dict[str, object]]]:
    """Results of a whole matrix in which every policy's times are as given, others' 1."""
    results = {}
    for cell in scenarios.matrix():
        for name in cell.rivals:
            value = value_of.get(name, 1.0)
            fields = dict.fromkeys(measures.Measures.__slots__, value) | {"good": 1.0, "failed": 0.0, "shed": 0.0}
            fields |= {"good_by_class": {"1": 1.0}, "detected_s": 0.2}  # type: ignore[dict-item]
            results[f"{cell.key}|{name}"] = [fields, fields]
    return results


def test_targets_are_met_by_a_rule_that_is_twice_as_good_and_missed_by_one_that_is_not():
    half = {"sonde": 0.5}
    met = {one.words: one.reached for one in targets.outcomes(invented(half), RNG)}
    assert met["straggler x2: TPOT p99 against the best peer"]
    assert met["homogeneous, 80 %: TTFT p99 against the best peer"]
    twice = {one.words: one.reached for one in targets.outcomes(invented({"sonde": 2.0}), RNG)}
    assert not any(reached for words, reached in twice.items() if "p99 against" in words and "4 pickers" not in words)
    assert not twice["agents die: against least-request"]


def test_the_best_peer_is_what_counts():
    found = targets.outcomes(invented({"sonde": 0.9, "llm-d": 0.5}), RNG)
    assert "llm-d" in found[0].found
    assert not found[2].reached


def test_the_capacity_is_between_the_rates_that_hold_and_fail_the_goodput():
    results = invented({})
    for rate, good in zip(targets.MIXED_RATES, (1.0, 1.0, 1.0, 0.98, 0.9), strict=True):
        results[f"B3/{rate}|sonde"] = [dict(results[f"B3/{rate}|sonde"][0], good=good)]
    assert targets.capacity(results, "sonde") == pytest.approx(75 + 3.5)


def test_losses_are_shown_and_wins_are_not():
    cells = scenarios.matrix()
    lost = "\n".join(report.lines(cells, invented({"sonde": 1.5}), 2))
    assert "Where sonde loses" in lost
    assert "**0.67 (0.67 to 0.67)" in lost
    won = "\n".join(report.lines(cells, invented({"sonde": 0.5}), 2))
    assert "No cell is lost" in won
    assert "**missed**" in lost
    everybody = "\n".join(report.everybody(cells, invented({})))
    for name in (*UNTOLD, *TOLD):
        assert f"| {name} |" in everybody


def test_only_what_is_between_the_markers_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(page, ["new"])
    assert page.read_text() == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"


def test_a_key_changes_with_the_cell_and_not_with_the_seeds_order():
    one, other = scenarios.matrix()[:2]
    assert runs._key(one, "sonde", 1) != runs._key(other, "sonde", 1)
    assert runs._key(one, "sonde", 1) != runs._key(one, "llm-d", 1)
    assert runs._key(one, "sonde", 1) == runs._key(scenarios.matrix()[0], "sonde", 1)
