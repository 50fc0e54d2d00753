from __future__ import annotations

from bench.matching import CLOSE_NS, Call, Pair, Sample, judge, outcome_agrees, pair, possible
from lab.engines.truth import CLIENT_ABORTED, COMPLETED, Record


def answered(sent: int, seen: int, written: int, read: int) -> Pair:
    record = Record("p", 1, "/", "a", seen, seen, data_ns=[seen + 1], done_ns=written - 1, end_ns=written)
    record.outcome = COMPLETED
    return Pair(Call("a", sent, read, False, 1), record)


def left(sent: int, seen: int, closed: int, noticed: int, written: int = 3, read: int = 2) -> Pair:
    record = Record("p", 1, "/", "a", seen, seen, data_ns=list(range(seen, seen + written)), end_ns=noticed)
    record.outcome = CLIENT_ABORTED
    return Pair(Call("a", sent, closed, True, read), record)


def test_between_the_engine_seeing_it_and_writing_its_end_a_request_is_surely_in_flight():
    assert possible([answered(10, 20, 90, 95)], Sample(30, 40, 1)) == range(1, 2)


def test_before_it_is_sent_and_after_its_end_is_read_it_is_surely_not():
    pairs = [answered(10, 20, 90, 95)]
    assert possible(pairs, Sample(1, 9, 0)) == range(1)
    assert possible(pairs, Sample(96, 97, 0)) == range(1)


def test_while_it_is_on_its_way_both_are_possible():
    pairs = [answered(10, 20, 90, 95)]
    assert possible(pairs, Sample(15, 16, 0)) == range(2)
    assert possible(pairs, Sample(92, 93, 0)) == range(2)


def test_an_aborted_request_ends_between_the_close_and_the_engine_closing():
    pairs = [left(10, 20, 50, 60)]
    assert possible(pairs, Sample(48, 49, 1)) == range(1, 2)
    assert possible(pairs, Sample(51, 52, 0)) == range(2)
    assert possible(pairs, Sample(61, 62, 0)) == range(2)
    assert possible(pairs, Sample(61 + CLOSE_NS, 62 + CLOSE_NS, 0)) == range(1)


def test_only_impossible_samples_are_wrong():
    came_to = judge([answered(10, 20, 90, 95)], [Sample(30, 31, 1), Sample(30, 31, 0), Sample(15, 16, 0)])
    assert (came_to.samples, came_to.pinned, came_to.wrong) == (3, 2, 1)


def test_every_write_of_data_and_the_done_event_is_a_chunk():
    assert answered(10, 20, 90, 95).chunks == range(2, 3)


def test_of_an_aborted_answer_at_least_what_was_read_and_at_most_what_was_written_are_chunks():
    assert left(10, 20, 50, 60, written=3, read=2).chunks == range(2, 4)


def test_calls_meet_their_records_by_request_id():
    record = Record("p", 1, "/", "b", 5, 5)
    calls = [Call("a", 1, 2, False, 0), Call("b", 3, 4, False, 0)]
    assert pair(calls, [record]) == [Pair(calls[1], record)]


def test_the_outcome_must_be_counted_once_and_as_what_it_was():
    assert outcome_agrees(left(10, 20, 50, 60), 0, 1)
    assert not outcome_agrees(left(10, 20, 50, 60), 1, 0)
    assert not outcome_agrees(answered(10, 20, 90, 95), 1, 1)
