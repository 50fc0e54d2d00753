"""One ext_proc exchange as a state machine: gateway's message in, answers out, all as bytes. Pure: no gRPC, no clock.

Whoever carries the bytes does four things: hands each message to `receive`; sends what it returns; when `asks` is set,
settles it by `answer`, `refuse` or `fail`; and while `undecided`, calls `quiet` if nothing comes for QUIET_S.

When the pick is made depends on the stream's own protocol_config (facts measured with Envoy 1.40):

- BUFFERED: the gateway holds the body back until the headers are answered, so they are answered at once and the pick
  rides on the answer to the body.
- FULL_DUPLEX_STREAMED: nothing is answered until the body has ended; then headers with the pick, then the whole body.
- NONE, STREAMED and requests without a body: on the headers, without knowing the model. So are those of gRPC in
  FULL_DUPLEX_STREAMED, whose clients may wait for a first answer before they say more.
- no protocol_config (Envoy before 1.34, gateways that are not Envoy): what the gateway does tells the mode. One that
  sends body without having its headers answered speaks full duplex, for no other mode does that. One that sends
  headers and then nothing for QUIET_S waits for their answer, which is BUFFERED. Taking one for the other would be a
  deadlock or a request that leaves without its endpoint.

Response phases are never asked for; a gateway that sends them anyway gets them back untouched. Whatever the order of
messages, nothing raises: what makes no sense is not answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from google.protobuf.message import DecodeError

from controller.gateway import answers, reading
from controller.gateway.modes import BUFFERED, BUFFERED_PARTIAL, FULL_DUPLEX, GRPC, NONE, STREAMED, UNDECLARED
from controller.gateway.reading import Head
from controller.model import Request
from controller.requests.asking import asked
from controller.requests.openai import BadRequest
from controller.requests.paths import with_model
from controller.requests.rewriting import splice

QUIET_S = 0.1  # far above the pause between two messages of a gateway that waits for nothing

# More than this of one request is answered 413; the gateway's own limits are usually far below.
BODY_LIMIT_BYTES = 64 << 20

ERROR_PREFIX = "inference error: "
SERVED_HEADER = "x-conformance-test-served-endpoint"
SELECTED_HEADER = "x-conformance-test-selected-endpoint"
NOT_SERVED = "fail: missing destination endpoint served metadata"


# The modes in which nothing comes of a body once it is answered. What a partial one leaves out, the gateway keeps.
_ONE_ANSWER = (NONE, BUFFERED, BUFFERED_PARTIAL)

# After a fault the headers may not have been read, so every control header goes.
_PASSED = answers.headers_passed(answers.CONTROL_HEADERS)


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
    PASSING = "passing"  # answered before the streamed body's end: its chunks go back as they come
    REFUSED = "refused"


# by these names at a fifth of what looking a member up takes, some twenty times a request
_START, _BODY, _ASKING, _ANSWERED, _PASSING, _REFUSED = _State


class Exchange:
    """One request's way through the picker."""

    __slots__ = (
        "_at",
        "_chunks",
        "_ended",
        "_guessed",
        "_head",
        "_hooks",
        "_mode",
        "_reads",
        "_response_mode",
        "_saw_body",
        "_saw_response",
        "_size",
        "_state",
        "_subset",
        "_trailers",
        "asks",
        "destination",
        "learned",
        "refused",
        "response_status",
        "served",
    )

    def __init__(self, assumed_mode: int = UNDECLARED, hooks: bool = False, reads: bool = True) -> None:
        """assumed_mode: for gateways that send no protocol_config; hooks: obey the conformance suite's headers;
        reads: False passes every body unread."""
        self.asks: Request | None = None
        self.destination = ""  # the pick, once it is given
        self.refused: int | None = None  # the status of an immediate response
        self.served: str | None = None  # the endpoint that answered, if the gateway tells
        self.learned: int | None = None  # the mode of a gateway without protocol_config, once it is certain
        self.response_status: int | None = None  # the endpoint's, where the gateway shows it
        self._state = _START
        self._mode = assumed_mode
        self._guessed = False
        self._hooks = hooks
        self._reads = reads
        self._response_mode = UNDECLARED
        self._at = _At.HEADERS
        self._head: Head | None = None  # None: the gateway sends none
        self._subset: tuple[str, ...] | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._ended = False  # the request's end of stream was seen
        self._trailers = False
        self._saw_body = False
        self._saw_response = False

    @property
    def answered(self) -> bool:
        """The request has its pick and its body, so that the stream may close without harm."""
        return self._state is _ANSWERED

    @property
    def done(self) -> bool:
        """Nothing of the request is still to come either, so that nothing is lost if the stream ends here."""
        if self._state is not _ANSWERED:
            return False
        return self._ended or self._trailers or (self._mode in _ONE_ANSWER and not self._guessed)

    @property
    def over(self) -> bool:
        """Nothing that still comes will be answered."""
        return self._state is _REFUSED

    @property
    def size_bytes(self) -> int:
        """Of the request's body, as far as it came."""
        return self._size

    @property
    def held_bytes(self) -> int:
        """Of the body, here until it is answered."""
        return self._size if self._chunks else 0

    @property
    def undecided(self) -> bool:
        """Whether the gateway may be waiting for an answer to its headers, or may not."""
        return self._state is _BODY and self._mode == UNDECLARED

    @property
    def hurried(self) -> bool:
        """Whether the gateway sets a time limit to our answer; it does unless bodies are streamed both ways."""
        return bool(self._mode != FULL_DUPLEX)

    @property
    def outlives_stream(self) -> bool:
        """Whether the gateway closes this stream before the response has ended."""
        return self._mode == FULL_DUPLEX and not self._saw_response

    def receive(self, data: bytes) -> list[bytes]:
        """Takes a serialized ProcessingRequest; returns serialized ProcessingResponses to send in this order."""
        if self._state is _REFUSED:
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

    def quiet(self) -> list[bytes]:
        """The gateway has sent nothing since its headers, so it waits for their answer."""
        if not self.undecided:
            return []
        self._mode, self._guessed = BUFFERED, True
        return [answers.headers_passed(self._removed())]

    def answer(self, destination: str, model: str | None = None) -> list[bytes]:
        """Settles `asks` with an endpoint ("ip:port", or several with commas); model: the name to put into the body."""
        changed = self._renamed(model)
        out = self._answers(destination, changed)
        if model is not None and self.asks is not None and self._at is not _At.TRAILERS:
            path = with_model(self.asks.path, model)
            if path != self.asks.path:
                out[0] += answers.new_path(path, on_body=self._at is _At.BUFFERED_BODY)
        self.asks = None
        self._chunks = []
        passes = self._mode == FULL_DUPLEX and not (self._ended or self._trailers)
        self._state = _PASSING if passes else _ANSWERED
        self.destination = destination
        return out

    def _answers(self, destination: str, changed: bytes | None) -> list[bytes]:
        if self._at is _At.HEADERS:
            return [answers.headers_answer(destination, self._removed())]
        if self._at is _At.TRAILERS:
            return [answers.trailers_answer(destination)]
        if self._at is _At.STREAMED_BODY:
            return self._streamed(destination, self._joined() if changed is None else changed)
        if changed is None:
            return [answers.body_answer(destination)]
        return [answers.changed_body_answer(destination, changed, self._chunked())]

    def refuse(self, status: int, code: str, text: str, headers: Iterable[tuple[str, str]] = ()) -> list[bytes]:
        """Ends the request with a status; also settles `asks`. After an answer there is nothing left to refuse."""
        if self._state in (_ANSWERED, _PASSING, _REFUSED):
            return []
        self.asks = None
        self.refused = status
        self._state = _REFUSED
        self._chunks = []
        return [answers.immediate(status, f"{ERROR_PREFIX}{code} - {text}", headers)]

    def fail(self, passes: bool) -> list[bytes]:
        """Settles whatever is open after a fault of our own: 500, or the request goes on without a pick."""
        if not passes:
            return self.refuse(500, "Internal", "the endpoint picker failed")
        if self._state in (_ANSWERED, _PASSING, _REFUSED):
            return []
        self.asks = None
        if self._mode in (FULL_DUPLEX, UNDECLARED) and (self._saw_body or self._trailers or not self._ended):
            return self._passed_stream()
        self._state = _ANSWERED
        if self._saw_body:
            return [answers.EMPTY_REQUEST_BODY]
        return [answers.EMPTY_REQUEST_TRAILERS if self._at is _At.TRAILERS else _PASSED]

    def _passed_stream(self) -> list[bytes]:
        body, self._chunks = self._joined(), []
        self._state = _ANSWERED if self._ended or self._trailers else _PASSING
        out = [_PASSED, *answers.request_chunks(body, ends=self._ended)]
        return [*out, answers.EMPTY_REQUEST_TRAILERS] if self._trailers else out

    def _take(self, message: ProcessingRequest) -> list[bytes]:
        match message.WhichOneof("request"):
            case "request_body":
                return self._body(message)
            case "request_headers":
                return self._headers(message)
            case "request_trailers":
                return self._request_trailers()
            case "response_headers":
                return self._response_headers(message)
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
            if self._mode == GRPC:  # as full duplex, with one gRPC message a chunk
                self._mode = FULL_DUPLEX
        self._subset = reading.subset(message.metadata_context)

    def _headers(self, message: ProcessingRequest) -> list[bytes]:
        if self._state is not _START:
            return []
        self._state = _BODY
        self._configure(message)
        self._head = head = reading.head(message.request_headers.headers.headers)
        if self._hooks and "selection" in head.told:
            self._subset = reading.listed(head.told["selection"].split(","))
        self._ended = message.request_headers.end_of_stream
        if self._ended or self._mode in (NONE, STREAMED) or (self._mode == FULL_DUPLEX and head.is_grpc):
            return self._ask(_At.HEADERS, None)
        return [] if self._mode in (FULL_DUPLEX, UNDECLARED) else [answers.headers_passed(head.remove)]

    def _body(self, message: ProcessingRequest) -> list[bytes]:
        if self._ended:  # a second end of stream is a known fault of gateways
            return []
        body = message.request_body
        self._ended = body.end_of_stream or body.end_of_stream_without_message
        self._saw_body = True
        if self._state is _PASSING:
            self._state = _ANSWERED if self._ended else _PASSING
            return list(answers.request_chunks(body.body, self._ended))
        if self._state is _ANSWERED:
            return [] if self._mode == FULL_DUPLEX else [answers.EMPTY_REQUEST_BODY]
        if self._state is _START:
            self._begin_with_body(message)
        if self._state is not _BODY:
            return []
        part = body.body  # once: each look makes a copy
        self._learn(part)
        return self._collect(part)

    def _begin_with_body(self, message: ProcessingRequest) -> None:
        """A gateway that does not send the headers; without protocol_config it is one of old that buffers."""
        self._configure(message)
        self._state = _BODY
        if self._mode == UNDECLARED:
            self._mode, self._guessed = BUFFERED, True

    def _learn(self, part: bytes) -> None:
        if self._mode == UNDECLARED:
            self._mode = self.learned = FULL_DUPLEX
        elif self._guessed and part and self._ended:  # in full duplex the end comes by itself
            self.learned = BUFFERED

    def _collect(self, part: bytes) -> list[bytes]:
        self._size += len(part)
        if self._size > BODY_LIMIT_BYTES:
            return self.refuse(413, "RequestEntityTooLarge", f"request body is larger than {BODY_LIMIT_BYTES} bytes")
        if part:
            self._chunks.append(part)
        if self._mode != FULL_DUPLEX:  # the whole body in one message; with trailers it does not end the stream
            return self._ask(_At.BUFFERED_BODY, self._joined())
        return self._ask(_At.STREAMED_BODY, self._joined()) if self._ended else []

    def _request_trailers(self) -> list[bytes]:
        if self._state is _BODY and self._mode in (FULL_DUPLEX, UNDECLARED):
            self._mode, self._trailers = FULL_DUPLEX, True
            return self._ask(_At.STREAMED_BODY, self._joined())
        if self._state is _BODY:
            return self._ask(_At.TRAILERS, None)
        if self._state is _PASSING or (self._state is _ANSWERED and self._mode != FULL_DUPLEX):
            self._state, self._trailers = _ANSWERED, True
            return [answers.EMPTY_REQUEST_TRAILERS]
        return []

    def _response_headers(self, message: ProcessingRequest) -> list[bytes]:
        self._saw_response = True
        self.served = reading.served(message.metadata_context)
        self.response_status = reading.status(message.response_headers.headers.headers)
        if not self._hooks:
            return [answers.EMPTY_RESPONSE_HEADERS]
        shown = [(SERVED_HEADER, self.served or NOT_SERVED), (SELECTED_HEADER, self.destination)]
        return [answers.response_headers_answer(pair for pair in shown if pair[1])]

    def _response_body(self, body: Any) -> list[bytes]:
        self._saw_response = True
        undeclared = self._response_mode == UNDECLARED and self._mode in (FULL_DUPLEX, UNDECLARED)
        if undeclared or self._response_mode == FULL_DUPLEX:
            return list(answers.response_chunks(body.body, body.end_of_stream))
        return [answers.EMPTY_RESPONSE_BODY]

    def _streamed(self, destination: str, body: bytes) -> list[bytes]:
        """Headers with the pick, then the body; where the gateway sent no headers, the pick rides on the body."""
        told = None if self._trailers or self._chunked() else len(body)
        chunks = list(answers.request_chunks(body, ends=not self._trailers))
        if self._head is not None:
            chunks.insert(0, answers.headers_answer(destination, self._removed(), told))
        elif chunks:
            chunks[0] += answers.metadata(destination)
        return [*chunks, answers.EMPTY_REQUEST_TRAILERS] if self._trailers else chunks

    def _renamed(self, model: str | None) -> bytes | None:
        """The body with that model, if it names another one."""
        if model is None or self.asks is None or not self.asks.in_body or self.asks.model == model:
            return None
        return splice(self._joined(), model)

    def _removed(self) -> frozenset[str]:
        return self._head.remove if self._head else frozenset()

    def _chunked(self) -> bool:
        return self._head is not None and self._head.chunked

    def _joined(self) -> bytes:
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else b""

    def _ask(self, at: _At, body: bytes | None) -> list[bytes]:
        """Raises BadRequest for a body that must name a model and does not."""
        cut = not self._ended and (self._mode == BUFFERED_PARTIAL or self._guessed)
        request = asked(self._head or Head(), self._subset, body, cut, self._reads)
        self._at = at
        self._state = _ASKING
        self.asks = request
        return []
