"""Messages of HTTP/1.1 that the packet tests send, as engines and their clients do."""

from __future__ import annotations

POST = b"POST /v1/completions HTTP/1.1\r\nhost: engine\r\ncontent-length: 300\r\n\r\n" + b"p" * 300
GET_HEALTH = b"GET /health HTTP/1.1\r\nhost: engine\r\n\r\n"
STREAM_HEADER = (
    b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 10:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(text: bytes) -> bytes:
    return chunk(b"data: " + text + b"\n\n")


def answer(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nServer: engine\r\n%sContent-Length: %d\r\n\r\n%s" % (status, extra, len(body), body)
