"""What signals do to work that is under way, in a process of its own: handlers are the whole process's."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import asyncio
from lab.machine import ending

async def work():
    try:
        print("works", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0)  # the loop goes on while things are taken down
        print("taken down", flush=True)

ending.obey()
try:
    ending.run(work())
except (KeyboardInterrupt, asyncio.CancelledError):
    ending.ignore()
    print("stopped", flush=True)
    input()
"""


def _ignored() -> None:
    """As a shell starts what is in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_is_cancelled_and_nothing_interrupts_what_follows(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT)
    _ignored()  # inherited by the child
    try:
        child = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=-1, stdout=-1, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "works\n"
        child.send_signal(number)
        assert [child.stdout.readline() for _ in range(2)] == ["taken down\n", "stopped\n"]
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGTERM)
        child.communicate("\n", timeout=30)
    assert child.returncode == 0
