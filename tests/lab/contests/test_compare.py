"""What a comparison sends, does to pods, and makes of the answers."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import pytest

from controller.policies.registry import POLICIES
from lab.config import COMPARED, CompareConfig, parse
from lab.contests import load, pictures, verdict
from lab.contests.load import Result, Target
from lab.contests.trials import SCENARIOS, classed, workload
from lab.contests.verdict import Sample
from lab.contests.workload import Request, schedule


def arm(policy: str, *ttft_ms: float, scenario: str = "hang", number: int = 0, failed: int = 0) -> Sample:
    times = tuple(value / 1e3 for value in ttft_ms)
    return Sample(scenario, policy, number, times, times, failed)


def test_the_defaults_are_all_scenarios_and_policies_that_exist():
    config = parse(["compare"])
    assert isinstance(config, CompareConfig)
    assert config.scenarios == tuple(SCENARIOS)
    assert config.policies == COMPARED
    assert set(COMPARED) <= set(POLICIES)


@pytest.mark.parametrize("flag", [["--scenarios", "hang,nothing"], ["--policies", "sonde,"], ["--rounds", "0"]])
def test_what_does_not_exist_is_refused_in_one_line(flag, capsys):
    with pytest.raises(SystemExit) as left:
        parse(["compare", *flag])
    assert left.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def prompt_of(request: Request, label: str = "a") -> list[str]:
    body = load.request_bytes(request, Target("h", 1, "m", label=label)).split(b"\r\n\r\n", 1)[1]
    return json.loads(body)["prompt"].split()


def test_prompts_have_the_asked_length_and_begin_differently():
    one, other = (prompt_of(Request(index, 0.0, 50, 1, True)) for index in (1, 2))
    assert len(one) == len(other) == 50
    assert one[0] != other[0]


def test_prompts_of_a_group_share_their_beginning_and_no_more():
    one, other, third = (
        prompt_of(Request(index, 0.0, 50, 1, True, group, 30)) for index, group in ((1, 4), (2, 4), (3, 5))
    )
    assert len(one) == 50
    assert one[:30] == other[:30]
    assert one[30] != other[30]
    assert one[0] != third[0]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_a_load(name):
    requests = schedule(workload(SCENARIOS[name], 20.0, 10.0), 1)
    assert requests
    assert all(0 <= turn.at < 1 for turn in SCENARIOS[name].turns)
    assert any(request.shared_tokens for request in requests) == (name == "prefixes")


def test_classes_have_their_shares_and_are_the_same_for_every_policy():
    trial = SCENARIOS["overload"]
    plain = schedule(workload(trial, 100.0, 20.0), 1)
    one, again = (classed(plain, trial, 1) for _ in range(2))
    assert one == again
    shares = Counter(request.objective for request in one)
    assert {name: shares[name] / len(one) for name in shares} == {
        kind.name: pytest.approx(kind.share, abs=0.04) for kind in trial.classes
    }
    assert classed(plain, SCENARIOS["mixed"], 1) == plain


@pytest.mark.parametrize(("objective", "lines"), [("critical", 1), ("", 0)])
def test_a_request_names_its_objective_in_a_header(objective, lines):
    sent = load.request_bytes(Request(1, 0.0, 5, 1, True, objective=objective), Target("h", 1, "m"))
    head = sent.split(b"\r\n\r\n")[0].split(b"\r\n")
    assert head.count(b"x-gateway-inference-objective: critical") == lines
    assert sum(b"objective" in line for line in head) == lines


def test_what_keeps_to_the_budget_is_counted_by_class():
    asked = [Request(at, 0.0, 10, 5, True, objective=name) for at, name in enumerate(["critical", "critical", "batch"])]
    results = [
        Result(one, 0.0, 0.1, first, 9.0, (), 5, 200, "p", None) for one, first in zip(asked, (1, 3, 1), strict=True)
    ]
    counted = verdict.sample("overload", "sonde", 0, results, 60.0, 2.0)
    assert counted.good == {"critical": (1, 2), "batch": (1, 1)}
    lines = verdict.classes([counted, replace(counted, policy="llm-d", good={"critical": (0, 2)})])
    assert lines[0] == "| scenario | policy | good batch | good critical |"
    assert lines[2:] == [
        "| overload | sonde | 100 % (100 to 100) of 1 | 50 % (50 to 50) of 2 |",
        "| overload | llm-d | - | 0 % (0 to 0) of 2 |",
    ]
    assert verdict.classes([arm("sonde", 1.0)]) == []


def test_a_failure_counts_as_the_clients_patience():
    request = Request(0, 0.0, 10, 5, True)
    good = Result(request, 0.0, 0.1, 0.2, 1.0, (), 5, 200, "p", None)
    bad = Result(request, 0.0, 0.1, 0.2, 1.0, (), 2, 200, "p", "cut")
    found = verdict.sample("hang", "sonde", 0, [good, bad], 60.0)
    assert found.ttft_s == (0.2, 60.0)
    assert found.tpot_s == (pytest.approx(0.2),)
    assert found.failed == 1


def test_intervals_hold_the_estimate_and_grow_with_spread():
    narrow = verdict.p99([arm("a", *[100.0] * 50)], "ttft_s")
    assert narrow.low == narrow.value == narrow.high == pytest.approx(0.1)
    wide = verdict.p99([arm("a", *range(1, 101)), arm("a", *range(1, 201), number=1)], "ttft_s")
    assert wide.low < wide.value < wide.high + 1e-9
    assert math.isnan(verdict.p99([], "ttft_s").value)


def test_ratios_are_over_the_first_policy():
    found = verdict.ratio([arm("b", *[300.0] * 20)], [arm("a", *[100.0] * 20)], "ttft_s")
    assert (found.value, found.low, found.high) == (pytest.approx(3.0),) * 3
    lines = verdict.table([arm("a", 100.0), arm("b", 300.0, failed=1)], {"hang": ""})
    assert "| hang | a | 1 | 0 | 100 ms |" in lines[2]
    assert lines[3].endswith("| 3.00 (3.00 to 3.00) | 3.00 (3.00 to 3.00) |")


def test_a_picture_is_drawn_where_it_can_be(tmp_path):
    file = tmp_path / "compare.svg"
    pictures.draw(file, [arm("a", 100.0, 200.0), arm("b", 300.0, 500.0), arm("b", 300.0, scenario="cold")])
    assert file.read_text().startswith("<?xml")
