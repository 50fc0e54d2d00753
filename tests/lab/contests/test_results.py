from __future__ import annotations

from lab.contests import results
from lab.contests.load import Result
from lab.contests.workload import Request


def test_results_come_back_as_they_were_written(tmp_path):
    request = Request(3, 0.5, 10, 4, True)
    came = [
        Result(request, 0.5, 0.51, 0.6, 0.7, (0.01, 0.02), 3, 200, "pod-1", None),
        Result(request, 0.5, None, None, None, (), 0, None, None, "cannot connect: refused"),
    ]
    results.write(tmp_path / "r", came)
    assert results.read(tmp_path / "r") == came
