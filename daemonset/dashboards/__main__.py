"""Writes the dashboards' JSON beside this file.

python -m daemonset.dashboards
"""

from __future__ import annotations

from pathlib import Path

from daemonset.dashboards.agent import AGENT
from daemonset.dashboards.fleet import FLEET
from daemonset.dashboards.grafana import written
from daemonset.dashboards.node import NODE
from daemonset.dashboards.picker import PICKER

FOLDER = Path(__file__).parent
ALL = {"fleet": FLEET, "node": NODE, "picker": PICKER, "agent": AGENT}


def pages() -> dict[Path, str]:
    return {FOLDER / f"{name}.json": written(dashboard) for name, dashboard in ALL.items()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
