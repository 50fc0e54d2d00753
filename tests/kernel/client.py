"""A client to run inside a cgroup: makes the connections that each line of its input asks for, and says how they went.

A line is a JSON object: family (4 or 6), address, port, times, threads, udp, hold (keep the connections), until_s
(go on until then), timed (say when each began and ended). {"close": true} says what those that
are held say now, and closes them.
{"again": [[address, port], ...]} connects one socket to each in turn.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections import Counter

RESET = struct.pack("ii", 1, 0)  # closing resets: no port waits for a minute afterwards


def connect_once(asked, held):
    """(who answered or what went wrong, whom the socket says it talks to)"""
    family = socket.AF_INET6 if asked["family"] == 6 else socket.AF_INET
    kind = socket.SOCK_DGRAM if asked.get("udp") else socket.SOCK_STREAM
    connection = socket.socket(family, kind)
    try:
        connection.settimeout(10)
        if kind == socket.SOCK_STREAM:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.connect((asked["address"], asked["port"]))
        if kind == socket.SOCK_DGRAM:
            connection.send(b"?")
        answer = connection.recv(64).decode()
        peer = connection.getpeername()[:2]
        return answer, peer
    except OSError as error:
        return f"error {type(error).__name__}", None
    finally:
        if asked.get("hold"):
            held.append(connection)
        else:
            connection.close()


def work(asked, held, results, lock):
    times = asked.get("times", 1)
    made = 0
    while made < times or time.monotonic() < asked.get("until_s", 0):
        began_s = time.monotonic()
        answer, peer = connect_once(asked, held)
        with lock:
            results.append((began_s, time.monotonic(), answer, peer))
        made += 1


def answer(asked, held):
    results, lock = [], threading.Lock()
    workers = [threading.Thread(target=work, args=(asked, held, results, lock)) for _ in range(asked.get("threads", 1))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    said = {
        "answers": Counter(answer for _, _, answer, _ in results),
        "peers": Counter(f"{peer[0]}|{peer[1]}" for _, _, _, peer in results if peer),
    }
    if asked.get("timed"):
        said["timed"] = [(began_s, ended_s, answer) for began_s, ended_s, answer, _ in results]
    return said


def read_held(held):
    """What the kept connections say now: data, the peer's end, or an error."""
    said = []
    for connection in held:
        try:
            said.append("data" if connection.recv(64) else "end")
        except OSError as error:
            said.append(type(error).__name__)
        connection.close()
    held.clear()
    return {"held": said}


def again(asked):
    """One socket that connects twice; whom it says it talks to each time."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    peers = []
    for address, port in asked["again"]:
        connection.settimeout(10)
        connection.connect((address, port))
        connection.recv(64)
        peers.append("|".join(map(str, connection.getpeername()[:2])))
        dissolve(connection)
    connection.close()
    return {"peers": peers}


def dissolve(connection):
    """connect() to AF_UNSPEC ends a connection and keeps the socket. Python's connect() has no such family."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    unspecified = bytes(16)
    if libc.connect(connection.fileno(), unspecified, len(unspecified)) != 0:
        raise OSError(ctypes.get_errno(), "connect to AF_UNSPEC")


def done(asked, held):
    if "again" in asked:
        return again(asked)
    return read_held(held) if asked.get("close") else answer(asked, held)


def main():
    held = []
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(done(asked, held)), flush=True)


if __name__ == "__main__":
    main()
