"""A real gRPC server and client: streams in flight, tokens, cancelled and cut off."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.kernel.live import Node, Served

GRPC_SERVER = Path(__file__).with_name("grpc_server.py")


@pytest.fixture
def served(node: Node) -> Served:
    return node.serve(program=GRPC_SERVER)


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    # not shared with another test's channel to the same place
    with grpc.insecure_channel(f"{served.host}:{served.port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


def test_unary_calls_are_requests(served: Served, channel: grpc.Channel) -> None:
    for _ in range(20):
        assert channel.unary_unary("/t.T/Plain")(b"hello", timeout=10) == b"ok"
    served.until(lambda: served["completed"] == 20)
    assert (served["started"], served["responded"], served["first_data"], served["in_flight"]) == (20, 20, 20, 0)
    assert (served["connections_http2"], served["connections_opened"], served["connections_opaque"]) == (1, 1, 0)


def test_every_message_of_a_streaming_call_is_a_chunk(served: Served, channel: grpc.Channel) -> None:
    assert len(list(channel.unary_stream("/t.T/Stream")(b"x" * 50, timeout=20))) == 50
    served.until(lambda: served["completed"] == 1)
    assert (served["chunks"], served["exact_chunks"], served["gaps"], served["in_flight"]) == (50, 50, 49, 0)


def test_streams_of_one_connection_are_in_flight_together(served: Served, channel: grpc.Channel) -> None:
    calls = [channel.unary_unary("/t.T/Silent").future(b"x", timeout=60) for _ in range(8)]
    served.until(lambda: served["in_flight"] == 8, within_s=10)
    assert (served["waiting"], served["connections_opened"]) == (8, 1)
    for call in calls[:5]:
        call.cancel()
    served.until(lambda: served["in_flight"] == 3, within_s=10)
    assert (served["client_aborted"], served["waiting"]) == (5, 3)
    for call in calls:
        call.cancel()
    served.until(lambda: served["in_flight"] == 0, within_s=10)
    assert served["connections_opaque"] == 0


def test_a_flood_of_settings_leaves_the_other_connections_alone(served: Served, channel: grpc.Channel) -> None:
    waiting = channel.unary_unary("/t.T/Silent").future(b"x", timeout=60)
    served.until(lambda: served["in_flight"] == 1)
    settings = b"\0\0\0\x04\0\0\0\0\0"
    flood = socket.create_connection((served.host, served.port), timeout=10)
    with flood, contextlib.suppress(OSError):  # a server may have enough of it
        flood.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings * 30_000)
    served.until(lambda: served["connections_closed"] == 1)
    assert (served["in_flight"], served["waiting"], served["lost"]) == (1, 1, 0)
    waiting.cancel()
    served.until(lambda: served["in_flight"] == 0)


def test_a_server_killed_under_streams_ends_them_all(served: Served, channel: grpc.Channel) -> None:
    calls = [channel.unary_unary("/t.T/Silent").future(b"x", timeout=60) for _ in range(4)]
    served.until(lambda: served["in_flight"] == 4, within_s=10)
    served.process.send_signal(signal.SIGKILL)
    served.until(lambda: served["in_flight"] == 0, within_s=10)
    assert served["server_aborted"] == 4
    served.until(lambda: served["connections_closed"] == 1, within_s=10)
    for call in calls:
        assert call.exception(timeout=20) is not None


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """A header block of literal fields, never indexed and not compressed (RFC 7541, 6.2.3)."""
    return b"".join(b"\x10%c%s%c%s" % (len(name), name, len(value), value) for name, value in fields)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def unary_call(stream: int, method: bytes = b"Plain") -> bytes:
    fields = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/t.T/" + method), (b":authority", b"x"))
    fields += ((b"te", b"trailers"), (b"content-type", b"application/grpc"))
    return frame(1, 4, stream, block(*fields)) + frame(0, 1, stream, b"\0\0\0\0\2hi")


HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


@contextlib.contextmanager
def early(served: Served, first: bytes) -> Iterator[socket.socket]:
    """A connection whose first bytes ride on the third ACK, so that it is the listener that sees them."""
    with socket.socket() as connection:
        connection.settimeout(20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        connection.connect((served.host, served.port))
        connection.sendall(first)
        yield connection


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_a_preface_that_rides_on_the_third_ack_is_followed(served: Served, calls: int) -> None:
    with early(served, HELLO + b"".join(unary_call(2 * n + 1) for n in range(calls))) as connection:
        served.until(lambda: served["completed"] == calls)
        connection.sendall(frame(4, 1, 0, b"") + unary_call(2 * calls + 1))
        served.until(lambda: served["completed"] == calls + 1)
    assert (served["started"], served["in_flight"], served["waiting"]) == (calls + 1, 0, 0)
    assert (served["connections_http2"], served["connections_opaque"], served["connections_opened"]) == (1, 0, 1)
    assert served["ttft_ns_sum"] > 0


@pytest.mark.parametrize("place", [3, 10, 23])
def test_a_preface_cut_on_the_third_ack_is_followed(served: Served, place: int) -> None:
    with early(served, HELLO[:place]) as connection:
        connection.sendall(HELLO[place:] + unary_call(1))
        served.until(lambda: served["completed"] == 1)
    assert (served["started"], served["connections_http2"], served["connections_opaque"]) == (1, 1, 0)


def test_streams_of_early_connections_are_kept_apart(served: Served) -> None:
    with early(served, HELLO + unary_call(1, b"Silent")), early(served, HELLO + unary_call(1, b"Silent")) as second:
        served.until(lambda: served["in_flight"] == 2)
        second.sendall(frame(3, 0, 1, bytes(4)))  # RST_STREAM
        served.until(lambda: served["in_flight"] == 1)
    served.until(lambda: served["in_flight"] == 0)
    assert (served["started"], served["client_aborted"]) == (2, 2)


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 40, frame(4, 0, 0, bytes(5)), unary_call(7), unary_call(1) + frame(3, 0, 1, bytes(4))],
    ids=["bytes", "bad settings", "odd id", "reset"],
)
def test_what_cannot_be_followed_on_the_third_ack_is_opaque(served: Served, garbage: bytes) -> None:
    with early(served, HELLO + garbage):
        served.until(lambda: served["connections_opaque"] == 1)
    assert (served["started"], served["in_flight"], served["waiting"]) == (0, 0, 0)
    served.until(lambda: served["connections_closed"] == 1)
