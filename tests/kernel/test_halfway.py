"""Connections older than the programs, and connections whose bytes mean nothing to them."""

from __future__ import annotations

import pytest

from tests.kernel.conversation import FIN_ACK, RST, Bench, Conversation
from tests.kernel.messages import LAST_CHUNK, POST, STREAM_HEADER, answer, event

HISTOGRAMS = ("header_hist", "ttft_hist", "duration_hist", "upload_hist")
HELLO = b"\x16\x03\x01\x02\x00" + b"h" * 507
RECORD = b"\x17\x03\x03\x01\x00"


def test_an_older_connection_is_adopted_and_its_next_request_is_measured(talk: Conversation) -> None:
    talk.forget().at(10).client(POST).at(30).server(answer(b"ok"))
    assert (talk["connections_adopted"], talk["connections_opened"]) == (1, 0)
    assert (talk["started"], talk["completed"], talk["adopted"], talk["duration_ns_sum"]) == (1, 1, 0, 20_000)


def test_a_stream_met_halfway_is_in_flight_but_in_no_histogram(talk: Conversation) -> None:
    talk.forget().at(100).server(event(b"token")).at(120).server(event(b"token"))
    assert (talk["in_flight"], talk["waiting"], talk["adopted"], talk["started"]) == (1, 0, 1, 1)
    talk.at(140).server(LAST_CHUNK)
    assert (talk["in_flight"], talk["completed"]) == (0, 1)
    assert not any(talk.histogram(name) for name in HISTOGRAMS)
    assert (talk["first_data"], talk["gap_ns_sum"]) == (0, 20_000)
    talk.at(200).client(POST).at(210).server(answer(b"ok"))
    assert (talk["completed"], talk["duration_ns_sum"]) == (2, 10_000)
    assert talk.balanced()


@pytest.mark.parametrize("place", range(1, 5))
def test_the_end_of_a_stream_met_halfway_may_be_cut(talk: Conversation, place: int) -> None:
    talk.forget().server(event(b"token")).server(LAST_CHUNK[:place]).server(LAST_CHUNK[place:])
    assert (talk["completed"], talk["in_flight"]) == (1, 0)


def test_a_request_that_waited_when_it_was_met_is_in_no_histogram(talk: Conversation) -> None:
    talk.forget().at(10).server(STREAM_HEADER).at(20).server(event(b"1"))
    assert (talk["adopted"], talk["in_flight"], talk["waiting"], talk["responded"]) == (1, 1, 0, 1)
    talk.at(30).server(LAST_CHUNK)
    assert (talk["completed"], talk["in_flight"]) == (1, 0)
    assert not any(talk.histogram(name) for name in HISTOGRAMS)


def test_an_answer_that_nobody_asked_for_is_in_no_histogram(talk: Conversation) -> None:
    """As of a server that is full and says so to whoever connects."""
    talk.at(5_000_000).server(answer(b"busy", b"503 Service Unavailable"))
    assert (talk["started"], talk["completed"], talk["status_5xx"], talk["in_flight"]) == (1, 1, 1, 0)
    assert not any(talk.histogram(name) for name in HISTOGRAMS)


def test_an_upload_met_halfway_is_known_by_its_answer(talk: Conversation) -> None:
    talk.forget().client(b"p" * 300).server(answer(b"ok"))
    assert (talk["adopted"], talk["completed"], talk["in_flight"], talk["connections_opaque"]) == (1, 1, 0, 0)


def test_a_body_met_halfway_without_an_end_in_sight_ends_with_the_next_request(talk: Conversation) -> None:
    talk.forget().server(b"x" * 500).server(b"x" * 500)
    assert talk["in_flight"] == 1
    talk.client(POST).server(answer(b"ok"))
    assert (talk["started"], talk["completed"], talk["in_flight"]) == (2, 2, 0)


@pytest.mark.parametrize(("first", "cause"), [("client", RST), ("server", RST), ("server", FIN_ACK)])
def test_packets_alone_tell_that_an_older_connection_ended(talk: Conversation, first: str, cause: int) -> None:
    talk.forget().server(event(b"token"))
    (talk.client if first == "client" else talk.server)(b"", flags=cause)
    assert (talk["connections_adopted"], talk["connections_closed"], talk["in_flight"]) == (1, 1, 0)
    assert talk["client_aborted" if first == "client" else "server_aborted"] == 1
    assert talk.balanced()


@pytest.mark.parametrize("first", [RECORD + b"e" * 256, b"\x00\x00\x04\x00\x00\x00\x00\x00\x01abcd"])
@pytest.mark.parametrize("direction", ["client", "server"])
def test_an_older_connection_that_is_no_http1_is_opaque(
    talk: Conversation, bench: Bench, first: bytes, direction: str
) -> None:
    before = bench.drops["met_halfway"]
    (talk.forget().client if direction == "client" else talk.forget().server)(first)
    assert (talk["connections_opaque"], talk["in_flight"], talk["started"]) == (1, 0, 0)
    assert bench.drops["met_halfway"] == before + 1


def test_turns_of_tls_give_approximate_times_apart_from_the_exact_ones(talk: Conversation) -> None:
    talk.at(0).client(HELLO).at(1_000).server(b"\x16\x03\x03" + b"s" * 1400)
    before = (talk["turns"], talk["turn_ns_sum"])
    talk.at(2_000).client(b"\x14\x03\x03\x00\x01\x01\x17\x03\x03" + b"f" * 65).at(2_100).server(RECORD + b"t" * 250)
    assert (talk["turns"], talk["turn_ns_sum"]) == before  # the end of a handshake is no question
    talk.at(10_000).client(RECORD + b"q" * 300).at(10_500).client(RECORD + b"q" * 100)
    talk.at(250_000).server(RECORD + b"a" * 200).at(270_000).server(RECORD + b"a" * 200)
    assert (talk["turns"] - before[0], talk["turn_ns_sum"] - before[1]) == (1, 240_000_000)
    assert talk["turn_gap_ns_sum"] == 20_000_000
    assert sum(talk.histogram("turn_gap_hist").values()) == 1
    assert (talk["started"], talk["first_data"], talk["chunks"]) == (0, 0, 0)


def test_session_tickets_behind_the_first_question_are_no_answer(talk: Conversation) -> None:
    talk.client(HELLO).server(b"\x16\x03\x03" + b"s" * 1400).client(b"\x14\x03\x03" + b"f" * 77)
    talk.at(1_000).client(RECORD + b"q" * 300).at(1_500).server(RECORD + b"t" * 505)
    talk.at(51_000).server(RECORD + b"a" * 200)
    assert (talk["turns"], talk["turn_ns_sum"], talk["turn_gap_ns_sum"]) == (1, 50_000_000, 0)


def test_before_tls_1_3_there_are_no_tickets_to_wait_for(talk: Conversation) -> None:
    talk.client(HELLO).server(b"\x16\x03\x03" + b"s" * 1400).client(b"\x16\x03\x03" + b"k" * 120)
    talk.server(b"\x16\x03\x03" + b"t" * 250).at(1_000).client(RECORD + b"q" * 300).at(51_000).server(
        RECORD + b"a" * 200
    )
    assert (talk["turns"], talk["turn_ns_sum"]) == (1, 50_000_000)


def test_a_long_handshake_is_no_question(talk: Conversation) -> None:
    """A client with a certificate sends a second flight of a thousand bytes and more."""
    talk.client(HELLO).server(b"\x16\x03\x03" + b"s" * 1400).client(b"\x16\x03\x03" + b"c" * 1300)
    talk.server(b"\x14\x03\x03" + b"f" * 250)
    assert (talk["turns"], talk["turn_gap_ns_sum"]) == (0, 0)


def test_small_segments_of_an_opaque_connection_are_no_answer(talk: Conversation) -> None:
    talk.client(HELLO).server(b"\x15\x03\x03\x00\x02\x02\x28")
    assert (talk["turns"], talk["turn_gap_ns_sum"]) == (0, 0)
