"""Pods and cgroups to owners in the maps, and what is said of pods that cannot be measured."""

from __future__ import annotations

import logging

import pytest

from agent.placing.placement import SAY_MISSING_AFTER_S, SEARCH_OFTEN_S, Placement
from agent.placing.pods import PodUid, ServingPod
from agent.placing.slots import Key, Owner
from agent.view import Place
from tests.agent.maps import MemoryMaps, ids

UID = "11111111-2222-3333-4444-555555555555"

OTHER = "99999999-2222-3333-4444-555555555555"
PLACE = Place("default", "pod-1", UID, 8000)


def serving(name: str = "pod-1", uid: str | None = UID) -> ServingPod:
    return ServingPod("default", name, PodUid(uid) if uid else None, None, (8000,), uid)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_pod_with_cgroups_is_counted() -> None:
    maps = MemoryMaps()
    assert Placement(maps).update([serving()], {UID: ids(10, 11)}, 0) == {PLACE: Owner(0, 1)}
    assert maps.entries == {Key(10, 8000): Owner(0, 1), Key(11, 8000): Owner(0, 1)}


def test_the_programs_are_told_of_every_change_and_of_nothing_else() -> None:
    maps = MemoryMaps()
    placement = Placement(maps)
    placement.update([serving()], {UID: ids(10)}, 0)
    before = maps.epoch
    placement.update([serving()], {UID: ids(10)}, 1)
    assert maps.epoch == before
    placement.update([], {}, 2)
    assert maps.epoch > before


def test_a_new_agent_tells_the_programs_to_look_again() -> None:
    """The one before may have died after it put a key and before it said so."""
    maps = MemoryMaps(entries={Key(10, 8000): Owner(0, 4)}, by_slot=[4] + [0] * 7)
    assert Placement(maps).update([serving()], {UID: ids(10)}, 0) == {PLACE: Owner(0, 4)}
    assert (maps.epoch, maps.resets) == (2, [])


def test_a_pod_without_cgroup_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    placement = Placement(MemoryMaps())
    for second in range(20):
        assert placement.update([serving()], {}, second) == {}
    (said,) = warnings(caplog)
    assert "default/pod-1" in said
    assert UID in said


def test_a_pod_that_is_only_early_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    placement = Placement(MemoryMaps())
    placement.update([serving()], {}, 0)
    placement.update([serving()], {UID: ids(10)}, SAY_MISSING_AFTER_S)
    assert warnings(caplog) == []


def test_a_pod_without_uid_is_said_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    placement = Placement(MemoryMaps())
    placement.update([serving(uid=None)], {}, 0)
    placement.update([serving(uid=None)], {}, 5)
    (said,) = warnings(caplog)
    assert "metadata.uid" in said


def test_a_pod_that_loses_its_cgroup_again_is_said_again(caplog: pytest.LogCaptureFixture) -> None:
    placement = Placement(MemoryMaps())
    for second, cgroups in enumerate([{}, {}, {}, {UID: ids(10)}, {}, {}, {}]):
        placement.update([serving()], cgroups, second)
    assert len(warnings(caplog)) == 2


def test_a_missing_cgroup_is_looked_for_often_but_not_for_ever() -> None:
    placement = Placement(MemoryMaps())
    placement.update([serving()], {}, 0)
    assert placement.searching(1)
    assert not placement.searching(SEARCH_OFTEN_S)


def test_too_few_slots_are_said_once_and_so_is_their_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    placement = Placement(MemoryMaps(capacity=1))
    pods = [serving("pod-1", UID), serving("pod-2", OTHER)]
    cgroups = {UID: ids(10), OTHER: ids(20)}
    for second in range(3):
        assert len(placement.update(pods, cgroups, second)) == 1
    assert len(warnings(caplog)) == 1
    placement.update(pods[:1], cgroups, 4)
    assert "every endpoint has a slot again" in caplog.text


def test_of_two_pods_with_one_uid_the_first_is_counted() -> None:
    owners = Placement(MemoryMaps()).update([serving("pod-1"), serving("pod-2")], {UID: ids(10)}, 0)
    assert set(owners) == {PLACE}


def test_a_slot_with_open_connections_outlives_its_pod() -> None:
    maps = MemoryMaps(capacity=1)
    placement = Placement(maps)
    placement.update([serving()], {UID: ids(10)}, 0)
    placement.update([], {}, 1)
    maps.open = {0: 1}
    new = [serving("pod-2", OTHER)]
    assert placement.update(new, {OTHER: ids(20)}, 2) == {}
    maps.open = {0: 0}
    assert placement.update(new, {OTHER: ids(20)}, 3) == {Place("default", "pod-2", OTHER, 8000): Owner(0, 2)}


def test_the_number_of_pods_is_said_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    placement = Placement(MemoryMaps())
    for pods in ([], [], [serving()], [serving()]):
        placement.update(pods, {UID: ids(10)}, 0)
    assert [r.getMessage()[-1] for r in caplog.records if "a pool selects" in r.getMessage()] == ["0", "1"]
