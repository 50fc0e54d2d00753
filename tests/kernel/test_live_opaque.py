"""TLS to a pod: what can be told without reading it; and connection attempts that nobody answers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
from pathlib import Path

import pytest

from tests.kernel.live import Node, Served, free_port

TLS_SERVER = Path(__file__).with_name("tls_server.py")
DEAF = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_turns_over_tls_are_about_as_long_as_they_were(node: Node, tmp_path: Path, version: ssl.TLSVersion) -> None:
    port = free_port("127.0.0.1")
    slot = node.own(port)
    served = Served(node, slot, "127.0.0.1", port, node.start("127.0.0.1", port, TLS_SERVER, str(tmp_path)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    with context.wrap_socket(served.connect()) as connection:
        for _ in range(4):
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\n" + b"x: y\r\n" * 40)
            received = b""
            while received.count(b"token") < 3:
                received += connection.recv(65536)
    assert (served["connections_opaque"], served["started"], served["first_data"]) == (1, 0, 0)
    assert served["turns"] == 4
    assert served["turn_ns_sum"] >= 4 * 100_000_000
    assert served.histogram("turn_gap_hist").sum() == 8
    assert served["turn_gap_ns_sum"] >= 8 * 20_000_000


def test_connection_attempts_beyond_the_queue_are_not_answered(node: Node) -> None:
    port = free_port("127.0.0.1")
    slot = node.own(port)
    served = Served(node, slot, "127.0.0.1", port, node.run([sys.executable, "-c", DEAF, str(port)]))
    clients = [socket.socket() for _ in range(8)]
    for client in clients:
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect(("127.0.0.1", port))
    try:
        served.until(lambda: served["syns"] >= 8)
        # a queue of 1 holds two: the kernel compares before it counts
        assert served["syns"] - served["syn_acks"] >= 6
        assert served["connections_opened"] == 2
    finally:
        for client in clients:
            client.close()
