"""HTTP/2 in clear text, frame by frame, on a clock the test sets."""

from __future__ import annotations

import itertools
import random
import struct

import pytest

from tests.kernel.conversation import RST, Bench, Conversation
from tests.kernel.messages import POST, answer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END = 1
SCALARS = ("started", "responded", "first_data", "completed", "client_aborted", "server_aborted", "in_flight",
           "waiting", "chunks", "exact_chunks", "gaps", "lost", "goaways")  # fmt: skip


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


HELLO = PREFACE + frame(SETTINGS, 0, bytes(6)) + frame(WINDOW_UPDATE, 0, bytes(4))
WELCOME = frame(SETTINGS, 0, bytes(12)) + frame(SETTINGS, 0, flags=1)
CALL = frame(HEADERS, 1, b"h" * 60, 4) + frame(DATA, 1, b"m" * 30, END)
BEGIN = frame(HEADERS, 1, b"H" * 20, 4)
TRAILERS = frame(HEADERS, 1, b"t" * 10, 4 | END)


def call(stream: int) -> bytes:
    return frame(HEADERS, stream, b"h" * 60, 4) + frame(DATA, stream, b"m" * 30, END)


def message(stream: int = 1, n: int = 40) -> bytes:
    return frame(DATA, stream, b"r" * n)


@pytest.fixture
def spoken(talk: Conversation) -> Conversation:
    return talk.client(HELLO).server(WELCOME)


def test_a_streaming_call_has_the_times_of_a_request(spoken: Conversation) -> None:
    spoken.at(0).client(CALL)
    assert (spoken["connections_http2"], spoken["started"], spoken["in_flight"], spoken["waiting"]) == (1, 1, 1, 1)
    spoken.at(1_000).server(BEGIN).at(50_000).server(message()).at(70_000).server(message()).at(90_000).server(TRAILERS)
    assert (spoken["header_ns_sum"], spoken["ttft_ns_sum"], spoken["duration_ns_sum"]) == (
        1_000_000,
        50_000_000,
        90_000_000,
    )
    assert (spoken["chunks"], spoken["gaps"], spoken["gap_ns_sum"]) == (2, 1, 20_000_000)
    assert (spoken["completed"], spoken["in_flight"], spoken["waiting"]) == (1, 0, 0)
    assert spoken.balanced()


def test_streams_in_flight_are_counted_one_by_one(spoken: Conversation) -> None:
    spoken.client(*(call(n) for n in range(1, 33, 2)))
    assert (spoken["in_flight"], spoken["waiting"]) == (16, 16)
    for n in range(1, 33, 2):
        spoken.server(frame(HEADERS, n, b"H", 4) + message(n) + frame(DATA, n, b"", END))
    assert (spoken["completed"], spoken["in_flight"], spoken["waiting"], spoken["first_data"]) == (16, 0, 0, 16)


def test_an_answer_of_trailers_alone_has_no_first_data(spoken: Conversation) -> None:
    spoken.client(CALL).server(frame(HEADERS, 1, b"t", 4 | END))
    assert (spoken["completed"], spoken["first_data"], spoken["waiting"], spoken["in_flight"]) == (1, 0, 0, 0)


@pytest.mark.parametrize(("side", "outcome"), [("client", "client_aborted"), ("server", "server_aborted")])
def test_a_reset_ends_one_stream(spoken: Conversation, side: str, outcome: str) -> None:
    spoken.client(call(1), call(3)).server(BEGIN, message())
    (spoken.client if side == "client" else spoken.server)(frame(RST_STREAM, 1, bytes(4)))
    assert (spoken[outcome], spoken["in_flight"], spoken["waiting"]) == (1, 1, 1)
    (spoken.client if side == "client" else spoken.server)(frame(RST_STREAM, 1, bytes(4)))
    assert (spoken[outcome], spoken["in_flight"]) == (1, 1)
    assert spoken.balanced()


def test_goaway_is_counted_and_streams_go_on(spoken: Conversation) -> None:
    spoken.client(CALL).server(frame(GOAWAY, 0, bytes(8))).server(BEGIN + message() + TRAILERS)
    assert (spoken["goaways"], spoken["completed"], spoken["in_flight"]) == (1, 1, 0)


def test_a_server_may_speak_before_the_preface(talk: Conversation) -> None:
    talk.server(WELCOME).client(HELLO).client(CALL).server(BEGIN + message() + TRAILERS)
    assert (talk["connections_http2"], talk["completed"], talk["in_flight"], talk["connections_opaque"]) == (1, 1, 0, 0)


def test_the_preface_cut_at_every_byte_is_the_preface(bench: Bench) -> None:
    for place in range(1, len(HELLO)):
        talk = bench.converse(slot=920, client_port=50_000 + place)
        talk.client(HELLO[:place]).client(HELLO[place:]).server(WELCOME).client(CALL).server(
            BEGIN + message() + TRAILERS
        )
        assert (talk["connections_http2"], talk["completed"], talk["in_flight"]) == (place, place, 0)
        assert talk["connections_opaque"] == 0


def test_a_server_may_speak_between_two_parts_of_the_preface(bench: Bench) -> None:
    for place in range(1, 24):
        talk = bench.converse(slot=925, client_port=50_500 + place)
        talk.client(HELLO[:place]).server(WELCOME).client(HELLO[place:]).client(CALL).server(
            BEGIN + message() + TRAILERS
        )
        assert (talk["connections_http2"], talk["completed"], talk["in_flight"]) == (place, place, 0)
        assert (talk["started"], talk["connections_opaque"]) == (place, 0)


def test_any_segmentation_of_frames_counts_the_same(bench: Bench) -> None:
    requests = b"".join(call(n) for n in (1, 3, 5)) + frame(PING, 0, bytes(8)) + frame(RST_STREAM, 5, bytes(4))
    answers = [frame(HEADERS, n, b"H" * 30, 4) + message(n) + message(n, 500) for n in (1, 3)]
    response = answers[0] + frame(WINDOW_UPDATE, 1, bytes(4)) + answers[1] + TRAILERS + frame(DATA, 3, b"", END)
    whole = bench.converse(slot=921, client_port=51_000)
    whole.client(HELLO, requests).server(WELCOME, response)
    expected = {name: whole[name] for name in SCALARS}
    assert (expected["completed"], expected["client_aborted"], expected["in_flight"]) == (2, 1, 0)
    rng = random.Random(20261129)
    for n in range(60):
        talk = bench.converse(slot=922, client_port=51_001 + n)
        before = {name: talk[name] for name in SCALARS}
        for send, data in ((talk.client, HELLO + requests), (talk.server, WELCOME + response)):
            edges = sorted({0, len(data), *(rng.randrange(1, len(data)) for _ in range(rng.randrange(12)))})
            send(*(data[a:b] for a, b in itertools.pairwise(edges)))
        assert {name: talk[name] - before[name] for name in SCALARS} == expected, n


@pytest.mark.parametrize(
    "garbage",
    [b"g" * 40, bytes(40), frame(HEADERS, 1, b"h" * 10, 5), frame(PING, 0, bytes(7)), frame(SETTINGS, 0, bytes(5))],
)
def test_a_preface_with_garbage_behind_it_is_opaque(talk: Conversation, bench: Bench, garbage: bytes) -> None:
    before = bench.drops["http2_bad_frame"]
    talk.client(PREFACE + garbage)
    assert (talk["connections_opaque"], talk["started"], talk["in_flight"]) == (1, 0, 0)
    assert bench.drops["http2_bad_frame"] == before + 1


@pytest.mark.parametrize("side", ["client", "server"])
def test_garbage_later_ends_all_streams_as_lost(spoken: Conversation, bench: Bench, side: str) -> None:
    spoken.client(call(1), call(3)).server(BEGIN + message())
    (spoken.client if side == "client" else spoken.server)(b"\xff" * 60)
    assert (spoken["lost"], spoken["in_flight"], spoken["waiting"], spoken["connections_opaque"]) == (2, 0, 0, 1)
    assert spoken.balanced()


def test_an_answer_to_a_stream_that_nobody_saw_opened_makes_the_connection_opaque(
    spoken: Conversation, bench: Bench
) -> None:
    before = bench.drops["http2_bad_frame"]
    spoken.client(call(1)).server(BEGIN, message())
    spoken.server(frame(HEADERS, 3, b"H", 4) + message(3))
    assert (spoken["started"], spoken["lost"], spoken["in_flight"], spoken["connections_opaque"]) == (1, 1, 0, 1)
    assert (spoken["chunks"], bench.drops["http2_bad_frame"]) == (1, before + 1)


def test_a_preface_that_is_not_quite_one_is_no_http(talk: Conversation, bench: Bench) -> None:
    before = bench.drops["not_http"]
    talk.client(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
    assert (talk["connections_opaque"], talk["connections_http2"], bench.drops["not_http"]) == (1, 0, before + 1)


def test_a_flood_of_settings_disturbs_nothing(spoken: Conversation, bench: Bench) -> None:
    before = bench.drops["http2_flooded"]
    spoken.client(call(1))
    for _ in range(20):
        spoken.client(frame(SETTINGS, 0) * 60)  # many, but followed
    assert (spoken["in_flight"], spoken["connections_opaque"]) == (1, 0)
    spoken.client(frame(SETTINGS, 0) * 400)
    assert (spoken["in_flight"], spoken["connections_opaque"], bench.drops["http2_flooded"]) == (1, 0, before)


def test_random_frames_never_unbalance_the_counts(bench: Bench) -> None:
    rng = random.Random(11)
    kinds = (DATA, HEADERS, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION)
    sizes = {RST_STREAM: 4, SETTINGS: 6, PING: 8, GOAWAY: 8, WINDOW_UPDATE: 4}
    for n in range(150):
        talk = bench.converse(slot=923, client_port=52_000 + n)
        talk.client(HELLO).server(WELCOME)
        for _ in range(rng.randrange(1, 20)):
            kind = rng.choice(kinds)
            stream = 0 if kind in (SETTINGS, PING, GOAWAY) else rng.randrange(1, 12)
            payload = bytes(sizes.get(kind, rng.randrange(0, 60)))
            data = frame(kind, stream, payload, rng.choice((0, 1, 4, 5)))
            (talk.client if rng.random() < 0.5 else talk.server)(data if rng.random() < 0.95 else rng.randbytes(30))
            assert talk.balanced()


def test_http1_on_the_same_port_is_not_disturbed(spoken: Conversation, bench: Bench) -> None:
    other = bench.converse(spoken.slot, client_port=53_000)
    spoken.client(CALL)
    other.client(POST).server(answer(b"ok"))
    assert (spoken["started"], spoken["completed"], spoken["in_flight"]) == (2, 1, 1)


def test_a_reset_of_the_connection_is_seen(spoken: Conversation) -> None:
    spoken.client(CALL).client(b"", flags=RST)
    assert spoken["resets_in"] == 1


def test_shed_http2_makes_its_connections_opaque_and_is_counted(bench: Bench) -> None:
    talk = bench.converse(slot=924, client_port=54_000)
    before = bench.drops["http2_shed"]
    bench.shed(1)
    try:
        talk.client(HELLO)
        assert (talk["connections_opaque"], bench.drops["http2_shed"]) == (1, before + 1)
    finally:
        bench.shed(0)
