"""A real gRPC server and client: streams in flight, tokens, cancelled and cut off."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.kernel.conversation import Bench
from tests.kernel.live import Node, Served, running_node

GRPC_SERVER = Path(__file__).with_name("grpc_server.py")


@pytest.fixture(scope="module")
def node(bench: Bench) -> Iterator[Node]:
    with running_node("http2") as node:
        yield node


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
