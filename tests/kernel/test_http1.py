"""The request tracker, packet by packet, on a clock the test sets: exact counts and exact nanoseconds."""

from __future__ import annotations

import random

import pytest

from agent.kernel import bpfsys, layout
from tests.kernel.conversation import RST, Bench, Conversation
from tests.kernel.messages import GET_HEALTH, LAST_CHUNK, POST, STREAM_HEADER, answer, chunk, event


def test_a_short_request_is_counted_once_with_its_times(talk: Conversation) -> None:
    talk.at(1_000).client(POST)
    assert (talk["started"], talk["in_flight"], talk["waiting"]) == (1, 1, 1)
    assert talk["busy_since_ns"] == 1_000_000
    talk.at(251_000).server(answer(b"x" * 100))
    assert (talk["completed"], talk["in_flight"], talk["waiting"]) == (1, 0, 0)
    assert talk["header_ns_sum"] == talk["ttft_ns_sum"] == talk["duration_ns_sum"] == 250_000_000
    assert talk["last_byte_ns"] == 251_000_000
    assert (talk["first_data"], talk["chunks"], talk["gaps"]) == (1, 1, 0)
    assert talk["rx_bytes"] == len(POST)
    assert talk.balanced()


def test_first_token_is_the_first_event_not_the_header(talk: Conversation) -> None:
    talk.at(0).client(POST).at(3_000).server(STREAM_HEADER)
    assert (talk["responded"], talk["header_ns_sum"], talk["first_data"], talk["waiting"]) == (1, 3_000_000, 0, 1)
    talk.at(900_000).server(event(b"{1}"))
    assert (talk["ttft_ns_sum"], talk["first_data"], talk["waiting"], talk["in_flight"]) == (900_000_000, 1, 0, 1)


def test_keep_alive_comments_are_neither_first_token_nor_chunks(talk: Conversation) -> None:
    talk.client(POST).at(3_000).server(STREAM_HEADER)
    talk.at(1_000_000).server(chunk(b": keep-alive\n\n")).at(2_000_000).server(chunk(b": keep-alive\n\n"))
    assert (talk["first_data"], talk["chunks"], talk["waiting"]) == (0, 0, 1)
    talk.at(2_500_000).server(event(b"{1}")).at(2_600_000).server(chunk(b": keep-alive\n\n"))
    talk.at(2_700_000).server(event(b"{2}")).server(LAST_CHUNK)
    assert (talk["ttft_ns_sum"], talk["chunks"], talk["gaps"]) == (2_500_000_000, 2, 1)
    assert talk["completed"] == 1


def test_header_comment_and_first_event_in_one_packet(talk: Conversation) -> None:
    talk.client(POST).at(7_000).server(STREAM_HEADER + chunk(b": hi\n\n") + event(b"{1}"))
    assert (talk["first_data"], talk["ttft_ns_sum"], talk["chunks"]) == (1, 7_000_000, 1)


def test_header_and_only_a_comment_in_one_packet_is_no_first_token(talk: Conversation) -> None:
    talk.client(POST).at(7_000).server(STREAM_HEADER + chunk(b": hi\n\n"))
    assert (talk["responded"], talk["first_data"]) == (1, 0)


def test_gaps_are_between_chunks_and_the_end_is_the_last_chunk(talk: Conversation) -> None:
    talk.client(POST).at(1_000).server(STREAM_HEADER)
    for n in range(5):
        talk.at(100_000 + 20_000 * n).server(event(b"token"))
    talk.at(181_000).server(chunk(b"data: [DONE]\n\n")).at(182_000).server(LAST_CHUNK)
    assert (talk["chunks"], talk["gaps"], talk["gap_ns_sum"]) == (6, 5, 81_000_000)
    assert talk["duration_ns_sum"] == 182_000_000
    assert (talk["completed"], talk["in_flight"]) == (1, 0)
    assert talk.histogram("gap_hist") == {1_000 - 1_000 % 64: 1, 20_000 - 20_000 % 2048: 4}


def test_an_event_stream_delimited_by_close_stays_in_flight_until_then(talk: Conversation) -> None:
    header = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    talk.client(POST).server(header).at(5_000).server(b"data: 1\n\n", b"data: 2\n\n")
    assert (talk["first_data"], talk["chunks"], talk["in_flight"]) == (1, 2, 1)


def test_continue_is_not_the_response(talk: Conversation) -> None:
    talk.client(b"POST /v1/completions HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 900\r\n\r\n")
    talk.at(500).server(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (talk["responded"], talk["waiting"]) == (0, 1)
    talk.at(1_500).client(b"b" * 900).at(9_000).server(answer(b"ok"))
    assert (talk["responded"], talk["header_ns_sum"], talk["upload_ns_sum"]) == (1, 9_000_000, 1_500_000)
    assert (talk["completed"], talk["started"]) == (1, 1)


def test_interim_and_final_response_in_one_packet(talk: Conversation) -> None:
    talk.client(POST).at(10).server(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + answer(b"ok"))
    assert (talk["responded"], talk["completed"], talk["first_data"]) == (1, 1, 1)


def test_an_upload_in_many_segments_counts_once(talk: Conversation) -> None:
    talk.at(0).client(POST[:80]).at(400).client(POST[80:200]).at(900).client(POST[200:])
    talk.at(1_900).server(answer(b"x"))
    assert (talk["started"], talk["upload_ns_sum"], talk["ttft_ns_sum"]) == (1, 900_000, 1_900_000)


def test_a_large_body_ends_when_its_length_has_passed(talk: Conversation) -> None:
    body = b"z" * 5000
    whole = answer(body)
    talk.client(POST).at(10).server(whole[:1000]).at(20).server(whole[1000:3000], whole[3000:5000])
    assert talk["in_flight"] == 1
    talk.at(30).server(whole[5000:])
    assert (talk["completed"], talk["duration_ns_sum"], talk["tx_bytes"]) == (1, 30_000, len(whole))


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_statuses_without_a_body_end_at_once(talk: Conversation, status: bytes) -> None:
    talk.client(POST).server(b"HTTP/1.1 " + status + b"\r\nx: y\r\n\r\n")
    assert (talk["completed"], talk["first_data"], talk["in_flight"], talk["waiting"]) == (1, 0, 0, 0)


def test_the_answer_to_head_has_no_body_whatever_its_length_says(talk: Conversation) -> None:
    talk.client(b"HEAD /v1/anything HTTP/1.1\r\nhost: engine\r\n\r\n").server(
        b"HTTP/1.1 200 OK\r\ncontent-length: 700\r\n\r\n"
    )
    assert (talk["completed"], talk["in_flight"]) == (1, 0)


def test_an_empty_answer_ends_without_a_first_token(talk: Conversation) -> None:
    talk.client(POST).server(answer(b""))
    assert (talk["completed"], talk["first_data"], talk["waiting"]) == (1, 0, 0)


def test_an_empty_chunked_answer_ends_without_a_first_token(talk: Conversation) -> None:
    talk.client(POST).server(STREAM_HEADER + LAST_CHUNK)
    assert (talk["completed"], talk["first_data"], talk["in_flight"]) == (1, 0, 0)


def test_keep_alive_connections_count_every_request(talk: Conversation) -> None:
    for n in range(10):
        talk.at(1_000 * n).client(POST).at(1_000 * n + 200).server(answer(b"ok"))
    assert (talk["started"], talk["completed"], talk["duration_ns_sum"]) == (10, 10, 2_000_000)


def test_health_checks_and_scrapes_never_enter_the_statistics(talk: Conversation) -> None:
    talk.client(GET_HEALTH).server(answer(b"ok"))
    talk.client(b"GET /metrics HTTP/1.1\r\nhost: engine\r\n\r\n").server(answer(b"page" * 500))
    assert talk["excluded"] == 2
    for name in ("started", "in_flight", "waiting", "completed", "responded", "first_data", "chunks", "last_byte_ns"):
        assert talk[name] == 0, name
    assert not talk.histogram("ttft_hist")
    assert not talk.histogram("duration_hist")


def test_status_classes_are_counted(talk: Conversation) -> None:
    for status in (b"200 OK", b"404 Not Found", b"429 Too Many", b"503 Busy"):
        talk.client(POST).server(answer(b"{}", status))
    assert (talk["status_4xx"], talk["status_5xx"], talk["completed"]) == (2, 1, 4)


def test_retransmissions_are_neither_requests_nor_chunks_nor_bytes(talk: Conversation) -> None:
    talk.client(POST).again("ingress", POST).server(STREAM_HEADER).again("egress", STREAM_HEADER)
    token = event(b"token")
    talk.at(100).server(token).at(200).again("egress", token).at(300).server(token).server(LAST_CHUNK)
    assert (talk["started"], talk["chunks"], talk["gaps"], talk["gap_ns_sum"]) == (1, 2, 1, 200_000)
    assert (talk["retransmits"], talk["rx_bytes"]) == (2, len(POST))
    assert talk["tx_bytes"] == len(STREAM_HEADER) + 2 * len(token) + len(LAST_CHUNK)


def test_a_body_segment_that_overtakes_the_start_of_its_request_does_not_hide_it(talk: Conversation) -> None:
    talk.client(POST).server(answer(b"ok"))  # makes the expected sequence number known
    talk.at(5_000).client(POST[100:], ahead=100).at(5_200).client(POST[:100])
    assert (talk["started"], talk["in_flight"]) == (2, 1)
    talk.at(6_000).server(answer(b"ok"))
    assert (talk["completed"], talk["in_flight"]) == (2, 0)


def test_a_pipelined_request_starts_when_it_came(talk: Conversation) -> None:
    talk.at(0).client(POST).at(10).server(STREAM_HEADER).at(20).server(event(b"1")).at(30).client(POST)
    talk.at(40).server(LAST_CHUNK).at(50).server(answer(b"ok"))
    assert (talk["pipelined"], talk["started"], talk["completed"]) == (1, 2, 2)
    assert talk["duration_ns_sum"] == 40_000 + 20_000


def test_bytes_that_are_no_http_make_the_connection_opaque(talk: Conversation, bench: Bench) -> None:
    before = bench.drops["not_http"]
    talk.client(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40).server(b"\x16\x03\x03" + b"\0" * 60)
    talk.client(POST).server(answer(b"ok"))
    assert (talk["connections_opaque"], talk["started"], talk["in_flight"]) == (1, 0, 0)
    assert bench.drops["not_http"] == before + 1


def test_an_answer_that_is_no_http_ends_the_request_as_lost(talk: Conversation) -> None:
    talk.client(POST).server(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n")
    assert (talk["started"], talk["lost"], talk["in_flight"], talk["waiting"]) == (1, 1, 0, 0)
    assert talk["connections_opaque"] == 1
    assert talk.balanced()


def test_an_upgrade_leaves_http(talk: Conversation) -> None:
    talk.client(b"GET /v1/realtime HTTP/1.1\r\nupgrade: websocket\r\n\r\n")
    talk.server(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n").server(b"\x81\x05hello")
    assert (talk["lost"], talk["in_flight"], talk["connections_opaque"]) == (1, 0, 1)


@pytest.mark.parametrize("size", [300, 1000, 4000, 7000])
def test_long_response_headers_are_read_to_their_end(talk: Conversation, size: int) -> None:
    extra = b"x-padding: " + b"h" * size + b"\r\n"
    whole = answer(b"b" * 50, extra=extra)
    talk.client(POST).server(*(whole[i : i + 3000] for i in range(0, len(whole), 3000)))  # a test run takes a page
    assert (talk["completed"], talk["first_data"], talk["in_flight"]) == (1, 1, 0)


def test_a_response_header_without_end_is_given_up_and_counted(talk: Conversation, bench: Bench) -> None:
    before = bench.drops["header_too_long"]
    talk.client(POST)
    for _ in range(20):
        talk.server(b"h" * 1000 if talk["responded"] else b"HTTP/1.1 200 OK\r\nx: " + b"h" * 1000)
    assert (talk["lost"], talk["in_flight"], talk["connections_opaque"]) == (1, 0, 1)
    assert bench.drops["header_too_long"] == before + 1


def test_a_header_that_only_resembles_content_length_is_not_taken_for_it(talk: Conversation) -> None:
    talk.client(POST).server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Original-Content-Length: 9999\r\n\r\nhello")
    assert (talk["completed"], talk["in_flight"]) == (1, 0)


def test_an_answer_with_two_lengths_ends_the_request_as_lost(talk: Conversation, bench: Bench) -> None:
    before = bench.drops["two_lengths"]
    talk.client(POST).server(answer(b"ok", extra=b"Content-Length: 2\r\n"))
    assert (talk["lost"], talk["in_flight"], talk["connections_opaque"]) == (1, 0, 1)
    assert bench.drops["two_lengths"] == before + 1


def test_ipv6_is_followed_like_ipv4(bench: Bench) -> None:
    talk = bench.converse(slot=900, version=6)
    talk.at(5).client(POST).at(10).server(answer(b"ok"))
    assert (talk["started"], talk["completed"], talk["duration_ns_sum"]) == (1, 1, 5_000)


def test_a_reset_is_counted(talk: Conversation) -> None:
    talk.client(POST).client(b"", flags=RST).server(b"", flags=RST)
    assert (talk["resets_in"], talk["resets_out"]) == (1, 1)


def test_every_split_of_the_request_line_is_the_same_request(bench: Bench) -> None:
    request = b"POST /v1/completions HTTP/1.1\r\nhost: engine\r\n\r\n"
    for cut in range(1, len(request)):
        talk = bench.converse(slot=901, client_port=30_000 + cut)
        started = talk["started"]
        talk.at(0).client(request[:cut]).at(100).client(request[cut:]).at(200).server(answer(b"ok"))
        assert talk["started"] == started + 1, cut
        assert talk.balanced()
    assert bench.converse(slot=901)["ttft_ns_sum"] == 200_000 * (len(request) - 1)


def test_every_split_of_the_excluded_request_line_stays_excluded(bench: Bench) -> None:
    for cut in range(1, len(GET_HEALTH)):
        talk = bench.converse(slot=902, client_port=31_000 + cut)
        talk.client(GET_HEALTH[:cut]).client(GET_HEALTH[cut:]).server(answer(b"ok"))
        assert talk["excluded"] == cut
        assert (talk["started"], talk["in_flight"]) == (0, 0)


def test_the_last_chunk_cut_at_every_byte_ends_the_response(bench: Bench) -> None:
    ending = event(b"last") + LAST_CHUNK
    for cut in range(1, len(ending)):
        talk = bench.converse(slot=903, client_port=32_000 + cut)
        talk.client(POST).server(STREAM_HEADER).server(event(b"first")).server(ending[:cut]).server(ending[cut:])
        assert talk["completed"] == cut
        assert talk["in_flight"] == 0


FRAMINGS = [
    b"Content-Length: 10\r\n",
    b"content-length:10\r\n",
    b"CONTENT-LENGTH:  10\r\nX: y\r\n",
    b"X-Content-Length: 3\r\nContent-Length: 10\r\n",
    b"Content-Length: 10\r\nContent-Length: 10\r\n",
    b"Content-Lengths: 3\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n",
    b"a:b\r\n" * 12 + b"Content-Length: 10\r\n",
    b"x: " + b"\n" * 4 + b"\r\nContent-Length: 10\r\n",
    b"x: " + b"v" * 190 + b"\r\nContent-Length: 10\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"transfer-encoding:chunked\r\nContent-Type:text/event-stream\r\n",
    b"Transfer-Encoding: chunked\r\nServer: x\r\n",
    b"Transfer-Encoding: identity\r\nContent-Length: 10\r\n",
    b"Content-Type: application/json\r\n",
    b"Content-Type: Text/Event-Stream; charset=utf-8\r\n",
]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_header_read_at_once_means_what_it_means_read_in_pieces(bench: Bench, framing: bytes) -> None:
    """Two readers share this work: one for a header whole in its segment, one for all others."""
    header = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n"
    fields = ("responded", "first_data", "chunks", "completed", "in_flight", "waiting", "lost", "connections_opaque")
    bodies = (b"0123456789", b"data: 1\n\n", chunk(b"data: 1\n\n"), LAST_CHUNK)
    for number, body in enumerate(bodies):
        seen = []
        for index, cut in enumerate((len(header), 13, len(header) - 3)):
            port = 36_000 + 100 * FRAMINGS.index(framing) + 10 * number + index
            talk = bench.converse(slot=907, client_port=port)
            before = {name: talk[name] for name in fields}
            talk.client(POST).server(*(piece for piece in (header[:cut], header[cut:]) if piece)).server(body)
            seen.append({name: talk[name] - before[name] for name in fields})
        assert seen[0] == seen[1] == seen[2], body


def test_any_segmentation_of_a_response_gives_the_same_result(bench: Bench) -> None:
    """Chunk counts depend on segments by design; everything else must not."""
    stream = STREAM_HEADER + chunk(b": wait\n\n") + b"".join(event(b"t%d" % n) for n in range(6)) + LAST_CHUNK
    rng = random.Random(20261124)
    for n in range(300):
        talk = bench.converse(slot=904, client_port=33_000 + n)
        cuts = sorted(rng.sample(range(1, len(stream)), rng.randrange(0, 12)))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        first_event = stream.index(b"\ndata:") + 6
        before = talk["ttft_ns_sum"]
        talk.at(0).client(POST)
        seen = 0
        for index, piece in enumerate(pieces):
            talk.at(1_000 * (index + 1)).server(piece)
            seen += len(piece)
            assert talk["first_data"] == n + (seen >= first_event), cuts
        assert talk["ttft_ns_sum"] - before == 1_000_000 * (1 + sum(cut < first_event for cut in cuts)), cuts
        assert (talk["completed"], talk["responded"], talk["in_flight"]) == (n + 1, n + 1, 0), cuts


def test_random_bytes_never_unbalance_the_counts(bench: Bench) -> None:
    rng = random.Random(7)
    parts = [POST, GET_HEALTH, STREAM_HEADER, LAST_CHUNK, event(b"x"), answer(b"ok"), b"\r\n", b"HTTP/1.1 ", b"\0" * 30]
    for n in range(200):
        talk = bench.converse(slot=905, client_port=34_000 + n)
        for _ in range(rng.randrange(1, 12)):
            payload = rng.choice([*parts, rng.randbytes(rng.randrange(1, 80))])
            (talk.client if rng.random() < 0.4 else talk.server)(payload)
            assert talk.balanced()


def test_buckets_are_the_same_in_kernel_and_python(bench: Bench) -> None:
    talk = bench.converse(slot=906)
    for us in (0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 1000, 65_535, 65_536, 999_999, 10_000_000, 2**32 - 1, 2**33):
        before = bench.slots[906]["duration_hist"].copy()
        talk.at(0).client(POST).at(us).server(answer(b"ok"))
        changed = (bench.slots[906]["duration_hist"] - before).nonzero()[0]
        assert [layout.bucket_index(us)] == list(changed)


def test_layout_is_what_the_compiler_made_of_it(bench: Bench) -> None:
    for name, dtype in (("slots", layout.SLOT), ("counters", layout.COUNTERS), ("control", layout.CONTROL)):
        leaf = bench.programs.module[name.encode()].Leaf
        assert [(field, getattr(leaf, field).offset) for field, _ in leaf._fields_] == [
            (field, dtype.fields[field][1]) for field in dtype.names
        ]
        assert bpf_value_bytes(bench, name) == dtype.itemsize


def bpf_value_bytes(bench: Bench, name: str) -> int:
    return bpfsys.map_info(bench.programs.map_fd(name)).value_bytes
