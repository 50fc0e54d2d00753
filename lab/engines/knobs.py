"""What can be turned on a simulated engine, at start and while it runs. Pure: the engine does the turning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


class KnobError(Exception):
    """A turn nobody knows or a value it cannot have; the text says which, and what would do."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """The lasting ones. `keep_alive_s` is the interval of SSE comments before the first token, None for none."""

    slow: float = 1.0
    header_early: bool = True
    keep_alive_s: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """The knobs after a turn, and what happens once: the step loop stops for a while, or the process exits."""

    knobs: Knobs
    hang_s: float | None = None
    crash: bool = False


def turn(knobs: Knobs, body: bytes) -> Turn:
    """Reads `{"slow": 2.5, "header_early": false, "keep_alive_s": 1, "hang_s": 5, "crash": true}`, each optional.

    Raises KnobError.
    """
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise KnobError(f"got no JSON: {error}") from None
    if not isinstance(asked, dict):
        raise KnobError(f"got {type(asked).__name__}, expected an object")
    result = Turn(knobs)
    for name, value in asked.items():
        result = _one(result, name, value)
    return result


def describe(knobs: Knobs) -> Mapping[str, Any]:
    return {name: getattr(knobs, name) for name in Knobs.__slots__}


def _one(before: Turn, name: str, value: Any) -> Turn:
    knobs = before.knobs
    if name == "slow":
        return replace(before, knobs=replace(knobs, slow=_positive(name, value)))
    if name == "header_early":
        return replace(before, knobs=replace(knobs, header_early=_flag(name, value)))
    if name == "keep_alive_s":
        return replace(before, knobs=replace(knobs, keep_alive_s=None if value is None else _positive(name, value)))
    if name == "hang_s":
        return replace(before, hang_s=_positive(name, value))
    if name == "crash":
        return replace(before, crash=_flag(name, value))
    raise KnobError(f"got {name!r}, expected one of slow, header_early, keep_alive_s, hang_s, crash")


def _positive(name: str, value: Any) -> float:
    # chained comparison also refuses NaN
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise KnobError(f"{name}: got {value!r}, expected a number above 0")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise KnobError(f"{name}: got {value!r}, expected true or false")
    return value
