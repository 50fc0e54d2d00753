"""What became of requests as lines of JSON, for whoever reads them in another process."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from lab.contests.load import Result
from lab.contests.workload import Request


def write(file: Path, came: Iterable[Result]) -> None:
    file.write_text("".join(json.dumps(asdict(result)) + "\n" for result in came))


def read(file: Path) -> list[Result]:
    """Raises OSError or ValueError."""
    return [_result(json.loads(line)) for line in file.read_text().splitlines()]


def _result(fields: dict[str, object]) -> Result:
    request, gaps_s = fields.pop("request"), fields.pop("gaps_s")
    assert isinstance(request, dict)
    assert isinstance(gaps_s, list)
    return Result(request=Request(**request), gaps_s=tuple(gaps_s), **fields)  # type: ignore[arg-type]
