"""The honest server as a streaming gRPC service.

    python -m bench.grpc_tokens HOST PORT LOG     prints "ready" when it listens

/t.T/Stream takes "ID CHUNKS GAP_MS" and answers with so many messages.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio

from lab.engines.truth import COMPLETED, Log, Record

now = time.monotonic_ns


async def serve(host: str, port: str, log: Log) -> None:
    async def stream(request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        id, chunks, gap_ms = request.decode().split()
        record = Record("", 0, "/t.T/Stream", id, now(), now())
        for n in range(int(chunks)):
            await asyncio.sleep(float(gap_ms) / 1000)
            record.data_ns.append(now())
            yield b"token %d" % n
        record.end_ns, record.outcome = now(), COMPLETED
        log.write(record)

    server = grpc.aio.server()
    handlers = {"Stream": grpc.unary_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
    server.add_insecure_port(f"{host}:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


def main() -> None:
    host, port, path = sys.argv[1:4]
    with Path(path).open("a") as out:
        asyncio.run(serve(host, port, Log(out)))


if __name__ == "__main__":
    main()
