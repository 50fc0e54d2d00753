"""One ext_proc exchange as a state machine: gateway's message in, answers out, all as bytes. Pure: no gRPC, no clock.

Whoever carries the bytes does three things: hands each message to `receive`, sends what it returns, and, when `asks`
is set, settles it by `answer` or `refuse` and sends what that returns.

When the pick is made depends on the stream's own protocol_config (facts measured with Envoy 1.40):

- BUFFERED: the gateway holds the body back until the headers are answered, so they are answered at once and the pick
  rides on the answer to the body.
- FULL_DUPLEX_STREAMED: nothing is answered until the body has ended; then headers with the pick, then the whole body.
- NONE, STREAMED and requests without a body: on the headers, without knowing the model.

Response phases are never asked for; a gateway that sends them anyway gets them back untouched. Whatever the order of
messages, nothing raises: what makes no sense is not answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from google.protobuf.message import DecodeError

from controller import answers
from controller.model import Request
from controller.openai import BadRequest, model_of
from controller.paths import route_of

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"

# What is read of the request's headers, by the names of the field and by those llm-d gave them later.
READ_HEADERS = {
    ":path": "path",
    "content-type": "content type",
    "x-gateway-model-name": "model",  # from a filter before us that has read the body
    "x-gateway-model-name-rewrite": "target",
    "x-llm-d-model-name-rewrite": "target",
    "x-gateway-inference-objective": "objective",
    "x-llm-d-inference-objective": "objective",
    "x-gateway-inference-fairness-id": "flow",
    "x-llm-d-inference-fairness-id": "flow",
}

NONE = ProcessingMode.NONE
STREAMED = ProcessingMode.STREAMED
BUFFERED = ProcessingMode.BUFFERED
BUFFERED_PARTIAL = ProcessingMode.BUFFERED_PARTIAL
FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED

# More than this of one request is answered 413; the gateway's own limits are usually far below.
BODY_LIMIT_BYTES = 64 << 20

ERROR_PREFIX = "inference error: "


class _At(Enum):
    """What the pick answers."""

    HEADERS = "headers"
    BUFFERED_BODY = "buffered body"
    STREAMED_BODY = "streamed body"
    TRAILERS = "trailers"


class _State(Enum):
    START = "start"
    BODY = "body"  # headers seen, body to come
    ASKING = "asking"
    ANSWERED = "answered"
    REFUSED = "refused"


class Exchange:
    """One request's way through the picker."""

    __slots__ = (
        "_assumed_mode",
        "_at",
        "_chunks",
        "_ended",
        "_mode",
        "_remove",
        "_response_mode",
        "_saw_response",
        "_size",
        "_state",
        "_subset",
        "_told",
        "_trailers",
        "asks",
        "refused",
    )

    def __init__(self, assumed_mode: int = FULL_DUPLEX) -> None:
        """assumed_mode: for gateways that send no protocol_config, as before Envoy 1.33."""
        self.asks: Request | None = None
        self.refused: int | None = None  # the status of an immediate response
        self._assumed_mode = assumed_mode
        self._state = _State.START
        self._mode = assumed_mode
        self._response_mode = NONE
        self._at = _At.HEADERS
        self._told: dict[str, str] = {}  # what the headers say, by the values of READ_HEADERS
        self._subset: tuple[str, ...] | None = None
        self._remove: frozenset[str] = frozenset()
        self._chunks: list[bytes] = []
        self._size = 0
        self._ended = False  # the request's end of stream was seen
        self._trailers = False
        self._saw_response = False

    @property
    def answered(self) -> bool:
        """The request has its pick, so that the stream may close without harm."""
        return self._state is _State.ANSWERED

    @property
    def over(self) -> bool:
        """Nothing that still comes will be answered."""
        return self._state is _State.REFUSED

    @property
    def outlives_stream(self) -> bool:
        """Whether the gateway closes this stream before the response has ended."""
        return self._mode == FULL_DUPLEX and not self._saw_response

    def receive(self, data: bytes) -> list[bytes]:
        """Takes a serialized ProcessingRequest; returns serialized ProcessingResponses to send in this order."""
        if self._state is _State.REFUSED:
            return []
        try:
            message = ProcessingRequest.FromString(data)
        except DecodeError:
            return self.refuse(400, "BadRequest", "message is no envoy.service.ext_proc.v3.ProcessingRequest")
        if message.observability_mode:  # answers would be discarded
            return []
        try:
            return self._take(message)
        except BadRequest as error:
            return self.refuse(400, "BadRequest", str(error))

    def answer(self, destination: str) -> list[bytes]:
        """Settles `asks` with an endpoint ("ip:port")."""
        self.asks = None
        self._state = _State.ANSWERED
        if self._at is _At.HEADERS:
            return [answers.headers_answer(destination, self._remove)]
        if self._at is _At.BUFFERED_BODY:
            return [answers.body_answer(destination)]
        if self._at is _At.TRAILERS:
            return [answers.trailers_answer(destination)]
        out = [answers.headers_answer(destination, self._remove)]
        out += answers.request_chunks(self._joined(), ends=not self._trailers)
        if self._trailers:
            out.append(answers.EMPTY_REQUEST_TRAILERS)
        self._chunks = []
        return out

    def refuse(self, status: int, code: str, text: str, headers: Sequence[tuple[str, str]] = ()) -> list[bytes]:
        """Ends the request with a status; also settles `asks`. After an answer there is nothing left to refuse."""
        if self._state in (_State.ANSWERED, _State.REFUSED):
            return []
        self.asks = None
        self.refused = status
        self._state = _State.REFUSED
        self._chunks = []
        return [answers.immediate(status, f"{ERROR_PREFIX}{code} - {text}", headers)]

    def _take(self, message: ProcessingRequest) -> list[bytes]:
        match message.WhichOneof("request"):
            case "request_body":
                return self._body(message)
            case "request_headers":
                return self._headers(message)
            case "request_trailers":
                return self._request_trailers()
            case "response_headers":
                self._saw_response = True
                return [answers.EMPTY_RESPONSE_HEADERS]
            case "response_body":
                return self._response_body(message.response_body)
            case "response_trailers":
                self._saw_response = True
                return [answers.EMPTY_RESPONSE_TRAILERS]
        return []

    def _configure(self, message: ProcessingRequest) -> None:
        if message.HasField("protocol_config"):
            self._mode = message.protocol_config.request_body_mode
            self._response_mode = message.protocol_config.response_body_mode
        self._subset = _subset(message.metadata_context.filter_metadata)

    def _headers(self, message: ProcessingRequest) -> list[bytes]:
        if self._state is not _State.START:
            return []
        self._state = _State.BODY
        self._configure(message)
        self._read_headers(message.request_headers.headers.headers)
        self._ended = message.request_headers.end_of_stream
        if self._ended or self._mode in (NONE, STREAMED):
            return self._ask(_At.HEADERS, None)
        return [] if self._mode == FULL_DUPLEX else [answers.headers_passed(self._remove)]

    def _read_headers(self, headers: Any) -> None:
        remove = []
        for header in headers:
            key = header.key.lower()
            if key in READ_HEADERS:
                self._told[READ_HEADERS[key]] = (header.raw_value or header.value.encode()).decode("utf-8", "replace")
            elif key in answers.CONTROL_HEADERS:
                remove.append(key)
        if remove:
            self._remove = frozenset(remove)

    def _body(self, message: ProcessingRequest) -> list[bytes]:
        if self._ended:  # a second end of stream is a known fault of gateways
            return []
        self._ended = message.request_body.end_of_stream
        if self._state is _State.ANSWERED:
            return [answers.EMPTY_REQUEST_BODY] if self._mode in (NONE, STREAMED) else []
        if self._state is _State.START:  # a gateway that does not send the headers
            self._configure(message)
            self._state = _State.BODY
        if self._state is not _State.BODY:
            return []
        return self._collect(message.request_body.body, message.request_body.end_of_stream)

    def _collect(self, part: bytes, ends: bool) -> list[bytes]:
        self._size += len(part)
        if self._size > BODY_LIMIT_BYTES:
            return self.refuse(413, "RequestEntityTooLarge", f"request body is larger than {BODY_LIMIT_BYTES} bytes")
        if part:
            self._chunks.append(part)
        if self._mode != FULL_DUPLEX:  # the whole body in one message; with trailers it does not end the stream
            whole = self._mode != BUFFERED_PARTIAL or ends
            return self._ask(_At.BUFFERED_BODY, self._joined() if whole else None)
        return self._ask(_At.STREAMED_BODY, self._joined()) if ends else []

    def _request_trailers(self) -> list[bytes]:
        if self._state is _State.BODY and self._mode == FULL_DUPLEX:
            self._trailers = True
            return self._ask(_At.STREAMED_BODY, self._joined())
        if self._state is _State.BODY:
            return self._ask(_At.TRAILERS, None)
        if self._state is _State.ANSWERED and self._mode != FULL_DUPLEX:
            return [answers.EMPTY_REQUEST_TRAILERS]
        return []

    def _response_body(self, body: Any) -> list[bytes]:
        self._saw_response = True
        if self._response_mode == FULL_DUPLEX:
            return list(answers.response_chunks(body.body, body.end_of_stream))
        return [answers.EMPTY_RESPONSE_BODY]

    def _joined(self) -> bytes:
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else b""

    def _ask(self, at: _At, body: bytes | None) -> list[bytes]:
        """Raises BadRequest for a body that must name a model and does not."""
        told = self._told.get
        path = told("path", "")
        route = route_of(path, told("content type", ""))
        model = model_of(body) if body is not None and route.reads_body else route.model or told("model") or None
        self._at = at
        self._state = _State.ASKING
        self.asks = Request(
            path, model, self._subset, route.kind, told("objective"), told("flow"), told("target") or None
        )
        return []


def _subset(metadata: Any) -> tuple[str, ...] | None:
    """The endpoints the gateway allows: a list of texts, or one text with commas. None: it has no such wish."""
    if not metadata or SUBSET_NAMESPACE not in metadata:
        return None
    fields = metadata[SUBSET_NAMESPACE].fields
    if SUBSET_KEY not in fields:
        return None
    value = fields[SUBSET_KEY]
    if value.WhichOneof("kind") == "list_value":
        texts = [entry.string_value for entry in value.list_value.values]
    else:
        texts = value.string_value.split(",")
    return tuple(text.strip() for text in texts if text.strip())
