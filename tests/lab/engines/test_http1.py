from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.engines.http1 import LAST_CHUNK, Data, End, FramingError, Head, Reader, chunk

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"abc") + chunk(b"defgh") + LAST_CHUNK
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwxyz"
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"


def messages(pieces: list[bytes]) -> list[bytes]:
    """Bodies of the whole messages in these pieces."""
    reader, bodies, body = Reader(responses=True), [], b""
    for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, Data):
                body += event.payload
            elif isinstance(event, End):
                bodies.append(body)
                body = b""
    assert reader.idle
    return bodies


@given(st.lists(st.integers(0, len(CHUNKED + LENGTH + NOTHING + CHUNKED))))
def test_messages_are_the_same_however_they_are_cut(cuts):
    wire = CHUNKED + LENGTH + NOTHING + CHUNKED
    ends = sorted({0, *cuts, len(wire)})
    pieces = [wire[start:end] for start, end in itertools.pairwise(ends)]
    assert messages(pieces) == [b"abcdefgh", b"wxyz", b"", b"abcdefgh"]


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_a_framing_error(garbage):
    with contextlib.suppress(FramingError):
        list(Reader(responses=False).feed(garbage + b"\r\n\r\n"))


def test_header_names_are_lower_case():
    head = next(Reader(responses=False).feed(b"POST /x HTTP/1.1\r\nX-Request-ID: a:b\r\n\r\n"))
    assert head == Head(("POST", "/x", "HTTP/1.1"), {"x-request-id": "a:b"})


def test_a_response_without_a_length_ends_with_the_connection():
    reader = Reader(responses=True)
    assert [type(event) for event in reader.feed(b"HTTP/1.1 200 OK\r\n\r\nabc")] == [Head, Data]
    assert list(reader.close()) == [End()]


def test_a_cut_message_is_told():
    reader = Reader(responses=True)
    list(reader.feed(CHUNKED[:-3]))
    with pytest.raises(FramingError, match="inside a message"):
        list(reader.close())
