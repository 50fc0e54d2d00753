"""The Prometheus text format: families of metrics as values, and their samples as the lines of a page.

Owns escaping, the form of numbers and the shape of histograms, so that whatever a label holds the page stays valid;
refuses to know what is measured. Both daemons write their pages with it: a page of thousands of samples is filled in
from one template a family, which costs a tenth of what building an object for each sample does. Templates are bytes:
numbers go into them for a third of what they cost in text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# a NUL is valid UTF-8 but ends the page for Prometheus's own parser
_LABEL_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\0": "\N{REPLACEMENT CHARACTER}"})
_LABELS = "\0"  # stands for the labels while a template is made
_HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """What a metric is called, what it means and how its samples are told apart."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()  # of a histogram, without the infinite one


@dataclass(frozen=True, slots=True)
class Distribution:
    """One histogram's samples."""

    counts: Sequence[int]  # at or below each bound, then all: one more than there are bounds
    sum: float


def counter(name: str, text: str, *labels: str) -> Family:
    return Family(name, Kind.COUNTER, text, labels)


def gauge(name: str, text: str, *labels: str) -> Family:
    return Family(name, Kind.GAUGE, text, labels)


def histogram(name: str, text: str, bounds: Sequence[float], *labels: str) -> Family:
    return Family(name, Kind.HISTOGRAM, text, labels, tuple(bounds))


@dataclass(frozen=True)
class Labels:
    """Names and values as they stand between braces. For labels that many families share: most of a page's time would
    go into escaping the same names again."""

    text: str

    @cached_property
    def hole(self) -> bytes:
        """As a part of a template that numbers are put into."""
        return encoded(self.text).replace(b"%", b"%%")

    def and_one(self, name: str, value: str) -> Labels:
        return Labels(f'{self.text},{name}="{escaped(value)}"')


Told = Sequence[str] | Labels  # label values in the family's order, or all of it made before
Values = Iterable[tuple[Told, float]]


def labels_of(names: Sequence[str], values: Sequence[str]) -> Labels:
    return Labels(",".join([f'{name}="{escaped(value)}"' for name, value in zip(names, values, strict=True)]))


def written(family: Family, values: Values) -> str:
    """A counter's or gauge's lines, its head included."""
    opening = family.name + ("{" if family.labels else "")
    closing = "} " if family.labels else " "
    lines = [
        f"{opening}{_text(family, labels)}{closing}{value if type(value) is int else number(value)}\n"
        for labels, value in values
    ]
    return _head(family) + "".join(lines)


def written_counts(family: Family, told: Sequence[Labels], counts: Mapping[str, Sequence[int]]) -> str:
    """A counter of many: `counts` has a number for each of `told`, by the value of the family's last label.

    "" is the name of the numbers of a family whose labels `told` has all.
    """
    lines = [_counts(family, told, kind, numbers) for kind, numbers in counts.items()] if told else []
    return _head(family) + b"".join(lines).decode()


def _counts(family: Family, told: Sequence[Labels], kind: str, numbers: Sequence[int]) -> bytes:
    opening = f"{family.name}{{".encode()
    last = labels_of(family.labels[-1:], (kind,)).hole if kind else b""
    closing = (b"," + last if last else b"") + b"} %d\n"
    lines = opening + (closing + opening).join([labels.hole for labels in told]) + closing
    return lines % tuple(numbers)


def written_histogram(family: Family, values: Iterable[tuple[Told, Distribution]]) -> str:
    parts = _template(family)
    lines = []
    for labels, spread in values:
        told = labels if isinstance(labels, Labels) else labels_of(family.labels, labels)
        numbers = (*spread.counts, encoded(number(spread.sum)), spread.counts[-1])
        lines.append(told.hole.join(parts) % numbers)
    return _head(family) + b"".join(lines).decode()


def _text(family: Family, labels: Told) -> str:
    return labels.text if isinstance(labels, Labels) else labels_of(family.labels, labels).text


def escaped(text: str) -> str:
    """A label's value as it stands between its quotes."""
    return text.translate(_LABEL_ESCAPES)


def number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))  # a bool is a number too
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def encoded(piece: str) -> bytes:
    """The bytes of a part of a page; half a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
    return piece.encode("utf-8", "replace")


def cumulative(counts: Iterable[int]) -> list[int]:
    """Of counts by bucket, the samples up to each bucket's bound."""
    total, up_to = 0, []
    for count in counts:
        total += count
        up_to.append(total)
    return up_to


def bound_text(bound: float) -> str:
    return repr(float(bound)).removesuffix(".0")


def _head(family: Family) -> str:
    text = family.help.translate(_HELP_ESCAPES)
    return f"# HELP {family.name} {text}\n# TYPE {family.name} {family.kind}\n"


def _template(family: Family) -> list[bytes]:
    """The lines of one histogram with a hole for each number, in the parts that its labels stand between."""
    comma, braces = ("," if family.labels else ""), (f"{{{_LABELS}}}" if family.labels else "")
    labels = _LABELS if family.labels else ""
    lines = [
        f'{family.name}_bucket{{{labels}{comma}le="{text}"}} %d\n' for text in (*map(bound_text, family.bounds), "+Inf")
    ]
    whole = "".join((*lines, f"{family.name}_sum{braces} %b\n", f"{family.name}_count{braces} %d\n"))
    return [part.encode() for part in whole.split(_LABELS)]
