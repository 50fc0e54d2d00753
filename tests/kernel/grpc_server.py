"""A gRPC server without messages of its own: bytes in, bytes out; run as a process.

    python grpc_server.py HOST PORT     prints "ready" when it listens

/t.T/Plain   one answer      /t.T/Stream  as many answers as the request has bytes      /t.T/Silent  no answer at all
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc


def plain(request: bytes, context: grpc.ServicerContext) -> bytes:
    return b"ok"


def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    for n in range(len(request)):
        time.sleep(0.005)
        yield b"token %d" % n


def silent(request: bytes, context: grpc.ServicerContext) -> bytes:
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait()
    return b""


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(16))
    handlers = {
        "Plain": grpc.unary_unary_rpc_method_handler(plain),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Silent": grpc.unary_unary_rpc_method_handler(silent),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
    server.add_insecure_port(f"{sys.argv[1]}:{sys.argv[2]}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


main()
