"""Beside other programs, over other layouts, at the cgroup that is meant: what attaching does and does not touch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel import bpfsys, cgroups, layout, loader, pins
from agent.kernel.pins import Pins
from tests.kernel.conversation import Bench
from tests.kernel.live import Node, post, read_answer, remove_cgroup, running_node

PASS = bytes.fromhex("b7000000010000009500000000000000")  # r0 = 1; exit


@pytest.fixture(scope="module")
def node(bench: Bench) -> Iterator[Node]:
    with running_node("attach") as node:
        yield node


def test_a_map_of_another_shape_is_refused_and_nothing_is_lost(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    path = node.pins.map("counters")
    ours = bpfsys.open_pinned(path)
    path.unlink()
    other = bpfsys.map_create(bpfsys.MAP_TYPE_ARRAY, 4, 8, 1, bpfsys.F_MMAPABLE)
    bpfsys.pin(other, path)
    before = node.hook_programs()
    try:
        assert loader.load(node.pins, node.cgroup) == 1
        assert "run 'sonde-agent unload', then load again" in capsys.readouterr().out
        assert node.hook_programs() == before
    finally:
        path.unlink()
        bpfsys.pin(ours, path)
        os.close(ours)
        os.close(other)


def test_pins_of_another_layout_go_and_programs_of_others_stay(node: Node) -> None:
    """As an agent of the network attaches its own, and as an older version of ours left them."""
    folder = os.open(node.cgroup, os.O_RDONLY)
    foreign, older = (bpfsys.packet_program(PASS, name, pins.EGRESS) for name in ("foreign", "older"))
    theirs, left = (bpfsys.link_create(program, folder, pins.EGRESS) for program in (foreign, older))
    old = node.pins.root / f"v{layout.LAYOUT - 1}"
    old.mkdir()
    bpfsys.pin(left, old / "link_egress")
    os.close(left)
    identities = [bpfsys.program_info(program).id for program in (foreign, older)]
    try:
        assert set(identities) <= set(bpfsys.programs_attached(folder, pins.EGRESS))
        assert loader.load(node.pins, node.cgroup) == 0
        assert not old.exists()
        assert identities[1] not in bpfsys.programs_attached(folder, pins.EGRESS)
        served = node.serve()
        with served.connect() as connection:
            connection.sendall(post("/v1/plain"))
            read_answer(connection)
        assert (served["completed"], served["in_flight"]) == (1, 0)
        assert loader.unload(node.pins) == 0
        # the kernel detaches a moment after a link's last name is gone
        served.until(lambda: bpfsys.programs_attached(folder, pins.EGRESS) == identities[:1])
        assert not node.pins.follows_calls()
        assert not node.pins.root.exists()
    finally:
        for fd in (theirs, foreign, older, folder):
            os.close(fd)


def test_the_default_cgroup_is_the_one_of_pods_where_there_is_one(tmp_path: Path) -> None:
    assert cgroups.default_attach_point(tmp_path) == tmp_path
    for name in ("kubelet/kubepods", "kubepods.slice"):
        (tmp_path / name).mkdir(parents=True)
        assert cgroups.default_attach_point(tmp_path) == tmp_path / name


def test_two_loaders_at_once_attach_everything_once(bench: Bench) -> None:
    """One wins; the other says so, or comes late enough to find its work done."""
    where = Pins(Path(f"/sys/fs/bpf/sonde-test-two-{os.getpid()}"))
    cgroup = cgroups.root() / f"sonde-test-two-{os.getpid()}"
    cgroup.mkdir()
    command = [sys.executable, "-m", "agent", "load", "--pin-root", str(where.root), "--attach-cgroup", str(cgroup)]
    try:
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=100)[0] for process in both]
        assert 0 in [process.returncode for process in both]
        for process, text in zip(both, said, strict=True):
            assert process.returncode == 0 or "another load or unload holds" in text
        folder = os.open(cgroup, os.O_RDONLY)
        attached = [len(bpfsys.programs_attached(folder, kind)) for kind in pins.LINKS.values()]
        os.close(folder)
        assert attached == [1, 1, 1]
    finally:
        loader.unload(where)
        remove_cgroup(cgroup)
