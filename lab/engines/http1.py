"""HTTP/1.1 framing for the lab's server and client: bytes in, heads and bodies out. Owns no socket.

Just enough for the lab: content-length, chunked, and responses that end with the connection. Trailers are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum, auto
from http import HTTPStatus

MAX_HEAD_BYTES = 64 << 10


class FramingError(Exception):
    """The bytes are no HTTP/1.1 message."""


@dataclass(frozen=True, slots=True)
class Head:
    """First line, split at its spaces, and headers with names in lower case (the last of equal names wins)."""

    first: tuple[str, str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of the body, without its framing."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The message is whole."""


Event = Head | Data | End


class _At(Enum):
    HEAD = auto()
    LENGTH = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    CLOSE = auto()


class Reader:
    """Reads the messages of one direction of one connection, one after the other."""

    def __init__(self, responses: bool) -> None:
        self._responses = responses
        self._rest = b""
        self._at = _At.HEAD
        self._left = 0

    @property
    def idle(self) -> bool:
        """Nothing of a next message has come yet."""
        return self._at is _At.HEAD and not self._rest

    def feed(self, received: bytes) -> Iterator[Event]:
        """The events that became known with these bytes. Raises FramingError."""
        self._rest += received
        while (event := self._next()) is not None:
            yield event

    def close(self) -> Iterator[Event]:
        """The connection's end ends a message only where nothing else says so. Raises FramingError if one is cut."""
        if self._at is _At.CLOSE:
            self._at = _At.HEAD
            yield End()
        elif not self.idle:
            raise FramingError("the connection ended inside a message")

    def _next(self) -> Event | None:
        while True:
            at = self._at
            if at is _At.HEAD:
                return self._read_head()
            if at in (_At.LENGTH, _At.CHUNK, _At.CLOSE):
                return self._read_body()
            line = self._line()
            if line is None:
                return None
            if at is _At.CHUNK_END:
                if line:
                    raise FramingError(f"got {line!r} after a chunk, expected its end")
                self._at = _At.CHUNK_SIZE
            elif at is _At.CHUNK_SIZE:
                self._left = _chunk_size(line)
                self._at = _At.CHUNK if self._left else _At.TRAILER
            elif not line:  # the empty line after the last chunk and the trailers
                self._at = _At.HEAD
                return End()

    def _read_head(self) -> Head | None:
        end = self._rest.find(b"\r\n\r\n")
        if end < 0:
            if len(self._rest) > MAX_HEAD_BYTES:
                raise FramingError(f"no end of the header in {MAX_HEAD_BYTES} bytes")
            return None
        head = _parse_head(self._rest[:end])
        self._rest = self._rest[end + 4 :]
        if "chunked" in head.headers.get("transfer-encoding", ""):
            self._at = _At.CHUNK_SIZE
        elif "content-length" in head.headers:
            self._at, self._left = _At.LENGTH, _length(head.headers["content-length"])
        elif self._responses and head.first[1] not in ("204", "304"):
            self._at = _At.CLOSE
        else:
            self._at, self._left = _At.LENGTH, 0
        return head

    def _read_body(self) -> Data | End | None:
        if self._at is _At.LENGTH and not self._left:
            self._at = _At.HEAD
            return End()
        if not self._rest:
            return None
        if self._at is _At.CLOSE:
            payload, self._rest = self._rest, b""
            return Data(payload)
        payload, self._rest = self._rest[: self._left], self._rest[self._left :]
        self._left -= len(payload)
        if self._at is _At.CHUNK and not self._left:
            self._at = _At.CHUNK_END
        return Data(payload)

    def _line(self) -> bytes | None:
        end = self._rest.find(b"\r\n")
        if end < 0:
            return None
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line


def chunk(payload: bytes) -> bytes:
    """A body piece in chunked framing."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


LAST_CHUNK = b"0\r\n\r\n"


def response_head(
    status: int, content_type: str, length: int | None, pod: str | None = None, close: bool = False
) -> bytes:
    """The header of a response; `length` None: chunked."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"date: {formatdate(usegmt=True)}",
        "server: sonde-lab",
        f"content-type: {content_type}",
        "transfer-encoding: chunked" if length is None else f"content-length: {length}",
    ]
    if pod is not None:
        lines.append(f"x-sonde-pod: {pod}")
    if close:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode()


def _parse_head(raw: bytes) -> Head:
    first, *lines = raw.decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2:
        raise FramingError(f"got {first!r} where a request or status line was expected")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise FramingError(f"got {line!r} where a header was expected")
        headers[name.strip().lower()] = value.strip()
    return Head((parts[0], parts[1], parts[2] if len(parts) > 2 else ""), headers)


def _length(text: str) -> int:
    if not text.isdecimal():
        raise FramingError(f"got content-length {text!r}, expected a number")
    return int(text)


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError:
        raise FramingError(f"got {line!r} where a chunk size was expected") from None
