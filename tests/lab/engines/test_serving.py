from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from agent.engines.families import read_page
from lab import wire
from lab.engines.batching import Model
from lab.engines.knobs import Knobs
from tests.conftest import run
from tests.lab.started import FAST, ask, client, engine

CHAT = "/v1/chat/completions"
LATE = Knobs(header_early=False)
SLOW = Model(step_s=30.0, max_sequences=1)


def test_a_stream_is_one_event_for_each_token_then_done():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send(ask(3))
            head = await me.head()
            events = await me.events()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-type: text/event-stream; charset=utf-8\r\n" in head
        assert b"transfer-encoding: chunked\r\n" in head
        assert b"x-sonde-pod: pod-1\r\n" in head
        assert len(events) == 4
        assert all(event.startswith(b"data: {") and event.endswith(b"}\n\n") for event in events[:-1])
        assert events[-1] == b"data: [DONE]\n\n"
        assert json.loads(events[2][6:])["choices"][0]["finish_reason"] == "length"

    run(body())


def test_header_event_done_and_end_are_writes_of_their_own():
    async def body():
        async with engine() as lab:
            writes: list[bytes] = []

            class Spy(asyncio.Protocol):
                def connection_made(self, transport):
                    transport.write(
                        b"POST /v1/completions HTTP/1.1\r\ncontent-length: 65\r\n\r\n"
                        + json.dumps(ask(1, "a")).encode().ljust(65)
                    )

                def data_received(self, data):
                    writes.append(data)

            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(Spy, "127.0.0.1", lab.port)
            await lab.until(lambda: lab.records)
            await lab.until(lambda: b"".join(writes).endswith(b"0\r\n\r\n"))
            transport.close()
            (record,) = lab.records
        assert record.header_ns < record.data_ns[0] < record.done_ns < record.end_ns
        assert writes[0].endswith(b"\r\n\r\n")
        assert record.bytes == len(b"".join(writes))

    run(body())


def test_usage_comes_before_done_where_asked():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send(ask(2, "a b c", stream_options={"include_usage": True}))
            await me.head()
            events = await me.events()
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        assert json.loads(events[-2][6:])["usage"] == usage
        assert len(events) == 4

    run(body())


def test_chat_begins_with_a_role_event_at_the_first_token():
    async def body():
        slow = replace(FAST, step_s=0.3)  # far longer than two writes one after the other may take
        async with engine(slow) as lab, client(lab.port) as me:
            me.send(
                {"model": "lab", "messages": [{"role": "user", "content": "a b"}], "max_tokens": 2, "stream": True},
                CHAT,
            )
            await me.head()
            events = await me.events()
            (record,) = lab.records
        deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in events[:-1]]
        assert [delta.get("role") for delta in deltas] == ["assistant", None, None]
        assert record.prompt_tokens == 2
        assert record.data_ns[1] - record.data_ns[0] < slow.step_s * 1e9

    run(body())


@pytest.mark.parametrize("path", ["/v1/completions", CHAT])
def test_an_answer_that_is_not_streamed_comes_whole(path):
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send({"model": "lab", "prompt": "a", "messages": [{"content": "a"}], "max_tokens": 3}, path)
            status, answer = await me.plain()
        assert status == 200
        assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}

    run(body())


def test_the_header_of_a_queued_stream_comes_at_once():
    async def body():
        async with engine(Model(step_s=5.0)) as lab, client(lab.port) as me:
            me.send(ask())
            assert (await me.head()).startswith(b"HTTP/1.1 200")
            assert lab.gauge("num_requests_running") == 1

    run(body())


def test_a_late_header_comes_with_the_first_token():
    async def body():
        async with engine(knobs=LATE) as lab, client(lab.port) as me:
            me.send(ask(2))
            await me.head()
            await me.events()
            (record,) = lab.records
        assert record.header_ns - record.request_ns >= FAST.step_s * 1e9
        assert record.data_ns[0] - record.header_ns < FAST.step_s * 1e9

    run(body())


def test_comments_come_until_the_first_token():
    async def body():
        knobs = Knobs(keep_alive_s=0.02)
        async with engine(Model(step_s=0.09), knobs) as lab, client(lab.port) as me:
            me.send(ask(2))
            await me.head()
            events = await me.events()
            (record,) = lab.records
        comments = [event for event in events if event == b": keep-alive\n\n"]
        assert 2 <= len(comments) <= 4
        assert events[: len(comments)] == comments
        assert max(record.comment_ns) < record.first_data_ns

    run(body())


def test_a_hung_engine_still_answers_health_and_takes_requests():
    async def body():
        async with engine() as lab, client(lab.port) as me, client(lab.port) as other:
            await wire.turn_knobs("127.0.0.1", lab.control_port, hang_s=30)
            me.send(ask())
            await me.head()
            other.send(b"", "/health", "GET")
            assert await other.plain() == (200, None)
            assert lab.gauge("num_requests_running") == 0
            assert lab.gauge("num_requests_waiting") == 1

    run(body())


def test_after_a_hang_everything_goes_on():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send(ask(20))
            await me.head()
            await me.chunk()
            await wire.turn_knobs("127.0.0.1", lab.control_port, hang_s=0.2)
            await me.events()
            (record,) = lab.records
            assert lab.happened == ["hang", "resume"]
        assert record.outcome == "completed"
        assert len(record.data_ns) == 20
        gaps = [later - earlier for earlier, later in zip(record.data_ns, record.data_ns[1:], strict=False)]
        assert sum(gap > 0.15e9 for gap in gaps) == 1

    run(body())


def test_a_client_that_closes_frees_its_request():
    async def body():
        async with engine() as lab:
            async with client(lab.port) as me:
                me.send(ask(500))
                await me.head()
                await me.chunk()
            await lab.until(lambda: lab.records)
            assert lab.gauge("num_requests_running") == 0
            assert lab.gauge("kv_cache_usage_perc") == 0
            assert lab.records[0].outcome == "client_aborted"

    run(body())


def test_a_half_closed_client_counts_as_gone():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send(ask(500))
            await me.head()
            me.writer.write_eof()
            await lab.until(lambda: lab.records)
            assert lab.records[0].outcome == "client_aborted"

    run(body())


def test_a_client_that_leaves_while_it_queues_frees_its_place():
    async def body():
        async with engine(SLOW) as lab, client(lab.port) as first:
            first.send(ask())
            await first.head()
            async with client(lab.port) as second:
                second.send(ask())
                await second.head()
                assert lab.gauge("num_requests_waiting") == 1
            await lab.until(lambda: lab.records)
            assert lab.gauge("num_requests_waiting") == 0

    run(body())


def test_more_than_the_limit_wait():
    async def body():
        async with (
            engine(SLOW) as lab,
            client(lab.port) as me,
            client(lab.port) as other,
        ):
            for one in (me, other):
                one.send(ask())
                await one.head()
            assert lab.gauge("num_requests_running") == 1
            assert lab.gauge("num_requests_waiting") == 1

    run(body())


def test_the_metrics_page_reads_as_vllms():
    async def body():
        async with engine(SLOW) as lab, client(lab.port) as me, client(lab.port) as other:
            for one in (me, other):
                one.send(ask())
                await one.head()
            page = read_page(await wire.get("127.0.0.1", lab.port, "/metrics"))
        assert (page.engine, page.running, page.waiting, page.kv_cache_usage) == ("vllm", 1, 1, 0.0)

    run(body())


def test_the_page_counts_first_tokens_and_gaps():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send(ask(3))
            await me.head()
            await me.events()
            assert lab.gauge("time_to_first_token_seconds_count") == 1
            assert lab.gauge("inter_token_latency_seconds_count") == 2
            assert lab.gauge("generation_tokens_total") == 3

    run(body())


REFUSALS = [
    pytest.param(b"{nonsense", 400, "json_invalid", id="no JSON"),
    pytest.param({"model": "lab"}, 400, "Field required", id="no prompt"),
    pytest.param({"model": "other", "prompt": "a"}, 404, "`other` does not exist", id="unknown model"),
    pytest.param({"model": "lab", "prompt": "a", "max_tokens": 0}, 400, "at least 1", id="no tokens"),
    pytest.param({"model": "lab", "prompt": "a b", "max_tokens": 999}, 400, "context length is 1000", id="too long"),
    pytest.param(ask(999), 400, "context length", id="too long streamed"),
]


@pytest.mark.parametrize(("asked", "status", "text"), REFUSALS)
def test_a_bad_request_is_refused_as_vllm_does(asked, status, text):
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send(asked)
            answer_status, answer = await me.plain()
            assert lab.records[0].outcome == "refused"
        assert answer_status == status
        assert answer["error"]["code"] == status
        assert text in answer["error"]["message"]

    run(body())


def test_an_unknown_path_is_404_and_the_connection_stays():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send(b"", "/nowhere", "GET")
            assert await me.plain() == (404, {"detail": "Not Found"})
            me.send(b"", "/v1/models", "GET")
            status, answer = await me.plain()
            assert (status, answer["data"][0]["id"]) == (200, "lab")

    run(body())


def test_what_is_no_http_gets_400_and_the_end():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.writer.write(b"\x16\x03\x01\r\n\r\n")
            assert (await me.reader.read()).startswith(b"HTTP/1.1 400")

    run(body())


def test_pipelined_requests_are_answered_in_turn():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send(ask(2, "a"))
            me.send(ask(4, "a"))
            counts = []
            for _ in range(2):
                await me.head()
                counts.append(len(await me.events()))
        assert counts == [3, 5]

    run(body())


def test_connection_close_is_honoured():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send(ask(1), headers="Connection: close\r\n")
            assert (await me.reader.read()).endswith(b"0\r\n\r\n")

    run(body())


def test_an_idle_connection_is_closed():
    async def body():
        async with engine(idle_timeout_s=0.5) as lab, client(lab.port) as me:
            me.send(ask(2))
            await me.head()
            await me.events()
            assert await me.reader.read() == b""

    run(body())


def test_a_busy_connection_outlives_the_idle_limit():
    async def body():
        async with engine(Model(step_s=0.05), idle_timeout_s=0.05) as lab, client(lab.port) as me:
            me.send(ask(4))
            await me.head()
            assert len(await me.events()) == 5

    run(body())


def test_a_request_id_goes_into_the_log():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            me.send(ask(1), headers="X-Request-Id: abc\r\n")
            await me.head()
            await me.events()
            (record,) = lab.records
            assert record.request_id == "abc"
            assert record.peer_port == me.writer.get_extra_info("sockname")[1]
            assert record.first_byte_ns <= record.request_ns <= record.header_ns

    run(body())


def test_slow_turned_at_run_time_stretches_the_gaps():
    async def body():
        async with engine() as lab, client(lab.port) as me:
            await wire.turn_knobs("127.0.0.1", lab.control_port, slow=10.0)
            me.send(ask(3))
            await me.head()
            await me.events()
            (record,) = lab.records
        assert record.data_ns[1] - record.data_ns[0] >= 10 * FAST.step_s * 1e9

    run(body())


@pytest.mark.parametrize("turned", [{"slow": 0}, {"slow": True}, {"hang_s": "x"}, {"sloww": 1}, {"header_early": 1}])
def test_a_bad_turn_is_refused_and_changes_nothing(turned):
    async def body():
        async with engine() as lab:
            before = lab.engine.knobs
            with pytest.raises(wire.CallError, match="status 400"):
                await wire.turn_knobs("127.0.0.1", lab.control_port, **turned)
            assert lab.engine.knobs == before

    run(body())


def test_knobs_turn_on_the_serving_port_too():
    async def body():
        async with engine() as lab:
            await wire.turn_knobs("127.0.0.1", lab.port, slow=2)
            assert lab.engine.knobs.slow == 2
            assert lab.records == []

    run(body())
