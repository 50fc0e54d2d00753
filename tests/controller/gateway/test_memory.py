"""What files say of the memory that may be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.gateway.memory import allowed_bytes

V2 = {"proc/self/cgroup": "0::/system.slice/sonde.service\n"}
TOTAL = {"proc/meminfo": "MemTotal:        2048 kB\nMemFree: 1 kB\n"}
OWN, PARENT = "groups/system.slice/sonde.service/memory.max", "groups/system.slice/memory.max"


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({}, None),
        (TOTAL, 2 << 20),
        (TOTAL | {"proc/self/cgroup": "0::/\n", "groups/memory.max": "1000\n"}, 1000),
        (TOTAL | V2 | {OWN: "max\n", PARENT: "5000\n"}, 5000),
        (TOTAL | V2 | {OWN: "4000\n", PARENT: "5000\n"}, 4000),
        (V2 | {"groups/memory.max": "max\n"}, None),
        (TOTAL | {"proc/self/cgroup": "3:memory:/docker/x\n", "groups/memory/memory.limit_in_bytes": "900\n"}, 900),
        (TOTAL | {"proc/self/cgroup": "3:cpu,memory:/a\n", "groups/memory/a/memory.limit_in_bytes": "9\n"}, 9),
        (TOTAL | {"proc/self/cgroup": "0::/../x\n", "memory.max": "1\n"}, 2 << 20),
    ],
)
def test_the_lowest_limit_counts(tmp_path: Path, files: dict[str, str], allowed: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert allowed_bytes(tmp_path / "groups", tmp_path / "proc") == allowed


def test_this_machine_says_something() -> None:
    assert (allowed_bytes() or 0) > 1 << 20
