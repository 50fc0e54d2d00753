"""What a gateway sends and what it reads, as protobuf messages."""

from __future__ import annotations

from typing import Any

from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from controller.gateway.answers import DESTINATION
from controller.gateway.modes import FULL_DUPLEX
from controller.gateway.reading import SERVED_KEY, SERVED_NAMESPACE, SUBSET_KEY, SUBSET_NAMESPACE

BODY = b'{"model": "m", "prompt": "hello"}'


def headers(
    mode: int | None = FULL_DUPLEX,
    path: str = "/v1/completions",
    ends: bool = False,
    subset: object = None,
    raw: bool = True,
    response_mode: int = 0,
    **more: str,
) -> bytes:
    message = ext_proc.ProcessingRequest()
    message.request_headers.end_of_stream = ends
    for key, value in {":method": "POST", ":path": path, **more}.items():
        header = message.request_headers.headers.headers.add(key=key.replace("_", "-"))
        if raw:
            header.raw_value = value.encode()
        else:
            header.value = value
    if mode is not None:
        message.protocol_config.request_body_mode = mode
        message.protocol_config.response_body_mode = response_mode
    if subset is not None:
        message.metadata_context.filter_metadata[SUBSET_NAMESPACE].update({SUBSET_KEY: subset})
    return message.SerializeToString()


def body(data: bytes = BODY, ends: bool = True, mode: int | None = None) -> bytes:
    """mode: of gateways whose first message this is."""
    message = ext_proc.ProcessingRequest(request_body=ext_proc.HttpBody(body=data, end_of_stream=ends))
    if mode is not None:
        message.protocol_config.request_body_mode = mode
    return message.SerializeToString()


def trailers() -> bytes:
    return ext_proc.ProcessingRequest(request_trailers=ext_proc.HttpTrailers()).SerializeToString()


def response_headers(served: str | None = None, status: int | None = None) -> bytes:
    message = ext_proc.ProcessingRequest(response_headers=ext_proc.HttpHeaders())
    if status is not None:
        message.response_headers.headers.headers.add(key=":status", raw_value=str(status).encode())
    if served is not None:
        message.metadata_context.filter_metadata[SERVED_NAMESPACE].update({SERVED_KEY: served})
    return message.SerializeToString()


def response_body(data: bytes, ends: bool) -> bytes:
    part = ext_proc.HttpBody(body=data, end_of_stream=ends)
    return ext_proc.ProcessingRequest(response_body=part).SerializeToString()


def response_trailers() -> bytes:
    return ext_proc.ProcessingRequest(response_trailers=ext_proc.HttpTrailers()).SerializeToString()


def read(data: bytes) -> Any:
    return ext_proc.ProcessingResponse.FromString(data)


def kinds(answers: list[bytes]) -> list[str | None]:
    return [read(answer).WhichOneof("response") for answer in answers]


def mutation(answer: Any) -> Any:
    return getattr(answer, answer.WhichOneof("response")).response.header_mutation


def set_headers(answer: Any) -> dict[str, str]:
    return {option.header.key: option.header.raw_value.decode() for option in mutation(answer).set_headers}


def header_pick(answer: Any) -> str | None:
    """The endpoint in the header mutation of an answer to headers or to a buffered body."""
    return set_headers(answer).get(DESTINATION)


def metadata_pick(answer: Any) -> str | None:
    if "envoy.lb" not in answer.dynamic_metadata.fields:
        return None
    inner = answer.dynamic_metadata.fields["envoy.lb"].struct_value.fields
    return str(inner["x-gateway-destination-endpoint"].string_value)


def streamed(answers: list[bytes], kind: str = "request_body") -> tuple[bytes, list[bool], list[int]]:
    """The body that chunk answers carry, their end_of_stream flags and their sizes."""
    parts = [getattr(read(answer), kind).response.body_mutation.streamed_response for answer in answers]
    return b"".join(p.body for p in parts), [p.end_of_stream for p in parts], [len(p.body) for p in parts]
