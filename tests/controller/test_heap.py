from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# pages that the kernel had to give for bodies that come and go; each touches some two hundred
FAULTS = """
import gc, resource, sys
from controller import heap
if sys.argv[1] == "settled":
    assert heap.settle() and gc.get_freeze_count() > 1000
def request():
    return [bytes(200_000) + b"x" for _ in range(4)]
for _ in range(5):
    request()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    request()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_memory_for_bodies_is_kept_from_request_to_request() -> None:
    assert faults("settled") < faults("as it is") / 10
