"""`sonde-lab compare` as people run it: one short scenario through real gateways."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.machine import substrate
from tests.gateway.test_demo import left_of, need_gateway

LIMIT_S = 100


@pytest.fixture
def name() -> Iterator[str]:
    """A lab of our own, gone afterwards whatever the test found."""
    lab = f"sonde-c{os.getpid()}"
    try:
        yield lab
    finally:
        substrate.clear(lab)


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab", "compare", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_two_policies_get_the_same_requests_and_all_are_answered(name, tmp_path):
    need_gateway()
    short = ("--duration", "2", "--rounds", "1", "--pods", "3", "--rate", "10")
    which = ("--scenarios", "straggler", "--policies", "sonde,round-robin")
    done = compare("--name", name, *short, *which, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| straggler \| (\S+) \| (\d+) \| (\d+) \|", done.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["sonde", "round-robin"]
    assert rows[0][1:] == rows[1][1:]  # as many requests
    assert rows[0][2] == "0"  # and none failed
    samples = json.loads((tmp_path / "compare.json").read_text())
    assert [len(one["ttft_s"]) for one in samples] == [int(rows[0][1])] * 2
    assert (tmp_path / "compare.md").read_text() in done.stdout
    assert left_of(name) == []


def test_one_that_is_stopped_shows_what_it_has(name):
    need_gateway()
    short = ("--duration", "2", "--rounds", "50", "--pods", "3", "--rate", "5")
    which = ("--scenarios", "overload", "--policies", "sonde", "--substrate", "loopback")
    command = [sys.executable, "-m", "lab", "compare", "--name", name, *short, *which]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            first = next(line for line in running.stdout if "round 1:" in line)
            running.send_signal(signal.SIGINT)
            rest, _ = running.communicate(timeout=LIMIT_S)
        finally:
            running.kill()
    assert running.returncode == 130, first + rest
    assert len(re.findall(r"^\| overload \| sonde \| \d+ \|", rest, re.MULTILINE)) == 1
    assert re.search(r"^\| overload \| sonde \| \d+ %", rest, re.MULTILINE)
    assert rest.rstrip().endswith("sonde-lab: stopped")
    assert left_of(name) == []


def test_no_arm_begins_after_the_limit(name):
    need_gateway()
    short = ("--duration", "2", "--rounds", "50", "--pods", "3", "--rate", "5", "--limit", "1")
    which = ("--scenarios", "homogeneous", "--policies", "round-robin", "--substrate", "loopback")
    done = compare("--name", name, *short, *which)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the limit of 1 s is reached; 49 arms are left out" in done.stdout
    assert left_of(name) == []
