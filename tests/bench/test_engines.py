"""What the comparison with real engines rests on: histograms of two makers, and clients that know when."""

from __future__ import annotations

import asyncio
import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.samples import Page
from agent.kernel import layout
from bench.engines import comparison, triton
from bench.engines.comparison import Load, Look, Said
from bench.engines.histograms import Histogram, Times, misplaced, of_kernel, of_page, times_of
from bench.engines.load import Ask, Reply, ask_all

PAGE = Page(
    b"# TYPE x_seconds histogram\n"
    + b"".join(
        b'x_seconds_bucket{engine="%d",le="%s"} %d\n' % (engine, bound, count)
        for engine in (0, 1)
        for bound, count in ((b"0.1", 2), (b"1.0", 5), (b"+Inf", 6))
    )
    + b'x_seconds_sum{engine="0"} 3.5\nx_seconds_sum{engine="1"} 4.5\n'
)


def kernel(*values_us: int) -> Histogram:
    buckets = [0] * layout.BUCKETS
    for value in values_us:
        buckets[layout.bucket_index(value)] += 1
    return of_kernel(buckets, 1000 * sum(values_us))


def engine(bounds_s: tuple[float, ...], *values_us: int) -> Histogram:
    uppers = (*bounds_s, math.inf)
    counts = [0] * len(uppers)
    for value in values_us:
        counts[next(i for i, upper in enumerate(uppers) if value / 1e6 <= upper)] += 1
    return Histogram(uppers, tuple(counts), sum(values_us) / 1e6)


def test_a_histogram_of_a_page_is_summed_over_its_ranks() -> None:
    found = of_page(PAGE, "x_seconds")
    assert found == Histogram((0.1, 1.0, math.inf), (4, 6, 2), 8.0)
    assert of_page(PAGE, "x_seconds", 'engine="1"') == Histogram((0.1, 1.0, math.inf), (2, 3, 1), 4.5)
    assert of_page(PAGE, "y_seconds") is None


def test_quantiles_are_linear_inside_a_bucket_and_stop_at_the_last_bound() -> None:
    found = Histogram((0.1, 1.0, math.inf), (4, 6, 2), 8.0)
    assert found.quantile_s(0.5) == pytest.approx(0.1 + 0.9 * 2 / 6)
    assert found.quantile_s(0.99) == 1.0
    assert Histogram((0.1, math.inf), (0, 0), 0.0).quantile_s(0.5) is None


def test_what_rose_is_the_difference_of_two_readings() -> None:
    before, after = engine((0.1, 1.0), 50_000), engine((0.1, 1.0), 50_000, 500_000, 2_000_000)
    assert after.since(before) == engine((0.1, 1.0), 500_000, 2_000_000)


@given(st.lists(st.integers(1, 30_000_000), max_size=40))
def test_the_same_values_are_never_in_another_bucket(values: list[int]) -> None:
    assert misplaced(kernel(*values), engine((0.001, 0.005, 0.1, 0.25, 1.0, 10.0), *values)) == 0


def test_values_beyond_doubt_in_another_bucket_are_counted() -> None:
    bounds = (0.1, 1.0)
    assert misplaced(kernel(50_000, 50_000, 500_000), engine(bounds, 500_000, 500_000, 500_000)) == 2
    assert misplaced(kernel(50_000), engine(bounds, 50_000, 60_000)) == 1  # one more is one too many


def test_times_of_single_values_are_those_values() -> None:
    assert times_of([3.0, 1.0, 2.0]) == Times(3, 2.0, 2.0, 3.0)
    assert times_of([]) == Times(0)


def load(replies: list[Reply], engine_first: int = 0, **counts: int) -> Load:
    kernel = {"started": 0, "completed": 0, "client_aborted": 0, "server_aborted": 0, "lost": 0, "in_flight": 0}
    return Load("x", tuple(replies), kernel | counts, Times(2), Times(0), Said(None, Times(engine_first)))


def test_goals_miss_what_one_side_alone_counted() -> None:
    replies = [Reply(0, 1), Reply(0, 1), Reply(0, 1, left=True)]
    good = load(replies, 2, started=3, completed=2, client_aborted=1)
    assert all(comparison.goals([good]).values())
    for off in ({"started": 2}, {"completed": 3}, {"client_aborted": 0}, {"in_flight": 1}):
        bad = load(replies, 2, **({"started": 3, "completed": 2, "client_aborted": 1} | off))
        assert list(comparison.goals([bad]).values()).count(False) == 1, off
    assert not all(comparison.goals([load(replies, 3, started=3, completed=2, client_aborted=1)]).values())


def test_a_look_agrees_where_the_kernel_may_have_had_the_sum_meanwhile() -> None:
    assert Look(5, (8, 2), 6, 1, (7, 2)).agrees()
    assert not Look(5, (8, 2), 6, 3, (8, 2)).agrees()
    assert Look(5, (8, 2), 6, 3, (8, 2)).agrees(slack=1)
    assert not Look(5, (8, 2), None, 3, (8, 2)).agrees(slack=9)


def test_clients_in_flight_are_those_that_have_sent_and_not_seen_the_end() -> None:
    of = load([Reply(0, 10), Reply(5, 20), Reply(10, 30)])
    assert [of.clients_in_flight(at_ns) for at_ns in (0, 5, 9, 10, 25, 30)] == [1, 2, 2, 2, 1, 0]


def test_what_triton_says_of_one_model_is_not_that_of_another() -> None:
    page = Page(
        b'nv_inference_request_success{model="stream",version="1"} 4\n'
        b'nv_inference_request_success{model="batch",version="1"} 9\n'
        b'nv_inference_request_duration_us{model="stream",version="1"} 2000000\n'
        b'nv_inference_request_summary_us{model="stream",version="1",quantile="0.5"} 400000\n'
        b'nv_inference_request_summary_us{model="stream",version="1",quantile="0.99"} 900000\n'
    )
    assert triton.finished(page, "batch") == 9
    assert triton.durations(page, "stream") == Times(4, 0.5, 0.4, 0.9)


ANSWER = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = [b'data: {"n":%d}\n\n' % n for n in range(5)]


def answer(writer: asyncio.StreamWriter, end: bytes) -> None:
    writer.write(ANSWER + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in EVENTS) + end)


def test_clients_know_what_came_who_left_and_who_cut() -> None:
    handlers: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while b"/cut" not in (head := await reader.readuntil(b"\r\n\r\n")):
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                answer(writer, b"" if b"/open" in head else b"0\r\n\r\n")
            answer(writer, b"")
        writer.close()

    async def run() -> list[Reply]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asks = [Ask("/whole", b"{}"), Ask("/whole", b"{}"), Ask("/open", b"{}", leave_after_events=3), Ask("/cut", b"")]
        try:
            return await ask_all("127.0.0.1", port, asks, 1)
        finally:
            server.close()
            await asyncio.gather(*filter(None, handlers))  # each ends with its connection

    whole, again, left, cut = asyncio.run(run())
    assert [(one.status, one.events, one.left, one.cut) for one in (whole, again)] == [(200, 5, False, False)] * 2
    assert (left.left, left.cut) == (True, False)
    assert (cut.left, cut.cut, cut.events) == (False, True, 5)
    assert whole.ttft_s is not None
    assert whole.ttft_s >= 0
