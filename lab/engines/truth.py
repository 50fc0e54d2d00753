"""The engine's own log of its requests: what really happened, for whoever measures the same from elsewhere.

One JSON object a line. Times are CLOCK_MONOTONIC nanoseconds, taken right before the call that writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

COMPLETED = "completed"
REFUSED = "refused"
CLIENT_ABORTED = "client_aborted"
UNFINISHED = "unfinished"


@dataclass(slots=True)
class Record:
    """One request. None where something did not happen."""

    pod: str
    peer_port: int
    path: str
    request_id: str | None
    first_byte_ns: int
    request_ns: int  # the request was whole
    stream: bool = False
    prompt_tokens: int = 0
    output_tokens: int = 0
    status: int | None = None
    header_ns: int | None = None
    comment_ns: list[int] = field(default_factory=list)
    data_ns: list[int] = field(default_factory=list)  # each write of an event that carries data, or of a whole body
    done_ns: int | None = None  # the write of `data: [DONE]`
    end_ns: int | None = None  # the write that ends the response, or when the client's end was seen
    bytes: int = 0  # of the response, header and framing included
    outcome: str = UNFINISHED

    @property
    def first_data_ns(self) -> int | None:
        return self.data_ns[0] if self.data_ns else None


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that befell the engine: `hang` began, `resume`, or `knobs` were turned."""

    pod: str
    what: str
    at_ns: int


class Log:
    """Writes lines as they come; a reader sees whole lines only."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, entry: Record | Happening) -> None:
        self._out.write(json.dumps(asdict(entry), separators=(",", ":")) + "\n")
        self._out.flush()


def read(path: Path) -> tuple[list[Record], list[Happening]]:
    """All whole lines of a log, in the order they were written: requests when they ended."""
    return parse(path.read_text().splitlines())


def parse(lines: Iterable[str]) -> tuple[list[Record], list[Happening]]:
    records, happenings = [], []
    for line in lines:
        entry: dict[str, Any] = json.loads(line)
        if "what" in entry:
            happenings.append(Happening(**entry))
        else:
            records.append(Record(**entry))
    return records, happenings
