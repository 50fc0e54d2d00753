from __future__ import annotations

from lab.contests.summary import Hang, Summary
from lab.looking.story import hung, hung_verdict, p99_verdict

MS = 1_000_000


def arm(p99_s: float | None) -> Summary:
    return Summary("x", 1, 0, (0.01, 0.02, p99_s), None, {}, {})


def hang(*arrivals_ms: int, owed: int = 2) -> Hang:
    return Hang(0, 1 * MS, 5000 * MS, tuple(at_ms * MS for at_ms in arrivals_ms), owed)


def test_a_request_within_half_a_second_of_the_last_byte_is_in_time():
    assert hung_verdict(hang(20, 500)).startswith("reached ")
    assert hung_verdict(hang()).startswith("reached ")


def test_requests_after_half_a_second_are_counted_and_the_target_is_missed():
    verdict = hung_verdict(hang(20, 501, 4000))
    assert verdict.startswith("MISSED ")
    assert verdict.endswith(": 2 came later.")


def test_the_silence_of_a_pod_that_owed_nothing_is_no_sign():
    assert "owed nothing" in hung_verdict(hang(900, owed=0))


def test_without_a_hang_nothing_is_claimed():
    assert hung_verdict(None).startswith("not shown ")


def test_the_99th_percentile_is_compared_with_round_robins():
    assert p99_verdict(arm(0.1), arm(0.31)).startswith("reached ")
    assert "3.1 times (100 ms against 310 ms)" in p99_verdict(arm(0.1), arm(0.31))
    assert p99_verdict(arm(0.1), arm(0.29)).startswith("MISSED ")
    assert p99_verdict(arm(None), arm(0.29)).startswith("not shown ")


def test_the_last_request_to_a_hung_pod_is_told():
    assert hung(hang(7), "pod-3") == "the only request sent to the hung pod-3 came 7 ms after its last byte"
    assert hung(hang(7, 9), "pod-3").startswith("the last of 2 requests sent to the hung pod-3 came 9 ms")
