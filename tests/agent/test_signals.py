"""What a row of a slot means."""

from __future__ import annotations

from agent.recent import NO_GAPS, Gaps, Sums, Usual
from agent.signals import accept_overflows, connections, gauge, kernel_signal, progress_age_ns
from tests.agent.rows import MS, S, row

NOTHING = Usual((Sums(0),))


def test_progress_counts_from_the_last_byte_or_from_when_it_became_busy() -> None:
    assert progress_age_ns(row(in_flight=1, last_byte_ns=5 * S, busy_since_ns=3 * S), 7 * S) == 2 * S
    assert progress_age_ns(row(in_flight=1, last_byte_ns=5 * S, busy_since_ns=6 * S), 7 * S) == 1 * S


def test_what_is_idle_makes_no_progress_and_lacks_none() -> None:
    assert progress_age_ns(row(last_byte_ns=5 * S), 7 * S) is None
    assert not kernel_signal(row(), NOTHING, NO_GAPS, 0, 0).HasField("progress_age_us")


def test_gauges_are_never_below_zero() -> None:
    assert gauge(row(in_flight=-1), "in_flight") == 0
    assert connections(row(connections_opened=1, connections_closed=2)) == 0
    assert accept_overflows(row(syns=1, syn_acks=2)) == 0


def test_ages_are_of_the_time_of_sending() -> None:
    signal = kernel_signal(row(in_flight=2, last_byte_ns=9 * S), NOTHING, NO_GAPS, 10 * S, 10 * S + 15 * MS)
    assert (signal.age_us, signal.progress_age_us, signal.in_flight) == (15_000, 1_015_000, 2)


def test_an_unknown_round_trip_is_absent() -> None:
    assert not kernel_signal(row(), NOTHING, NO_GAPS, 0, 0).HasField("srtt_us")
    assert kernel_signal(row(srtt_us=70), NOTHING, NO_GAPS, 0, 0).srtt_us == 70


def test_what_is_usual_is_told_where_it_is_known() -> None:
    unknown = kernel_signal(row(), NOTHING, NO_GAPS, 0, 0)
    assert not any(unknown.HasField(name) for name in ("usual_ttft_us", "usual_gap_us", "low_gap_us"))
    known = kernel_signal(row(), Usual((Sums(0),), 90_000, 12_000), Gaps(quartile_us=9_000), 0, 0)
    assert (known.usual_ttft_us, known.usual_gap_us, known.low_gap_us) == (90_000, 12_000, 9_000)
