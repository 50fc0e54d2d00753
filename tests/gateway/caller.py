"""A client that calls a Service again and again, a connection for each request, and says what came of each.

python caller.py HOST PORT: one JSON line a request, {"at_s": when it began, "pod": who answered} or "error". Knows
nothing of the project: it is what runs in other people's pods.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

THREADS = 2
PAUSE_S = 0.05
BODY = json.dumps({"model": "lab", "prompt": "hello", "max_tokens": 2}).encode()


def call(host: str, port: int) -> dict[str, object]:
    began_s = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        connection.request("POST", "/v1/completions", BODY, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            return {"at_s": began_s, "error": f"status {answer.status}"}
        return {"at_s": began_s, "pod": answer.getheader("x-sonde-pod")}
    except (OSError, http.client.HTTPException) as error:
        return {"at_s": began_s, "error": repr(error)}
    finally:
        connection.close()


def call_on(host: str, port: int) -> None:
    while True:
        sys.stdout.write(json.dumps(call(host, port)) + "\n")
        sys.stdout.flush()
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    for _ in range(THREADS - 1):
        threading.Thread(target=call_on, args=(sys.argv[1], int(sys.argv[2])), daemon=True).start()
    call_on(sys.argv[1], int(sys.argv[2]))
