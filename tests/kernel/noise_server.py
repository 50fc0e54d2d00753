"""A server that says anything at all, and one kind of request properly; run as a process.

    python noise_server.py HOST PORT SEED     prints "ready" when it listens

A connection that begins with "POST /steady" gets streams of ten events, one for each request. Any other gets pieces of
answers, frames and plain rubbish in any order, and is closed or reset at any time.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import sys
import threading

STEADY = b"POST /steady"
EVENT = b'e\r\ndata: {"t":1}\n\r\n'
HEADER = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PARTS = (
    HEADER,
    EVENT,
    b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"ffffffffff\r\n",
    b"\0\0\0\4\0\0\0\0\0",
    b"\0\0\1\1\5\0\0\0\1x",
    b"\0\0\4\7\0\0\0\0\0abcd",
    b"\x16\x03\x03\0\x30" + b"s" * 48,
)


def steady(connection: socket.socket, first: bytes) -> None:
    received = first
    while received:
        if received.endswith(b"\r\n\r\n"):
            connection.sendall(HEADER)
            for _ in range(10):
                connection.sendall(EVENT)
            connection.sendall(b"0\r\n\r\n")
            received = b""
        more = connection.recv(4096)
        if not more:
            return
        received += more


def noise(connection: socket.socket, rng: random.Random) -> None:
    connection.settimeout(0.02)
    for _ in range(rng.randrange(12)):
        if rng.random() < 0.4:
            with contextlib.suppress(TimeoutError):
                connection.recv(4096)
        part = rng.choice(PARTS) if rng.random() < 0.8 else rng.randbytes(rng.randrange(1, 200))
        place = rng.randrange(len(part) + 1)
        connection.sendall(part[:place])
        if rng.random() < 0.8:
            connection.sendall(part[place:])
    if rng.random() < 0.5:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def serve(connection: socket.socket, rng: random.Random) -> None:
    with connection, contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(0.05)
        first = b""
        with contextlib.suppress(TimeoutError):
            first = connection.recv(4096)
        if first.startswith(STEADY):
            connection.settimeout(30)
            steady(connection, first)
        else:
            noise(connection, rng)


def main() -> None:
    rng = random.Random(sys.argv[3])
    with socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=512) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, random.Random(rng.random())), daemon=True).start()


main()
