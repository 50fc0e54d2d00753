"""Cgroup trees that are odd: pods in pods, roots that vanish, systemd inside of a container."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cluster.objects import Cluster, Pod, Pool
from agent.placing.pods import CgroupTree, serving_pods, uid_in_segment

UID = "11111111-2222-3333-4444-555555555555"
SLICE = f"kubepods-pod{UID.replace('-', '_')}.slice"


@pytest.mark.parametrize(
    "below",
    [
        "crio-0123.scope/container",
        "crio-0123.scope/system.slice/nginx.service",
        f"cri-containerd-0123.scope/{SLICE.removesuffix('.slice')}-inner.slice/x",
    ],
)
def test_everything_below_a_pod_is_the_pods(below: str, tmp_path: Path) -> None:
    deepest = tmp_path / "kubepods.slice" / SLICE / below
    deepest.mkdir(parents=True)
    above = tmp_path / "kubepods.slice"
    expected = {path.stat().st_ino for path in (deepest, *deepest.parents) if above in path.parents}
    assert CgroupTree(tmp_path).scan({UID}) == {UID: expected}


def test_of_nested_pods_the_inner_one_has_the_cgroup(tmp_path: Path) -> None:
    """A node of kind may be a pod of an outer cluster."""
    outer = "aaaaaaaa-0000-0000-0000-000000000000"
    path = tmp_path / f"kubepods/pod{outer}/x/kubelet/kubepods/pod{UID}/y"
    path.mkdir(parents=True)
    found = CgroupTree(tmp_path).scan({outer, UID})
    assert path.stat().st_ino in found[UID]
    assert not found[UID] & found[outer]


def test_below_a_pod_that_nobody_wants_the_outer_one_counts(tmp_path: Path) -> None:
    path = tmp_path / f"kubepods/pod{UID}/x/kubepods/pod0000/y"
    path.mkdir(parents=True)
    assert path.stat().st_ino in CgroupTree(tmp_path).scan({UID})[UID]


def test_a_root_that_is_gone_is_an_empty_tree(tmp_path: Path) -> None:
    assert CgroupTree(tmp_path / "gone").scan({UID}) == {}


def test_a_pod_wanted_later_is_found_in_what_is_remembered(tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path)
    path = tmp_path / f"kubepods/pod{UID}"
    path.mkdir(parents=True)
    assert tree.scan(()) == {}
    assert tree.scan({UID}) == {UID: {path.stat().st_ino}}


def test_a_uid_in_capitals_is_found_in_any_case(tmp_path: Path) -> None:
    (tmp_path / SLICE).mkdir()
    pod = Pod("default", "a", UID.upper(), {"app": "x"}, {}, None, "n1", True, False)
    pool = Pool("default", "p", "g", "v1", {"app": "x"}, (8000,), "FailClose", "")
    (served,) = serving_pods(Cluster(pods={("default", "a"): pod}, pools={("g", "default", "p"): pool}), "n1")
    assert set(CgroupTree(tmp_path).scan({served.cgroup_name})) == {UID}


@given(st.text())
def test_any_segment_is_read_without_fault(segment: str) -> None:
    uid = uid_in_segment(segment)
    assert uid is None or uid == uid.lower()
