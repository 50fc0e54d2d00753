"""Finds the samples of a metric family in a page of bytes, without parsing the rest of it. Knows no engine.

The page is in the Prometheus text format, perhaps cut, perhaps not that at all: any bytes will do, nothing is raised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Family:
    name: bytes
    label: bytes = b""  # as it stands between the braces; where one name serves several meanings


@dataclass(frozen=True, slots=True)
class Sample:
    labels: bytes  # with the opening brace, without the closing one
    value: float | None  # None: no finite number


class Page:
    """One page; a family that is asked for twice is looked for once."""

    __slots__ = ("_found", "_text")

    def __init__(self, text: bytes) -> None:
        # so that the first line begins like every other
        self._text = text if text.startswith(b"\n") else b"\n" + text
        self._found: dict[Family, list[Sample]] = {}

    def samples(self, family: Family) -> list[Sample]:
        """All samples of a family, in their order."""
        found = self._found.get(family)
        if found is None:
            found = self._found[family] = list(_samples(self._text, family))
        return found


def _samples(text: bytes, family: Family) -> Iterator[Sample]:
    """The format wants the samples of a family in one run of lines, so the search ends with the run."""
    start = b"\n" + family.name
    at, met = text.find(start), False
    while at >= 0:
        end = text.find(b"\n", at + 1)
        rest = text[at + len(start) : end if end >= 0 else len(text)]
        # anything else after the name is a longer name, as num_requests_waiting_by_reason is
        if rest[:1] in (b"{", b" ", b"\t"):
            met = True
            labels, _, tail = rest.rpartition(b"}")
            if family.label in labels:
                yield Sample(labels, _number(tail))
        at = text.find(start, at + 1, end + len(start) if met else len(text)) if end >= 0 else -1


def _number(tail: bytes) -> float | None:
    """The value in what follows the labels; a time stamp may come after it."""
    fields = tail.split()
    if not fields or _NUMBER.fullmatch(fields[0]) is None:
        return None
    return float(fields[0])


def label(sample: Sample, name: str) -> str | None:
    """The value of a label; None if the sample has no such label."""
    found = _label_pattern(name).search(sample.labels)
    if found is None:
        return None
    return _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], found[1].decode("utf-8", "replace"))


@lru_cache(maxsize=64)
def _label_pattern(name: str) -> re.Pattern[bytes]:
    return re.compile(rb'[{,]\s*%s\s*=\s*"((?:[^"\\]|\\.)*)"' % name.encode())


def without(labels: bytes, names: Sequence[str]) -> bytes:
    """The labels but for some, to compare them with others of the same family."""
    for name in names:
        labels = _label_pattern(name).sub(b"", labels)
    return labels
