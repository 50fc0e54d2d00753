"""What a row of the table says, from what the kernel counted and what the server wrote down."""

from __future__ import annotations

import struct

import pytest

from bench.matching import Call, Pair, Sample
from bench.wire import Wire, compare
from bench.wire_ground import dropper
from lab.engines.truth import COMPLETED, Record

MS = 1_000_000
STREAM = Wire("streams", "/v1/stream", 2, at_once=2)


def streamed(id: str, begin_ms: int, wait_ms: int = 50, gaps_ms: int = 10, chunks: int = 3) -> Pair:
    first = (begin_ms + wait_ms) * MS
    data = [first + n * gaps_ms * MS for n in range(chunks)]
    record = Record("", 1, "/", id, begin_ms * MS, begin_ms * MS, data_ns=data, end_ns=data[-1] + MS, outcome=COMPLETED)
    return Pair(Call(id, begin_ms * MS - 1, data[-1] + 2 * MS, False, chunks), record)


def counted(**changed: int) -> dict[str, int]:
    names = ("started", "completed", "client_aborted", "gaps", "chunks", "exact_chunks", "in_flight")
    return dict.fromkeys((*names, "ttft_ns_sum", "gap_ns_sum", "duration_ns_sum", "read_delay_ns_sum"), 0) | changed


def test_totals_that_agree_match_every_request() -> None:
    pairs = [streamed("a", 100), streamed("b", 110)]
    total = counted(started=2, completed=2, chunks=6, exact_chunks=6, gaps=4, gap_ns_sum=40 * MS, ttft_ns_sum=101 * MS)
    row = compare(STREAM, pairs, total | {"duration_ns_sum": 142 * MS}, [], [])
    assert (row.requests, row.matched, row.chunks_wrong, row.left) == (2, 2, 0, 0)
    assert row.ttft_ms == pytest.approx((0.5,))
    assert row.gap_ms == pytest.approx((0,))
    assert row.duration_ms == pytest.approx((0,))


def test_a_missing_end_and_a_missing_chunk_show() -> None:
    pairs = [streamed("a", 100), streamed("b", 110)]
    row = compare(STREAM, pairs, counted(started=2, completed=1, exact_chunks=5, in_flight=1), [], [])
    assert (row.matched, row.chunks_wrong, row.left) == (1, 1, 1)


def test_what_lay_unread_is_taken_off_where_each_request_is_read_at_once() -> None:
    one = [streamed("a", 100)]
    total = counted(started=1, completed=1, ttft_ns_sum=58 * MS, read_delay_ns_sum=7 * MS, exact_chunks=3)
    row = compare(STREAM, one, total, [total], [])
    assert row.ttft_ms == pytest.approx((8,))
    assert row.unread_ms == pytest.approx((1,))


def test_a_sample_that_cannot_be_is_counted() -> None:
    samples = [Sample(120 * MS, 120 * MS, 1), Sample(121 * MS, 121 * MS, 0)]
    row = compare(STREAM, [streamed("a", 100)], counted(started=1, completed=1, exact_chunks=3), [], samples)
    assert (row.sampled.samples, row.sampled.wrong) == (2, 1)


@pytest.mark.parametrize("share", [0.01, 0.03, 0.05])
def test_the_dropper_passes_what_is_not_below_its_share(share: float) -> None:
    code = dropper(share)
    assert len(code) % 8 == 0
    operation, _, skip, limit = struct.unpack_from("<BBhi", code, 16)
    assert (operation, skip) == (0x35, 2)  # r0 >= limit: behind the two that drop
    assert limit == round(share * 65536)
