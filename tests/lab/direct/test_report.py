"""The table of direct clients."""

from __future__ import annotations

from lab.contests.load import Result
from lab.contests.workload import Request
from lab.direct import report


def result(at_s: float, ttft_s: float | None, pod: str | None) -> Result:
    first_s = None if ttft_s is None else at_s + ttft_s
    return Result(Request(0, at_s, 5, 3, True), at_s, None, first_s, None, (), 3, 200, pod, None if pod else "refused")


def rounds() -> list[report.Came]:
    chance = [result(at_s, 0.1 if at_s < 8 else 1.0, "a" if at_s < 8 else "b") for at_s in range(10)]
    steered = [result(at_s, 0.1, "a") for at_s in range(9)] + [result(9, None, None)]
    return [report.came("kube-proxy", chance, 0, {}), report.came("steer", steered, 0, {"a": 3.0, "b": 1.0})]


def test_what_was_sent_while_warming_up_is_left_out():
    came = report.came("steer", [result(at_s, 0.1, "a") for at_s in range(10)], 4, {})
    assert [one.request.at_s for one in came.results] == [4, 5, 6, 7, 8, 9]


def test_the_table_has_times_as_ratios_to_the_first_arm_and_shares_beside_what_was_told():
    assert report.table(rounds(), ["a", "b"], {"b": "2.5x slow"}) == [
        "| arm | requests | failed | TTFT p50 | TTFT p90 | TTFT p99 | a | b (2.5x slow) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| kube-proxy | 10 | 0 | 100 ms | 1000 ms | 1000 ms | 80.0% | 20.0% |",
        "| steer | 10 | 1 | 100 ms (1.00x) | 100 ms (0.10x) | 100 ms (0.10x) | 100.0% | 0.0% |",
        "| steer: told at the end |  |  |  |  |  | 75.0% | 25.0% |",
    ]


def test_failures_are_told_by_arm():
    assert report.errors(rounds()) == ["steer: 1 requests failed: refused"]


def test_an_arm_without_an_answer_has_no_times():
    (line,) = report.table([report.came("steer", [result(0, None, None)], 0, {})], ["a"], {})[2:]
    assert line == "| steer | 1 | 1 | - | - | - | - |"
