"""The honest server as people write one: starlette under uvicorn (`pip install .[bench]`).

python -m bench.asgi HOST PORT LOG     prints "ready" when it listens
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lab.engines.truth import COMPLETED, Log, Record

now = time.monotonic_ns


def app(log: Log) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def stream(request: Request) -> StreamingResponse:
        begun_ns = now()
        await request.body()
        peer = request.client.port if request.client else 0
        record = Record("", peer, str(request.url), request.headers.get("x-request-id"), begun_ns, now())
        options = {name: float(value) for name, value in request.query_params.items()}

        async def tokens() -> AsyncIterator[bytes]:
            await asyncio.sleep(options.get("wait", 10) / 1000)
            for n in range(int(options["chunks"])):
                record.data_ns.append(now())
                yield b"data: token %d\n\n" % n
                await asyncio.sleep(options.get("gap", 1) / 1000)
            record.end_ns, record.outcome = now(), COMPLETED
            log.write(record)

        return StreamingResponse(tokens(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/stream", stream, methods=["POST"])])


def main() -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            print("ready", flush=True)

    host, port, path = sys.argv[1:4]
    with Path(path).open("a") as out:
        Server(uvicorn.Config(app(Log(out)), host=host, port=int(port), log_level="warning", backlog=1024)).run()


if __name__ == "__main__":
    main()
