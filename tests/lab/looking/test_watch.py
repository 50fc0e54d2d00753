from __future__ import annotations

from lab.looking.watch import lines, rows, short

PAGE = """\
# HELP sonde_controller_endpoint_in_flight Requests in flight as each source counts them.
# TYPE sonde_controller_endpoint_in_flight gauge
sonde_controller_endpoint_in_flight{namespace="default",pod="pod-1",port="8000",source="kernel"} 3.0
sonde_controller_endpoint_in_flight{namespace="default",pod="pod-1",port="8000",source="engine"} 2.0
sonde_controller_endpoint_in_flight{namespace="default",pod="pod-2",port="8000",source="engine"} 1.0
sonde_controller_endpoint_in_flight{namespace="default",pod="pod-2",port="8000",source="own"} 2.0
sonde_controller_endpoint_waiting{namespace="default",pod="pod-2",port="8000"} 0.0
sonde_controller_endpoint_waiting{namespace="default",pod="pod-1",port="8000"} 1.0
sonde_controller_endpoint_stalled{namespace="default",pod="pod-1",port="8000"} 1.0
sonde_controller_endpoint_stalled{namespace="default",pod="pod-2",port="8000"} 0.0
sonde_controller_endpoint_usual_ttft_seconds{namespace="default",pod="pod-1",port="8000"} 0.05
nonsense
"""


def test_rows_say_what_the_page_says():
    one, two = rows(PAGE, ["pod-1", "pod-2"], {"pod-1": 7})
    assert (one.in_flight, one.waiting, one.streaming, one.source, one.stalled) == (3, 1, 2, "kernel", True)
    assert (one.ttft_s, one.sent) == (0.05, 7)
    assert (two.in_flight, two.source, two.stalled, two.sent) == (1, "engine", False, 0)


def test_how_many_answers_have_begun_is_unknown_where_the_kernel_does_not_count():
    _, two = rows(PAGE, ["pod-1", "pod-2"], {})
    assert two.streaming is None


def test_what_the_page_does_not_say_is_unknown_and_not_zero():
    (row,) = rows("", ["pod-9"], {})
    assert (row.in_flight, row.waiting, row.streaming, row.source, row.ttft_s) == (None,) * 5
    assert lines([row], {})[1].split() == ["pod-9", "0", "?", "?", "?", "?", "?", "?"]


def test_a_stall_is_loud():
    table = rows(PAGE, ["pod-1"], {})
    assert lines(table, {"pod-1": "slow"})[1].endswith("STALLED (slow)")
    assert "STALLED" in short(table)
