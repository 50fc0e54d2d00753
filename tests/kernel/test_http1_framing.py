"""Where one message ends and the next begins: chunks, lengths, pipelining, and shapes that are meant to deceive."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel.conversation import Bench, Conversation
from tests.kernel.messages import GET_HEALTH, LAST_CHUNK, POST, STREAM_HEADER, answer, chunk, event

JSON_HEADER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
SHORT = b"POST /v1/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"
SCALARS = ("responded", "first_data", "completed", "in_flight", "waiting", "lost", "connections_opaque", "started")


_numbers = itertools.count()


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(set(cuts)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


def test_data_that_looks_like_the_last_chunk_does_not_end_the_response(talk: Conversation) -> None:
    talk.client(POST).server(STREAM_HEADER).server(event(b"first"))
    talk.server(chunk(b"data: \r\n0\r\n\r\n"), chunk(b"data: 1\r\n0\r\n\r\n")[:-2])
    assert (talk["completed"], talk["in_flight"]) == (0, 1)
    talk.server(b"\r\n").server(LAST_CHUNK)
    assert (talk["completed"], talk["in_flight"]) == (1, 0)


@pytest.mark.parametrize(
    "ending",
    [
        b"0;reason=stop\r\n\r\n",
        b"000\r\n\r\n",
        b"0\r\nx-checksum: abc\r\n\r\n",
        b"0\r\na: b\r\nc: d\r\n\r\n",
        b"0 \r\n\r\n",
        b"5;a=b\r\nhello\r\n0\r\n\r\n",
        b"0000001F\r\n" + b"x" * 31 + b"\r\n0\r\n\r\n",
        b"1\r\na\r\n" * 60 + b"0\r\n\r\n",
    ],
)
def test_every_form_of_chunk_is_followed_to_the_end_cut_anywhere(bench: Bench, ending: bytes) -> None:
    step = max(1, len(ending) // 30)
    for place in range(0, len(ending), step):
        talk = bench.converse(slot=910, client_port=40_000 + next(_numbers))
        completed = talk["completed"]
        talk.client(POST).server(STREAM_HEADER).server(event(b"first"))
        talk.server(*cut(ending, [place] if place else []))
        assert (talk["completed"], talk["in_flight"]) == (completed + 1, 0), place


@pytest.mark.parametrize(
    "body", [b"zz\r\nhello\r\n", b"\r\n\r\n\r\n\r\n", b"123456789\r\n" + b"x" * 40, b"-5\r\nhello\r\n"]
)
def test_a_chunk_size_that_is_none_ends_the_request_as_lost(talk: Conversation, bench: Bench, body: bytes) -> None:
    before = bench.drops["bad_chunk"]
    talk.client(POST).server(JSON_HEADER).server(body)
    assert (talk["lost"], talk["in_flight"], talk["waiting"], talk["connections_opaque"]) == (1, 0, 0, 1)
    assert bench.drops["bad_chunk"] == before + 1
    assert talk.balanced()


def test_hundreds_of_chunks_in_one_segment_are_followed(bench: Bench) -> None:
    talk = bench.converse(slot=911, client_port=41_000)
    talk.client(POST).server(JSON_HEADER).server(b"1\r\na\r\n" * 600, b"1\r\na\r\n" * 600)
    assert (talk["in_flight"], talk["lost"]) == (1, 0)
    talk.server(b"1\r\na\r\n" * 600 + LAST_CHUNK)
    assert (talk["completed"], talk["in_flight"]) == (1, 0)


@pytest.mark.parametrize(
    "length",
    [b"content-length: +5", b"content-length: 2, 2", b"content-length: 0x2", b"content-length:", b"content-length: -1",
     b"content-length:\r\n 2"],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 20])
def test_a_length_that_is_no_plain_number_ends_the_request_as_lost(
    talk: Conversation, bench: Bench, length: bytes, place: int
) -> None:
    before = bench.drops["bad_length"]
    talk.client(POST).server(*cut(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\nok", [place]))
    assert (talk["lost"], talk["in_flight"], talk["connections_opaque"]) == (1, 0, 1)
    assert bench.drops["bad_length"] == before + 1


def test_chunks_count_over_a_length_and_the_contradiction_is_counted(talk: Conversation, bench: Bench) -> None:
    before = bench.drops["both_framings"]
    header = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"
    talk.client(POST).server(header + b"5\r\nhello\r\n")
    assert (talk["in_flight"], talk["first_data"]) == (1, 1)
    talk.server(LAST_CHUNK)
    assert (talk["completed"], talk["in_flight"], bench.drops["both_framings"]) == (1, 0, before + 1)


def test_a_folded_header_line_that_frames_nothing_is_harmless(talk: Conversation) -> None:
    talk.client(POST).server(b"HTTP/1.1 200 OK\r\nx-note: a\r\n b\r\ncontent-length: 2\r\n\r\nok")
    assert (talk["completed"], talk["in_flight"]) == (1, 0)


@pytest.mark.parametrize("extra", [b"content-length: 9\r\n", b"transfer-encoding: chunked\r\n", b" folded: yes\r\n"])
def test_a_request_of_deceptive_shape_is_one_request(talk: Conversation, extra: bytes) -> None:
    talk.client(b"POST /v1/completions HTTP/1.1\r\ncontent-length: 2\r\n" + extra + b"\r\n{}")
    talk.server(answer(b"{}", b"400 Bad Request"))
    assert (talk["started"], talk["completed"], talk["status_4xx"], talk["in_flight"]) == (1, 1, 1, 0)


def test_a_request_header_of_sixty_four_kilobytes_is_one_request(talk: Conversation) -> None:
    request = b"POST /v1/completions HTTP/1.1\r\nx: " + b"h" * 64_000 + b"\r\ncontent-length: 2\r\n\r\n{}"
    talk.client(*(request[at : at + 1400] for at in range(0, len(request), 1400))).server(answer(b"ok"))
    assert (talk["started"], talk["completed"], talk["in_flight"]) == (1, 1, 0)


def test_pipelined_requests_in_one_segment_are_all_counted(talk: Conversation) -> None:
    talk.at(0).client(SHORT * 3).at(5).server(answer(b"1")).at(9).server(answer(b"2")).at(20).server(answer(b"3"))
    assert (talk["started"], talk["completed"], talk["in_flight"], talk["waiting"]) == (3, 3, 0, 0)
    assert talk["pipelined"] == 2
    assert talk["duration_ns_sum"] == 5_000 + 9_000 + 20_000


def test_pipelined_requests_in_segments_of_their_own_before_any_answer(talk: Conversation) -> None:
    talk.at(0).client(SHORT).at(1).client(SHORT).at(2).client(SHORT)
    assert (talk["started"], talk["pipelined"]) == (1, 2)
    talk.at(10).server(answer(b"1") + answer(b"2")).at(12).server(answer(b"3"))
    assert (talk["started"], talk["completed"], talk["in_flight"]) == (3, 3, 0)


def test_responses_of_pipelined_requests_in_one_segment_are_told_apart(talk: Conversation) -> None:
    stream = STREAM_HEADER + event(b"1") + LAST_CHUNK
    talk.client(POST, SHORT * 2).server(stream + answer(b"ok") + stream)
    assert (talk["started"], talk["completed"], talk["first_data"], talk["in_flight"]) == (3, 3, 3, 0)


def test_a_body_segment_that_begins_like_a_method_is_no_request(talk: Conversation) -> None:
    talk.client(POST[:-200]).client(b"GET the facts right, please. " + b"p" * 171).server(answer(b"ok"))
    assert (talk["started"], talk["pipelined"], talk["completed"], talk["in_flight"]) == (1, 0, 1, 0)


def test_a_time_out_notice_on_an_idle_connection_answers_nothing(talk: Conversation) -> None:
    talk.client(POST).server(answer(b"ok")).server(answer(b"", b"408 Request Timeout"))
    assert (talk["started"], talk["completed"], talk["in_flight"]) == (1, 1, 0)


def test_upload_time_ends_with_the_last_byte_of_the_request(talk: Conversation) -> None:
    talk.at(0).client(POST[:100]).at(2_000).client(POST[100:]).at(50_000).server(answer(b"x"))
    assert (talk["upload_ns_sum"], talk["ttft_ns_sum"]) == (2_000_000, 50_000_000)
    assert sum(talk.histogram("upload_hist").values()) == 1


def test_bytes_sent_again_with_new_ones_behind_them_count_once(talk: Conversation) -> None:
    talk.client(POST[:50])
    talk.sent["ingress"] -= 20
    talk.client(POST[30:]).server(answer(b"ok"))
    assert (talk["started"], talk["rx_bytes"], talk["completed"]) == (1, len(POST), 1)


def test_several_interim_responses_come_before_the_answer(talk: Conversation) -> None:
    talk.client(POST).at(1).server(b"HTTP/1.1 100 Continue\r\n\r\n").at(2).server(b"HTTP/1.1 102 Processing\r\n\r\n")
    talk.at(3).server(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").at(9).server(answer(b"ok"))
    assert (talk["responded"], talk["completed"], talk["header_ns_sum"]) == (1, 1, 9_000)


EXCHANGES = [
    (POST, STREAM_HEADER + chunk(b": wait\n\n") + b"".join(event(b"%d" % n) for n in range(5)) + LAST_CHUNK),
    (SHORT, answer(b"x" * 90)),
    (POST, b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"y" * 40, extra=b"x-note: a\r\n b\r\n")),
    (SHORT, JSON_HEADER + b"5;a=b\r\nhello\r\n" + b"1\r\nx\r\n" * 3 + b"0\r\nt: u\r\n\r\n"),
    (GET_HEALTH, answer(b"ok")),
    (POST, answer(b"{}", b"503 Busy")),
    (SHORT, b"HTTP/1.1 204 No Content\r\n\r\n"),
]


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(EXCHANGES), st.randoms(use_true_random=False)), min_size=1, max_size=4))
def test_any_segmentation_of_any_conversation_counts_the_same(
    bench: Bench, exchanges: list[tuple[tuple[bytes, bytes], random.Random]]
) -> None:
    number = next(_numbers)
    whole = bench.converse(slot=912, client_port=42_000 + number)
    pieces = bench.converse(slot=913, client_port=46_000 + number)
    before = [{name: talk[name] for name in SCALARS} for talk in (whole, pieces)]
    for (request, response), rng in exchanges:
        whole.client(request).server(response)
        pieces.client(*cut(request, [rng.randrange(1, len(request)) for _ in range(rng.randrange(4))]))
        pieces.server(*cut(response, [rng.randrange(1, len(response)) for _ in range(rng.randrange(9))]))
    added = [
        {name: talk[name] - old[name] for name in SCALARS} for talk, old in zip((whole, pieces), before, strict=True)
    ]
    assert added[0] == added[1]
    assert added[0]["in_flight"] == added[0]["waiting"] == added[0]["lost"] == 0
    assert added[0]["started"] == sum(request != GET_HEALTH for (request, _), _ in exchanges)
