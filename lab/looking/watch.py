"""What the controller's metrics page says of each pod, as the rows of the live table. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.looking.columns import aligned

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: Mapping[str, str]
    value: float


def samples(page: str) -> list[Sample]:
    """The samples of a Prometheus text page; lines that are none are passed over."""
    found = []
    for line in page.splitlines():
        match = None if line.startswith("#") else _SAMPLE.match(line)
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        found.append(Sample(match[1], dict(_LABEL.findall(match[2] or "")), value))
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """One pod as the controller sees it; None is unknown."""

    pod: str
    in_flight: float | None
    waiting: float | None
    source: str | None  # what the count was taken from
    stalled: bool
    ttft_s: float | None
    gap_s: float | None
    sent: int  # requests of the arm that came to it

    @property
    def streaming(self) -> float | None:
        """Requests whose answer has begun; unknown where the kernel does not count."""
        if self.in_flight is None or self.waiting is None or self.source != "kernel":
            return None
        return max(0.0, self.in_flight - self.waiting)


def rows(page: str, pods: Iterable[str], sent: Mapping[str, int]) -> list[Row]:
    """One row a pod; `sent` is what the load generator knows of where its requests went."""
    by_pod: dict[str, list[Sample]] = {}
    for sample in samples(page):
        if (pod := sample.labels.get("pod") or sample.labels.get("endpoint_pod")) is not None:
            by_pod.setdefault(pod, []).append(sample)
    return [_row(pod, by_pod.get(pod, []), sent.get(pod, 0)) for pod in pods]


HEADS = ("pod", "requests", "in flight", "waiting", "streaming", "TTFT", "gap", "counted by", "")


def lines(table: Sequence[Row], notes: Mapping[str, str]) -> list[str]:
    """The rows under their headings; `notes` says what is particular about a pod."""
    cells = [HEADS, *(_cells(row, notes.get(row.pod, "")) for row in table)]
    return aligned(cells, [column in (0, 7, 8) for column in range(len(HEADS))])


def short(table: Iterable[Row]) -> str:
    """One line for a pipe: requests and in flight of each pod."""
    return "; ".join(
        f"{row.pod} {row.sent} sent, {_count(row.in_flight)} in flight{' STALLED' if row.stalled else ''}"
        for row in table
    )


def _cells(row: Row, note: str) -> tuple[str, ...]:
    return (
        row.pod,
        str(row.sent),
        _count(row.in_flight),
        _count(row.waiting),
        _count(row.streaming),
        _time(row.ttft_s),
        _time(row.gap_s),
        row.source or "?",
        "STALLED" + (f" ({note})" if note else "") if row.stalled else note,
    )


def _count(value: float | None) -> str:
    return "?" if value is None or math.isnan(value) else f"{value:.0f}"


def _time(value_s: float | None) -> str:
    return "?" if value_s is None or math.isnan(value_s) else f"{value_s * 1e3:.0f} ms"


def _row(pod: str, found: Sequence[Sample], sent: int) -> Row:
    def total(name: str, source: str | None = None) -> float | None:
        values = [
            sample.value for sample in found if sample.name == name and source in (None, sample.labels.get("source"))
        ]
        return sum(values) if values else None

    source, in_flight = _best_count(total)
    return Row(
        pod=pod,
        in_flight=in_flight,
        waiting=total("sonde_controller_endpoint_waiting"),
        source=source,
        stalled=bool(total("sonde_controller_endpoint_stalled")),
        ttft_s=total("sonde_controller_endpoint_usual_ttft_seconds"),
        gap_s=total("sonde_controller_endpoint_usual_gap_seconds"),
        sent=sent,
    )


def _best_count(total: Callable[[str, str], float | None]) -> tuple[str | None, float | None]:
    for source in ("kernel", "engine", "own"):
        if (count := total("sonde_controller_endpoint_in_flight", source)) is not None:
            return source, count
    return None, None
