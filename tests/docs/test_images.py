"""The images of the documentation: they are there, small, and drawn from values."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from docs import plot

ROOT = Path(__file__).parents[2]
MOST_BYTES = 300_000
PNG = b"\x89PNG\r\n\x1a\n"


def size(file: Path) -> tuple[int, int]:
    data = file.read_bytes()
    assert data.startswith(PNG)
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.parametrize("page", ["README.md", "docs/live-page.md", "docs/top.md"])
def test_every_image_that_a_page_shows_is_there_and_small(page: str) -> None:
    text = (ROOT / page).read_text()
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    for first, second in shown:
        file = (ROOT / page).parent / (first or second)
        assert size(file) > (600, 300)
        assert file.stat().st_size < MOST_BYTES


def test_the_first_page_shows_the_live_page_and_the_plot() -> None:
    text = (ROOT / "README.md").read_text()
    for name in ("live-page-light.png", "live-page-dark.png", "contest.png"):
        assert f"docs/images/{name}" in text


def test_a_plot_is_drawn_from_what_was_recorded(tmp_path: Path) -> None:
    quiet = plot.Arm("a", [0, 1, 2], {"pod-1": [0, None, 0]}, [], (1, 2))
    busy = plot.Arm("a", [0, 1, 2], {"pod-1": [5, None, 9]}, [(0.5, 0.05, "pod-1"), (1.5, 3.0, "pod-1")], (1, 2))
    for name, arm in (("quiet", quiet), ("busy", busy)):
        plot.draw([arm, arm], {"pod-1": "pod-1 (slow)"}, tmp_path / f"{name}.png")
    wide = round(plot.WIDTH_INCHES * plot.DOTS)
    assert size(tmp_path / "busy.png")[0] == size(tmp_path / "quiet.png")[0] == wide
    assert (tmp_path / "busy.png").read_bytes() != (tmp_path / "quiet.png").read_bytes()
