"""How much memory this process may use, as its control groups and its machine say; reads files only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_TOTAL = re.compile(r"^MemTotal:\s+(\d+) kB$", re.MULTILINE)


def allowed_bytes(groups: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> int | None:
    """The lowest of all limits; None where nothing says."""
    limits = [limit for limit in map(_number, _limit_files(groups, proc)) if limit is not None]
    found = _TOTAL.search(_text(proc / "meminfo"))
    if found:
        limits.append(int(found[1]) << 10)
    return min(limits, default=None)


def _limit_files(groups: Path, proc: Path) -> Iterator[Path]:
    """A container's groups begin at its own; a service's limit may be any of its parents'."""
    for line in _text(proc / "self/cgroup").splitlines():
        number, kinds, own = line.split(":", 2)
        v2 = number == "0"
        if not v2 and "memory" not in kinds.split(","):
            continue
        root, name = (groups, "memory.max") if v2 else (groups / "memory", "memory.limit_in_bytes")
        group = root / own.strip("/")
        yield from (parent / name for parent in (group, *group.parents) if parent == root or root in parent.parents)
        yield root / name


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
