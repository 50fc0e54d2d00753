"""The client of bench.steer, to run inside a cgroup: connects as each line of its input says, and says what it took.

A line is a JSON object. {"time": [address, port], "times": n}: processor time of connect() alone, in nanoseconds, of
the median connection. {"load": [address, port], "threads": n, "until_s": t}: connections until then, each as [began,
ended, who answered]; what went wrong answers "!" and its name.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from statistics import median

RESET = struct.pack("ii", 1, 0)  # closing resets: no port waits for a minute afterwards
Connection = tuple[float, float, str]


def connect_ns(place: tuple[str, int]) -> int:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        began_ns = time.thread_time_ns()
        connection.connect(place)
        return time.thread_time_ns() - began_ns


def connect(place: tuple[str, int]) -> str:
    try:
        with socket.socket() as connection:
            connection.settimeout(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.connect(place)
            return connection.recv(16).decode()
    except OSError as error:
        return f"!{type(error).__name__}"


def load(place: tuple[str, int], threads: int, until_s: float) -> list[Connection]:
    made: list[Connection] = []

    def work() -> None:
        while (began_s := time.monotonic()) < until_s:
            answer = connect(place)
            made.append((began_s, time.monotonic(), answer))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return made


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "time" in asked:
            said: object = median(connect_ns(tuple(asked["time"])) for _ in range(asked["times"]))
        else:
            said = load(tuple(asked["load"]), asked["threads"], asked["until_s"])
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
