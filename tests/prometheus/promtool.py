"""The door to Debian's Prometheus and its tool: whether they are here, and where."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conftest import skip_or_fail

ROOT = Path(__file__).parents[2]


def binary(name: str) -> Path:
    """Of `prometheus` or `promtool`: what make setup put beside the code, or the machine's own; skips without."""
    local = ROOT / ".prometheus" / name
    found = str(local) if local.exists() else shutil.which(name)
    if found is None:
        skip_or_fail("prometheus", f"there is no {name}: run 'make setup-dev', or install Debian's prometheus")
    assert found is not None
    return Path(found)
