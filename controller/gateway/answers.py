"""The ext_proc answers as serialized bytes: built once from protobuf messages, or by hand where bodies pass through.

The same endpoint is answered thousands of times a second, and building the message costs a hundred times what sending
stored bytes does. Knows messages, not when to send them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.type.v3 import http_status_pb2

DESTINATION = "x-gateway-destination-endpoint"
METADATA_NAMESPACE = "envoy.lb"
# What only gateway and picker may say to each other: a client that could say it would choose an endpoint, or the peers
# that a pod's disaggregation sidecar calls. The destination is overwritten where there is a pick; the others go.
CONTROL_HEADERS = frozenset(
    {
        DESTINATION,
        f"{DESTINATION}-subset",
        f"{DESTINATION}-served",
        f"{DESTINATION}-fallback",
        f"{DESTINATION}-scores",
        "x-prefiller-host-port",
        "x-encoder-hosts-ports",
        "x-data-parallel-host-port",
        "x-kv-cache-source-host-port",
        "x-llm-d-pin-host-port",
        "x-pin-host-port",
    },
)
# Envoy takes larger chunks, other gateways' buffers end at 64 KiB.
CHUNK_BYTES = 62_000

EMPTY_REQUEST_BODY = ext_proc.ProcessingResponse(request_body=ext_proc.BodyResponse()).SerializeToString()
EMPTY_REQUEST_TRAILERS = ext_proc.ProcessingResponse(request_trailers=ext_proc.TrailersResponse()).SerializeToString()
EMPTY_RESPONSE_HEADERS = ext_proc.ProcessingResponse(response_headers=ext_proc.HeadersResponse()).SerializeToString()
EMPTY_RESPONSE_BODY = ext_proc.ProcessingResponse(response_body=ext_proc.BodyResponse()).SerializeToString()
EMPTY_RESPONSE_TRAILERS = ext_proc.ProcessingResponse(response_trailers=ext_proc.TrailersResponse()).SerializeToString()


def _mutation(destination: str | None, remove: frozenset[str]) -> ext_proc.HeaderMutation:
    mutation = ext_proc.HeaderMutation(remove_headers=sorted(remove - {destination and DESTINATION}))
    if destination is not None:
        _set(mutation, DESTINATION, destination)
    return mutation


def _set(mutation: ext_proc.HeaderMutation, key: str, value: str) -> None:
    option = mutation.set_headers.add()
    option.header.key = key
    option.header.raw_value = value.encode()
    option.append_action = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


@lru_cache(maxsize=8192)
def metadata(destination: str) -> bytes:
    """The field dynamic_metadata of a ProcessingResponse; appended to an answer it becomes part of it."""
    response = ext_proc.ProcessingResponse()
    response.dynamic_metadata.update({METADATA_NAMESPACE: {DESTINATION: destination}})
    return bytes(response.SerializeToString())


def headers_answer(destination: str, remove: frozenset[str] = frozenset(), length: int | None = None) -> bytes:
    """Answers the request headers with the pick; length: of the body that follows, where the gateway must be told."""
    if length is None:
        return _headers_answer(destination, remove)
    digits = b"%d" % length
    before, after = _around_length(destination, remove, len(digits))
    return b"".join((before, digits, after))


@lru_cache(maxsize=8192)
def _around_length(destination: str, remove: frozenset[str], digits: int) -> tuple[bytes, bytes]:
    """What stands before and behind a content-length of so many digits in the answer to the headers."""
    after = _OVERWRITE + _CLEAR_ROUTE_CACHE
    mutation = _picked(destination, remove) + _field(b"\x0a", _content_length(b"0" * digits))
    # HeadersResponse.response = 1 with header_mutation = 2
    common = _field(b"\x12", mutation) + _CLEAR_ROUTE_CACHE
    whole = _field(b"\x0a", _field(b"\x0a", common))
    return whole[: -len(after) - digits], after + metadata(destination)


@lru_cache(maxsize=8192)
def _headers_answer(destination: str, remove: frozenset[str]) -> bytes:
    common = ext_proc.CommonResponse(header_mutation=_mutation(destination, remove), clear_route_cache=True)
    response = ext_proc.ProcessingResponse(request_headers=ext_proc.HeadersResponse(response=common))
    return bytes(response.SerializeToString()) + metadata(destination)


@lru_cache(maxsize=8192)
def _picked(destination: str, remove: frozenset[str]) -> bytes:
    return bytes(_mutation(destination, remove).SerializeToString())


@lru_cache(maxsize=8192)
def body_answer(destination: str) -> bytes:
    """Answers a buffered body with the pick; the headers are still held, so they can change here."""
    common = ext_proc.CommonResponse(header_mutation=_mutation(destination, frozenset()), clear_route_cache=True)
    response = ext_proc.ProcessingResponse(request_body=ext_proc.BodyResponse(response=common))
    return bytes(response.SerializeToString()) + metadata(destination)


def changed_body_answer(destination: str, body: bytes, chunked: bool) -> bytes:
    """The same with another body, whose length must be told in the same answer unless chunks frame it."""
    mutation = _mutation(destination, frozenset())
    if not chunked:
        _set(mutation, "content-length", str(len(body)))
    common = ext_proc.CommonResponse(
        header_mutation=mutation, body_mutation=ext_proc.BodyMutation(body=body), clear_route_cache=True
    )
    response = ext_proc.ProcessingResponse(request_body=ext_proc.BodyResponse(response=common))
    return bytes(response.SerializeToString()) + metadata(destination)


def new_path(path: str, on_body: bool) -> bytes:
    """Appended to an answer that carries the pick, it sets another path: parts of one message are joined by readers."""
    common = ext_proc.CommonResponse()
    _set(common.header_mutation, ":path", path)
    if on_body:
        answer = ext_proc.ProcessingResponse(request_body=ext_proc.BodyResponse(response=common))
    else:
        answer = ext_proc.ProcessingResponse(request_headers=ext_proc.HeadersResponse(response=common))
    return bytes(answer.SerializeToString())


def trailers_answer(destination: str) -> bytes:
    """Answers trailers with the pick, which can only ride on the metadata there."""
    return b"".join((EMPTY_REQUEST_TRAILERS, metadata(destination)))


@lru_cache(maxsize=64)
def headers_passed(remove: frozenset[str] = frozenset()) -> bytes:
    """Lets the request headers go on waiting for the body, without what the client must not say."""
    headers = ext_proc.HeadersResponse()
    if remove:
        headers.response.header_mutation.CopyFrom(_mutation(None, remove))
    return bytes(ext_proc.ProcessingResponse(request_headers=headers).SerializeToString())


def immediate(status: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Ends the request here with this status and text."""
    mutation = ext_proc.HeaderMutation()
    for key, value in (("content-type", "text/plain; charset=utf-8"), *headers):
        _set(mutation, key, value)
    response = ext_proc.ImmediateResponse(
        status=http_status_pb2.HttpStatus(code=status), headers=mutation, body=text.encode(), details="sonde"
    )
    return bytes(ext_proc.ProcessingResponse(immediate_response=response).SerializeToString())


def response_headers_answer(headers: Iterable[tuple[str, str]]) -> bytes:
    """Answers the response headers by setting some."""
    answer = ext_proc.HeadersResponse()
    for key, value in headers:
        _set(answer.response.header_mutation, key, value)
    return bytes(ext_proc.ProcessingResponse(response_headers=answer).SerializeToString())


_ONE_BYTE = [bytes((number,)) for number in range(0x80)]
_OVERWRITE = b"\x18\x02"  # HeaderValueOption.append_action = 3: OVERWRITE_IF_EXISTS_OR_ADD
_CLEAR_ROUTE_CACHE = b"\x28\x01"  # CommonResponse.clear_route_cache = 5
# ProcessingResponse.request_body = 3 and .response_body = 4, wire type 2
_REQUEST_BODY = b"\x1a"
_RESPONSE_BODY = b"\x22"


def request_chunks(body: bytes, ends: bool) -> Iterator[bytes]:
    """The request body back to a FULL_DUPLEX_STREAMED gateway; an empty one that ends the stream is one chunk."""
    return _chunks(_REQUEST_BODY, body, ends)


def response_chunks(body: bytes, ends: bool) -> Iterator[bytes]:
    return _chunks(_RESPONSE_BODY, body, ends)


def _chunks(tag: bytes, body: bytes, ends: bool) -> Iterator[bytes]:
    size = len(body)
    view = memoryview(body)  # a slice of it copies nothing
    for start in range(0, size or ends, CHUNK_BYTES):
        part = view[start : start + CHUNK_BYTES]
        yield _chunk(tag, part, ends and start + CHUNK_BYTES >= size)


def _chunk(tag: bytes, part: memoryview, last: bool) -> bytes:
    """BodyResponse{response=1{body_mutation=3{streamed_response=3{body=1, end_of_stream=2}}}} under the tag."""
    head = b"\x0a" + _varint(len(part)) if part else b""
    tail = b"\x10\x01" if last else b""
    for number in (b"\x1a", b"\x1a", b"\x0a", tag):
        head = number + _varint(len(head) + len(part) + len(tail)) + head
    return b"".join((head, part, tail))


def _field(tag: bytes, value: bytes) -> bytes:
    return tag + _varint(len(value)) + value


def _content_length(digits: bytes) -> bytes:
    """HeaderValueOption{header=1{key=1, raw_value=3}, append_action=3}."""
    header = _field(b"\x0a", b"content-length") + _field(b"\x1a", digits)
    return _field(b"\x0a", header) + _OVERWRITE


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _ONE_BYTE[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
