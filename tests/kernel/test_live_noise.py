"""Rubbish of both sides on real connections, closed at any time: nothing stays behind, and who speaks well is exact."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conversation import Bench
from tests.kernel.live import Node, Served, free_port, running_node
from tests.kernel.test_live_http2 import HELLO, unary_call

NOISE_SERVER = Path(__file__).with_name("noise_server.py")
CONNECTIONS = 250
STEADY = b"POST /steady HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
PARTS = (
    b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
    b"POST /v1/x HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    b"GET /y HTTP/1.1\r\nx: y\r\n\r\n",
    b"GET /v1/x HTTP/1.1\r\nx: " + b"h" * 4000 + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",
    b"HEAD /v1/x HTTP/1.1\r\n\r\n",
    b"GET /v1/x HTTP/1.1\r\nupgrade: h2c\r\n\r\n",
    HELLO,
    HELLO + unary_call(1),
    HELLO[:14],
    unary_call(3) + unary_call(5),
    b"\0\0\0\4\0\0\0\0\0" * 200,
    b"\0\0\4\3\0\0\0\0\1abcd",
    b"\x16\x03\x01\x02\0" + b"h" * 512,
    b"\r\n\r\n",
)


@pytest.fixture(scope="module")
def node(bench: Bench) -> Iterator[Node]:
    with running_node("noise") as node:
        yield node


def shout(served: Served, rng: random.Random) -> None:
    """One connection of rubbish, its first bytes now and then on the third ACK."""
    with contextlib.suppress(OSError), socket.socket() as connection:
        connection.settimeout(20)
        if rng.random() < 0.3:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        connection.connect((served.host, served.port))
        connection.settimeout(0.02)
        for _ in range(rng.randrange(6)):
            part = rng.choice(PARTS) if rng.random() < 0.8 else rng.randbytes(rng.randrange(1, 300))
            connection.sendall(part[: rng.randrange(len(part) + 1)] if rng.random() < 0.3 else part)
            if rng.random() < 0.5:
                connection.recv(4096)
            if rng.random() < 0.1:
                connection.shutdown(socket.SHUT_WR)
        if rng.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("seed", [1, 2])
def test_rubbish_leaves_nothing_behind_and_disturbs_nobody(node: Node, seed: int) -> None:
    port, well_port = free_port("127.0.0.1"), free_port("127.0.0.1")
    servers = [
        Served(node, node.own(one), "127.0.0.1", one, node.start("127.0.0.1", one, NOISE_SERVER, str(seed)))
        for one in (port, well_port)
    ]
    noisy, well = servers
    over = threading.Event()

    def speak_well(server: Served, times: list[int]) -> None:
        with socket.create_connection((server.host, server.port), timeout=30) as connection:
            while not over.is_set():
                connection.sendall(STEADY)
                answer = b""
                while not answer.endswith(b"0\r\n\r\n"):
                    answer += connection.recv(4096)
                times.append(answer.count(b"data:"))

    beside: tuple[list[int], list[int]] = ([], [])
    threads = [threading.Thread(target=speak_well, args=pair) for pair in zip(servers, beside, strict=True)]
    for thread in threads:
        thread.start()
    rng = random.Random(seed)
    for _ in range(CONNECTIONS):
        shout(noisy, rng)
    over.set()
    for thread in threads:
        thread.join()
    noisy.until(lambda: noisy["connections_closed"] == noisy["connections_opened"], within_s=30)
    # a client that resets before its delayed third ACK was never a connection to the server
    assert CONNECTIONS / 2 < noisy["connections_opened"] <= CONNECTIONS + 1
    assert (noisy["in_flight"], noisy["waiting"]) == (0, 0)
    ends = ("completed", "client_aborted", "server_aborted", "lost")
    assert noisy["started"] == sum(noisy[end] for end in ends)
    assert noisy["completed"] >= len(beside[0])
    well.until(lambda: well["connections_closed"] == 1)
    assert (well["started"], well["completed"], well["in_flight"], well["lost"]) == (len(beside[1]),) * 2 + (0, 0)
    assert well["exact_chunks"] in (0, 10 * len(beside[1]))
    assert sum(beside[1]) == 10 * len(beside[1])
