"""Which Sonde this is."""

from __future__ import annotations

import importlib.metadata


def version() -> str:
    try:
        return importlib.metadata.version("sonde")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
