"""Pods that run before their manifest is known."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from agent.placing.placement import Placement
from agent.placing.pods import CgroupId, CgroupTree, PodUid, ServingPod
from agent.placing.slots import Endpoint, Key, Owner
from agent.placing.strangers import MOST_SLOTS, PATIENCE_S, RARELY_S, Strangers
from agent.view import Place
from tests.agent.maps import MemoryMaps, ids

UID = "3f1c7d52-9e0b-4a37-8f7e-0a1b2c3d4e5f"
OTHER = "99999999-2222-3333-4444-555555555555"


def listening(ports: Mapping[CgroupId, Collection[int]]) -> Strangers:
    def of(cgroups: Collection[CgroupId]) -> dict[int, frozenset[CgroupId]]:
        return {port: frozenset(cgroups) for cgroup in cgroups for port in ports.get(cgroup, ())}

    return Strangers(of)


def test_each_port_where_a_stranger_listens_is_an_endpoint_with_all_its_cgroups() -> None:
    strangers = listening({CgroupId(11): [8000, 9000]})
    found = strangers.look({UID: {CgroupId(10), CgroupId(11)}}, (), 0)
    assert found == {Endpoint(PodUid(UID), port): ids(10, 11) for port in (8000, 9000)}


def test_who_has_a_manifest_is_no_stranger() -> None:
    strangers = listening({CgroupId(11): [8000]})
    assert strangers.look({UID: {CgroupId(11)}}, {UID}, 0) == {}


def test_a_port_is_kept_while_its_server_is_away() -> None:
    ports = {CgroupId(11): [8000]}
    strangers = listening(ports)
    found = {UID: {CgroupId(11)}}
    before = strangers.look(found, (), 0)
    ports.clear()
    assert strangers.look(found, (), 1) == before
    assert strangers.look({}, (), 2) == {}


def test_a_stranger_is_waited_for_with_patience_not_for_ever() -> None:
    strangers = listening({CgroupId(11): [8000]})
    found = {UID: {CgroupId(11)}}
    assert strangers.look(found, (), 5)
    assert strangers.look(found, (), 4 + PATIENCE_S)
    assert not strangers.look(found, (), 5 + PATIENCE_S)


def test_who_has_been_there_for_long_is_asked_rarely() -> None:
    asked: list[float] = []

    def of(cgroups: Collection[CgroupId]) -> dict[int, frozenset[CgroupId]]:
        asked.append(now_s)
        return {}

    strangers = Strangers(of)
    for second in range(100):
        now_s = float(second)
        strangers.look({UID: {CgroupId(11)}}, (), now_s)
    assert asked[:31] == list(range(31))
    assert len(asked) < 31 + 70 / RARELY_S + 2


def test_strangers_hold_a_bounded_number_of_slots() -> None:
    strangers = listening({CgroupId(11): range(1000, 3000)})
    assert len(strangers.look({UID: {CgroupId(11)}}, (), 0)) == MOST_SLOTS


def test_what_was_counted_for_a_stranger_is_the_pods_when_it_is_named() -> None:
    maps = MemoryMaps()
    placement = Placement(maps)
    early = {Endpoint(PodUid(UID), 8000): ids(10), Endpoint(PodUid(UID), 9000): ids(10)}
    assert placement.update([], {}, 0, early) == {}
    assert maps.entries == {Key(CgroupId(10), 8000): Owner(0, 1), Key(CgroupId(10), 9000): Owner(1, 1)}
    pod = ServingPod("default", "p", PodUid(UID), None, (8000,), UID)
    assert placement.update([pod], {UID: ids(10)}, 1) == {Place("default", "p", UID, 8000): Owner(0, 1)}
    assert maps.entries == {Key(CgroupId(10), 8000): Owner(0, 1)}
    assert maps.resets == [0, 1]


def test_what_was_counted_for_a_static_pod_is_its_own_when_its_mirror_comes() -> None:
    """The cgroup is called after the hash of the pod's file, and the mirror has a uid that no cgroup knows."""
    maps, digest = MemoryMaps(), "0123456789abcdef0123456789abcdef"
    placement = Placement(maps)
    placement.update([], {}, 0, {Endpoint(PodUid(digest), 8000): ids(10)})
    pod = ServingPod("default", "p", PodUid(UID), None, (8000,), digest)
    assert placement.update([pod], {digest: ids(10, 11)}, 1) == {Place("default", "p", UID, 8000): Owner(0, 1)}
    assert maps.entries == {Key(CgroupId(cgroup), 8000): Owner(0, 1) for cgroup in (10, 11)}
    assert maps.resets == [0]


def test_a_scan_tells_strangers_from_the_wanted(tmp_path) -> None:
    for uid in (UID, OTHER):
        (tmp_path / f"kubepods/pod{uid}/x").mkdir(parents=True)
    tree = CgroupTree(tmp_path)
    tree.scan([UID])
    assert tree.strangers.keys() == {OTHER}
    assert len(tree.strangers[OTHER]) == 2
    assert {tree.paths[cgroup] for cgroup in tree.strangers[OTHER]} <= set(tree.paths.values())
