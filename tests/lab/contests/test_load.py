from __future__ import annotations

import asyncio
import socket

import pytest

from lab.contests.load import Progress, Target, send
from lab.contests.workload import Request
from lab.engines.http1 import LAST_CHUNK, chunk
from tests.conftest import run
from tests.lab.started import FAST, engine, port_of


def requests(*times: float, tokens: int = 3, stream: bool = True) -> tuple[Request, ...]:
    return tuple(Request(index, at_s, 5, tokens, stream) for index, at_s in enumerate(times))


def target(port: int, timeout_s: float = 10) -> Target:
    return Target("127.0.0.1", port, "lab", timeout_s)


def test_every_answer_is_whole_and_timed():
    async def body():
        async with engine() as lab:
            results = await send(requests(0, 0.01, 0.02), target(lab.port))
        for result in results:
            assert (result.error, result.status, result.pod, result.events) == (None, 200, "pod-1", 3)
            assert result.sent_s <= result.header_s <= result.first_data_s <= result.end_s
            assert len(result.gaps_s) == 2
            assert result.ttft_s >= FAST.step_s * 0.9

    run(body())


def test_the_clients_times_agree_with_the_engines_log():
    async def body():
        async with engine() as lab:
            (result,) = await send(requests(0), target(lab.port))
            (record,) = lab.records
        assert record.request_id == "lab-0"
        told_s = (record.first_data_ns - record.first_byte_ns) / 1e9
        assert result.first_data_s - result.sent_s >= told_s  # both ways on the wire come on top

    run(body())


def test_requests_leave_at_their_times_whatever_the_answers_do():
    async def body():
        async with engine() as lab:
            lab.engine.hang(0.3)
            results = await send(requests(0, 0.05, 0.1), target(lab.port))
        for result in results:
            assert result.sent_s >= result.request.at_s - 0.001
        assert max(result.sent_s for result in results) < min(result.first_data_s for result in results)

    run(body())


def test_an_answer_that_is_not_streamed_counts_too():
    async def body():
        async with engine() as lab:
            (result,) = await send(requests(0, stream=False), target(lab.port))
        assert (result.error, result.status) == (None, 200)
        assert result.first_data_s is not None

    run(body())


def test_connections_are_used_again():
    async def body():
        async with engine() as lab:
            await send(requests(0, 0.5, 1.0), target(lab.port))  # each long over when the next is due
            assert len({record.peer_port for record in lab.records}) == 1

    run(body())


def test_a_connection_the_server_has_closed_is_not_used_again():
    async def body():
        async with engine(idle_timeout_s=0.03) as lab:
            results = await send(requests(0, 0.15), target(lab.port))
            assert len({record.peer_port for record in lab.records}) == 2
        assert [result.error for result in results] == [None, None]

    run(body())


def test_progress_can_be_watched():
    async def body():
        progress = Progress(2)
        async with engine() as lab:
            await send(requests(0, 0.01), target(lab.port), progress)
        assert (progress.sent, progress.ended, progress.failed) == (2, 2, 0)

    run(body())


def test_nobody_listening_is_an_error_of_each_request():
    async def body():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            (result,) = await send(requests(0), target(probe.getsockname()[1]))
        assert "cannot connect" in result.error

    run(body())


def test_an_answer_that_does_not_come_in_time_is_an_error():
    async def body():
        async with engine() as lab:
            lab.engine.hang(30)
            (result,) = await send(requests(0), target(lab.port, timeout_s=1))
        assert "within 1 s" in result.error
        assert result.status == 200  # the header was early
        assert result.first_data_s is None

    run(body())


async def answer_with(raw: bytes):
    """What one request gets from a server that sends these bytes and closes."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        (result,) = await send(requests(0, tokens=1), target(port_of(server)))
    return result


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

FAULTS = [
    pytest.param(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "status 503", id="503"),
    pytest.param(STREAM + b"c\r\ndata: {}\n\n\r\n", "ended inside a message", id="cut"),
    pytest.param(STREAM + chunk(b'data: {"error": {"code": 500}}\n\n') + LAST_CHUNK, '"code": 500', id="in-band error"),
    pytest.param(STREAM + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", "0 events for 1 tokens", id="no token"),
    pytest.param(b"", "ended before the answer", id="nothing"),
    pytest.param(b"nonsense\r\n\r\n", "expected", id="no HTTP"),
]


@pytest.mark.parametrize(("raw", "error"), FAULTS)
def test_a_broken_answer_is_an_error_that_says_how(raw, error):
    assert error in run(answer_with(raw)).error


def test_an_event_cut_anywhere_is_counted_once():
    stream = STREAM + b"5\r\ndata:\r\n6\r\n {}\n\nd\r\n9\r\nata: {}\n\n\r\n0\r\n\r\n"
    assert run(answer_with(stream)).events == 2


def test_a_comment_is_no_token():
    raw = STREAM + b"e\r\n: keep-alive\n\n\r\na\r\ndata: {}\n\n\r\n0\r\n\r\n"
    result = run(answer_with(raw))
    assert (result.error, result.events, result.gaps_s) == (None, 1, ())


def test_with_new_connections_each_request_has_one_of_its_own():
    async def body(keep_alive: bool) -> int:
        async with engine() as lab:
            where = Target("127.0.0.1", lab.port, "lab", keep_alive=keep_alive)
            results = await send(requests(0, 0.3, 0.6), where)
            assert [result.error for result in results] == [None] * 3
            return len({record.peer_port for record in lab.records})

    assert run(body(keep_alive=False)) == 3
    assert run(body(keep_alive=True)) == 1


def test_senders_that_are_told_when_begin_together():
    async def body():
        async with engine() as lab:
            begin_s = asyncio.get_running_loop().time() + 0.3
            first, second = await asyncio.gather(
                *(send(requests(0.0), target(lab.port), begin_s=begin_s) for _ in "ab")
            )
        assert first[0].sent_s >= 0.0
        assert second[0].sent_s >= 0.0

    run(body())
