"""What a request's body tells of its work: about how many tokens it has and may have, and the text that caches share.

Pure. Bodies of kinds that are not known count by their size alone. Nothing is checked here: what cannot be read is not
known, and a guess of tokens is off by a third anyway; prices only need to know long from short.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import astuple

from controller.requests.paths import Kind

TOKEN_BYTES = 4.0  # of English text, JSON and all
IMAGE_TOKENS = 800.0  # of a picture in the usual sizes
_DATA_URL = re.compile(rb'"data:[^"]*"')
_MOST_TOKENS = 10_000_000
LONG_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Prompt:
    tokens: float
    output_tokens: float | None = None  # at most, if the client says so
    text: bytes | memoryview = b""  # in the order in which engines see it; empty: not known
    streams: bool | None = None  # whether tokens are sent one by one; None: not known


_ABSENT = msgspec.Raw()


class Fields(msgspec.Struct):
    """Of OpenAI's, Anthropic's and Triton's requests: what makes the prompt, and the limits of the answer.

    As they stand in the body, which they are views of.
    """

    tools: msgspec.Raw = _ABSENT
    system: msgspec.Raw = _ABSENT
    instructions: msgspec.Raw = _ABSENT
    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    text_input: msgspec.Raw = _ABSENT
    stream: msgspec.Raw = _ABSENT
    max_tokens: msgspec.Raw = _ABSENT
    max_completion_tokens: msgspec.Raw = _ABSENT
    max_output_tokens: msgspec.Raw = _ABSENT


_PROMPT = slice(0, 7)
_STREAM = 7
_LIMITS = slice(8, 11)
_decoder = msgspec.json.Decoder(Fields)
_JSON_KINDS = frozenset(Kind) - {Kind.INFER, Kind.GRPC, Kind.OTHER}


def read(kind: Kind, body: bytes | None, fields: Fields | None = None) -> Prompt | None:
    """None: there is no body to read. fields: of the body, if somebody has decoded it already."""
    if not body:
        return None
    if kind not in _JSON_KINDS:
        return Prompt(len(body) / TOKEN_BYTES)
    if fields is None:
        try:
            fields = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Prompt(len(body) / TOKEN_BYTES)
    found = astuple(fields)
    parts = [_part(raw) for raw in found[_PROMPT] if raw is not _ABSENT]
    output = 0.0 if kind is Kind.EMBEDDINGS else _limit(found[_LIMITS])
    text = parts[0] if len(parts) == 1 else b"".join(parts)
    may_show = b"data:" in body  # a look for these five takes a fifth of one for all that makes a picture
    tokens = sum([_tokens(part, may_show) for part in parts])
    return Prompt(tokens, output, text, bytes(found[_STREAM]) == b"true")


def _part(raw: msgspec.Raw) -> bytes | memoryview:
    """Long ones are not copied; short ones are quicker to handle as a copy."""
    view = memoryview(raw)
    return view if len(view) >= LONG_BYTES else bytes(view)


def _tokens(raw: bytes | memoryview, may_show: bool) -> float:
    """Of one field as JSON has it: a text, texts, messages, or numbers that are tokens already."""
    if raw[:1] == b"[" and bytes(raw[1:32]).lstrip()[:1].isdigit():
        return bytes(raw).count(b",") + 1.0
    pictures = [found.end() - found.start() for found in _DATA_URL.finditer(raw)] if may_show else []
    return max(0.0, (len(raw) - sum(pictures)) / TOKEN_BYTES) + IMAGE_TOKENS * len(pictures)


def _limit(found: Sequence[msgspec.Raw]) -> float | None:
    limits = [number for raw in found if raw is not _ABSENT and (number := _number(raw)) is not None]
    return min(limits) if limits else None


def _number(raw: msgspec.Raw) -> float | None:
    text = bytes(raw)
    if not text.isdigit() or len(text) > 9:
        return None
    return float(min(int(text), _MOST_TOKENS))
