"""A small HTTP/1.1 server whose behaviour the request's path chooses; run as a process of its own.

    python server.py HOST PORT [shared|dual]     prints "ready" when it listens

shared: beside others on that port; dual: one IPv6 socket for both families, whatever HOST says

POST /v1/plain?size=N            an answer of N bytes
POST /v1/stream?chunks=N&gap=MS  an event stream, header first, [DONE] not sent
POST /v1/held?chunks=N           the same, ended only once somebody asks for /v1/release
POST /v1/release                 a small answer
POST /v1/closing?chunks=N        an event stream that ends with the connection
POST /v1/silent                  no answer at all
POST /v1/padded?size=N           an answer with N bytes of header padding
"""

from __future__ import annotations

import asyncio
import socket
import sys
from urllib.parse import parse_qs, urlsplit

released = asyncio.Event()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            target = urlsplit(head.split()[1])
            if "expect: 100-continue" in head.lower():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = next((int(x.split(":")[1]) for x in head.lower().split("\r\n") if x.startswith("content-len")), 0)
            await reader.readexactly(length)
            options = {name: int(values[0]) for name, values in parse_qs(target.query).items()}
            await answer(target.path, options, writer)
            if target.path == "/v1/closing":
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(path: str, options: dict[str, int], writer: asyncio.StreamWriter) -> None:
    if path == "/v1/silent":
        await asyncio.sleep(3600)
    if path == "/v1/release":
        released.set()
    if path in ("/v1/stream", "/v1/held", "/v1/closing"):
        chunked = path != "/v1/closing"
        framing = "transfer-encoding: chunked" if chunked else "connection: close"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}\r\n\r\n".encode())
        for n in range(options["chunks"]):
            await asyncio.sleep(options.get("gap", 1) / 1000)
            data = b"data: %d\n\n" % n
            writer.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
            await writer.drain()
        if path == "/v1/held":
            await released.wait()
        if chunked:
            writer.write(b"0\r\n\r\n")
        return
    padding = f"x-padding: {'h' * options['size']}\r\n" if path == "/v1/padded" else ""
    body = b"x" * (options.get("size", 2) if path == "/v1/plain" else 2)
    writer.write(f"HTTP/1.1 200 OK\r\n{padding}content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


async def main() -> None:
    if sys.argv[3:] == ["dual"]:
        both = socket.create_server(("::", int(sys.argv[2])), family=socket.AF_INET6, dualstack_ipv6=True)
        server = await asyncio.start_server(serve, sock=both)
    else:
        shared = sys.argv[3:] == ["shared"]
        server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]), reuse_address=True, reuse_port=shared)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
