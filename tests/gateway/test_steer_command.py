"""`sonde-lab steer` as people run it: what it prints, and that it leaves nothing, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.direct import ground
from tests.gateway.test_demo import left_of, need_kernel

LIMIT_S = 110


@pytest.fixture
def name() -> Iterator[str]:
    """A lab of our own, gone afterwards whatever the test found."""
    lab = f"sonde-r{os.getpid()}"
    need_kernel(lab)
    try:
        yield lab
    finally:
        ground.clear(lab)


def left(lab: str) -> list[str]:
    return [found for of in (lab, *(ground.pins_of(lab, node).root.name for node in range(3))) for found in left_of(of)]


def test_each_arm_has_the_same_requests_and_a_row(name: str, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    short = ("--pods", "3", "--rate", "12", "--warmup", "0.5", "--duration", "1.5")
    command = [sys.executable, "-m", "lab", "steer", "--name", name, *short, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (kube-proxy|steer) \| (\d+) \| (\d+) \|", done.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["kube-proxy", "steer"]
    assert rows[0][1:] == rows[1][1:]  # as many requests, and none failed
    assert rows[0][2] == "0"
    assert out.read_text() in done.stdout
    assert left(name) == []


def test_a_signal_ends_it_and_nothing_stays(name: str) -> None:
    command = [sys.executable, "-u", "-m", "lab", "steer", "--name", name, "--pods", "3", "--arms", "kube-proxy"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert child.stdout is not None
        assert "compiling" in child.stdout.readline()  # the ground is there
        assert left(name) != []
        child.send_signal(signal.SIGTERM)
        said, _ = child.communicate(timeout=LIMIT_S)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    assert (child.returncode, said.splitlines()[-1]) == (130, "sonde-lab: stopped"), said
    assert "Traceback" not in said
    assert left(name) == []


def test_a_place_for_the_table_that_is_none_is_said_before_anything_is_made(tmp_path: Path) -> None:
    out = str(tmp_path / "none" / "table.md")
    command = [sys.executable, "-m", "lab", "steer", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stdout.strip()) == (1, f"sonde-lab: --out {out}: there is no such folder")
