from __future__ import annotations

from lab.contests.load import Result
from lab.contests.summary import hang, quantile, summarize, table
from lab.contests.workload import Request
from lab.engines.truth import Happening, Record


def result(index: int, ttft_s: float | None, pod: str = "a", error: str | None = None, stream: bool = True) -> Result:
    request = Request(index, 1.0, 10, 5, stream)
    first_s = None if ttft_s is None else 1.0 + ttft_s
    return Result(request, 1.0, 1.0, first_s, 2.0, (0.02, 0.03), 5, 200, pod, error)


def record(first_byte_ns: int, *data_ns: int) -> Record:
    return Record("p", 1, "/v1/completions", None, first_byte_ns, first_byte_ns, data_ns=list(data_ns))


def test_a_quantile_is_a_value_that_occurred():
    assert quantile(range(1, 101), 0.99) == 99
    assert quantile(range(1, 101), 0.5) == 50
    assert quantile([5], 0.01) == 5


def test_there_is_no_quantile_of_nothing():
    assert quantile([], 0.5) is None


def test_time_to_first_token_counts_from_when_the_request_was_due():
    late = Result(Request(0, 1.0, 1, 1, True), 1.5, None, 1.75, 2.0, (), 1, 200, "a", None)
    assert late.ttft_s == 0.75


def test_a_summary_counts_failures_and_pods():
    summary = summarize("x", [result(0, 0.1), result(1, 0.2, "b"), result(2, None, "b", "status 503")])
    assert (summary.requests, summary.failed, summary.by_pod) == (3, 1, {"a": 1, "b": 2})
    assert summary.errors == {"status 503": 1}


def test_answers_that_are_not_streamed_have_no_first_token():
    assert summarize("x", [result(0, 9.0, stream=False), result(1, 0.25)]).ttft_s == (0.25, 0.25, 0.25)


def test_the_table_gives_ratios_to_its_first_row():
    lines = table(
        [summarize("one", [result(0, 0.125)]), summarize("two", [result(0, 0.5, "b")])], {"a": "a", "b": "b (slow)"}
    )
    assert lines[0].split("  ")[-1] == "b (slow)"
    assert "125 ms" in lines[1]
    assert "500 ms (4.0x)" in lines[2]
    assert lines[2].split()[-2:] == ["0", "1"]


def test_a_hang_knows_the_last_data_before_and_the_requests_during_it():
    records = [record(10, 20, 95, 300), record(90), record(150), record(210, 305), record(400)]
    happened = [Happening("p", "hang", 100), Happening("p", "resume", 250)]
    found = hang(records, happened, 0, 1000)
    assert found is not None
    assert found.last_data_ns == 95
    assert found.arrivals_ns == (150, 210)
    assert found.last_arrival_ms == (210 - 95) / 1e6


def test_a_hang_nobody_was_sent_into_has_no_last_arrival():
    found = hang([record(10, 95)], [Happening("p", "hang", 100), Happening("p", "resume", 250)], 0, 1000)
    assert found is not None
    assert found.last_arrival_ms is None


def test_a_hang_of_another_arm_is_not_this_ones():
    assert hang([record(10, 95)], [Happening("p", "hang", 100)], 500, 1000) is None
