"""What a request's body tells of its work: about how many tokens it has and may have, and the text that caches share.

Pure. Bodies of kinds that are not known count by their size alone. Nothing is checked here: what cannot be read is not
known, and a guess of tokens is off by a third anyway; prices only need to know long from short.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from controller.paths import Kind

TOKEN_BYTES = 4.0  # of English text, JSON and all
IMAGE_TOKENS = 800.0  # of a picture in the usual sizes
_DATA_URL = re.compile(rb'"data:[^"]*"')
_MOST_TOKENS = 10_000_000


@dataclass(frozen=True, slots=True)
class Prompt:
    tokens: float
    output_tokens: float | None = None  # at most, if the client says so
    text: bytes = b""  # in the order in which engines see it; b"": not known
    streams: bool | None = None  # whether tokens are sent one by one; None: not known


class _Body(msgspec.Struct):
    """The fields of OpenAI's, Anthropic's and Triton's requests that make the prompt, and the limits of the answer."""

    tools: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    text_input: msgspec.Raw = msgspec.Raw()
    stream: msgspec.Raw = msgspec.Raw()
    max_tokens: msgspec.Raw = msgspec.Raw()
    max_completion_tokens: msgspec.Raw = msgspec.Raw()
    max_output_tokens: msgspec.Raw = msgspec.Raw()


_PROMPT_FIELDS = ("tools", "system", "instructions", "messages", "prompt", "input", "text_input")
_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_decoder = msgspec.json.Decoder(_Body)
_JSON_KINDS = frozenset(Kind) - {Kind.INFER, Kind.GRPC, Kind.OTHER}


def read(kind: Kind, body: bytes | None) -> Prompt | None:
    """None: there is no body to read."""
    if not body:
        return None
    if kind not in _JSON_KINDS:
        return Prompt(len(body) / TOKEN_BYTES)
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Prompt(len(body) / TOKEN_BYTES)
    parts = [raw for raw in (bytes(getattr(found, name)) for name in _PROMPT_FIELDS) if raw]
    output = 0.0 if kind is Kind.EMBEDDINGS else _limit(found)
    return Prompt(sum(map(_tokens, parts)), output, b"".join(parts), bytes(found.stream) == b"true")


def _tokens(raw: bytes) -> float:
    """Of one field as JSON has it: a text, texts, messages, or numbers that are tokens already."""
    if raw[:1] == b"[" and raw[1:32].lstrip()[:1].isdigit():
        return raw.count(b",") + 1.0
    pictures = [found.end() - found.start() for found in _DATA_URL.finditer(raw)] if b'"data:' in raw else []
    return max(0.0, (len(raw) - sum(pictures)) / TOKEN_BYTES) + IMAGE_TOKENS * len(pictures)


def _limit(found: _Body) -> float | None:
    limits = [number for number in (_number(getattr(found, name)) for name in _LIMIT_FIELDS) if number is not None]
    return min(limits) if limits else None


def _number(raw: Any) -> float | None:
    text = bytes(raw)
    if not text.isdigit() or len(text) > 9:
        return None
    return float(min(int(text), _MOST_TOKENS))
