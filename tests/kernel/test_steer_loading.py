"""The programs that steer come and go beside those that measure, and only where they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agent.kernel import bpfsys, check, loader, steer_pins
from agent.kernel.steer_pins import SteerPins
from agent.steering.maps import SteerMaps
from tests.kernel.conversation import Bench
from tests.kernel.live import Node, running_node
from tests.kernel.pods import wait_until


@pytest.fixture(scope="module")
def node(bench: Bench) -> Iterator[Node]:
    with running_node("steer-load") as node:
        yield node


def steering_programs(node: Node) -> int:
    folder = os.open(node.cgroup, os.O_RDONLY)
    try:
        kinds = [kind for kind in steer_pins.LINKS.values() if kind != steer_pins.SOCK_OPS]
        return sum(len(bpfsys.programs_attached(folder, kind)) for kind in kinds)
    finally:
        os.close(folder)


def test_steering_is_loaded_only_where_asked_for_keeps_its_counts_and_goes_again(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not SteerPins(node.pins).folder.exists()
    assert steering_programs(node) == 0
    check.main(node.pins)
    assert "steering: not loaded; 'sonde-agent load --steer' does" in capsys.readouterr().out
    measuring = node.hook_programs()

    assert loader.load(node.pins, node.cgroup, steer=True) == 0
    assert steering_programs(node) == 4
    maps = SteerMaps(node.pins)
    maps.pools["steered"][3] = 77
    maps.close()
    capsys.readouterr()
    assert loader.load(node.pins, node.cgroup, steer=True) == 0
    assert "connect4: already attached" in capsys.readouterr().out
    assert steering_programs(node) == 4
    again = SteerMaps(node.pins)
    assert int(again.pools["steered"][3]) == 77
    again.close()
    check.main(node.pins)
    assert "steering: getpeername4 " in capsys.readouterr().out

    assert loader.load(node.pins, node.cgroup) == 0
    assert "steering: taken away" in capsys.readouterr().out
    wait_until(lambda: steering_programs(node) == 0)
    wait_until(lambda: len(node.hook_programs()) == len(measuring))
    assert not SteerPins(node.pins).folder.exists()


def test_a_map_of_another_shape_is_refused_and_measuring_goes_on(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    steer = SteerPins(node.pins)
    steer.folder.mkdir()
    other = bpfsys.map_create(bpfsys.MAP_TYPE_ARRAY, 4, 16, 1, bpfsys.F_MMAPABLE)
    bpfsys.pin(other, steer.map("steer_control"))
    os.close(other)
    assert loader.load(node.pins, node.cgroup, steer=True) == 1
    said = capsys.readouterr().out
    assert "steer_control holds keys of 4 and values of 16 bytes" in said
    assert len(node.hook_programs()) == 3
    assert steering_programs(node) == 0
    assert loader.load(node.pins, node.cgroup) == 0
    assert not steer.folder.exists()


def test_unloading_takes_steering_along(node: Node) -> None:
    assert loader.load(node.pins, node.cgroup, steer=True) == 0
    assert loader.unload(node.pins) == 0
    assert not node.pins.root.exists()
    wait_until(lambda: steering_programs(node) == 0)
    wait_until(lambda: node.hook_programs() == [])
