"""Gives a request body another model name and leaves every other byte as it is. Pure.

Engines and caches see what the client wrote: spaces, order of keys, escapes, numbers. Re-encoding would change them.
"""

from __future__ import annotations

import msgspec
import numpy as np


class _Body(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw()


_decoder = msgspec.json.Decoder(_Body)


def splice(body: bytes, model: str) -> bytes | None:
    """The body with the value of its top-level "model" replaced; None if it has none, or is no JSON object.

    Of several keys "model" the last counts, as for the engines' own parsers.
    """
    span = _span(body)
    if span is None:
        return None
    return b"".join((body[: span[0]], msgspec.json.encode(model), body[span[1] :]))


def _span(body: bytes) -> tuple[int, int] | None:
    """Where the value is. The decoder returns it as a view into the body, so its place is a difference of addresses."""
    try:
        raw = _decoder.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    value = bytes(raw)
    if not value.startswith(b'"'):
        return None
    start = _address(raw) - _address(body)
    if body[start : start + len(value)] != value:
        raise ValueError("the JSON decoder returned a copy, not a view")
    return start, start + len(value)


def _address(data: bytes | msgspec.Raw) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)
