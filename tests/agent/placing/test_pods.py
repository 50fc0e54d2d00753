"""Pods of the node and their cgroups: every path shape that kubelets and runtimes make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.cluster.objects import Cluster, Pod, Pool
from agent.engines.places import Hint, Page
from agent.placing.pods import CgroupTree, known_names, serving_pods, uid_in_path, uid_in_segment

UID = "3f1c7d52-9e0b-4a37-8f7e-0a1b2c3d4e5f"
SLICE = UID.replace("-", "_")
CONTAINER = "ab" * 32
DIGEST = "0123456789abcdef0123456789abcdef"  # of a static pod's file, which kubelet takes for its uid

# driver or runtime, the path of a container below the cgroup root
SHAPES = [
    ("systemd, guaranteed, containerd", f"kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope"),
    (
        "systemd, burstable, containerd",
        f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope",
    ),
    (
        "systemd, besteffort, CRI-O with its nested cgroup",
        f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/"
        f"crio-{CONTAINER}.scope/container",
    ),
    ("systemd, docker", f"kubepods.slice/kubepods-pod{SLICE}.slice/docker-{CONTAINER}.scope"),
    ("cgroupfs, guaranteed", f"kubepods/pod{UID}/{CONTAINER}"),
    ("cgroupfs, burstable", f"kubepods/burstable/pod{UID}/{CONTAINER}"),
    ("cgroupfs, besteffort, k3s", f"kubepods/besteffort/pod{UID}/{CONTAINER}"),
    (
        "kind: the node is a container itself",
        f"system.slice/docker-{'cd' * 32}.scope/kubelet.slice/kubelet-kubepods.slice/"
        f"kubelet-kubepods-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope",
    ),
    (
        "containerd given a systemd path with its cgroupfs driver",
        f"system.slice/containerd.service/kubepods-pod{SLICE}.slice:cri-containerd:{CONTAINER}",
    ),
]


@pytest.mark.parametrize("path", [path for _, path in SHAPES], ids=[name for name, _ in SHAPES])
def test_the_pod_is_found_in_every_shape_of_path(path: str) -> None:
    assert uid_in_path(path, [UID]) == UID


@pytest.mark.parametrize("path", [path for _, path in SHAPES], ids=[name for name, _ in SHAPES])
def test_a_scan_gives_the_pods_own_cgroup_and_all_below(tmp_path: Path, path: str) -> None:
    (tmp_path / path).mkdir(parents=True)
    pod = next(folder for folder in (tmp_path / path, *(tmp_path / path).parents) if _names_pod(folder) is not None)
    while _names_pod(pod.parent) is not None:
        pod = pod.parent
    below = [pod, *(entry for entry in pod.rglob("*"))]
    assert CgroupTree(tmp_path).scan([UID]) == {UID: frozenset(entry.stat().st_ino for entry in below)}


def _names_pod(folder: Path) -> str | None:
    return uid_in_segment(folder.name)


@pytest.mark.parametrize("segment", ["kubepods.slice", "podman", "pod", "system.slice", "podinfo.service", "user@0"])
def test_what_is_no_pod_is_not_taken_for_one(segment: str) -> None:
    assert uid_in_path(f"{segment}/{CONTAINER}", [UID]) is None


STATIC_SHAPES = [
    f"kubepods.slice/kubepods-pod{DIGEST}.slice/cri-containerd-{CONTAINER}.scope",
    f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{DIGEST}.slice/crio-{CONTAINER}.scope/container",
    f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{DIGEST}.slice/docker-{CONTAINER}.scope",
    f"kubepods/pod{DIGEST}/{CONTAINER}",
    f"kubepods/burstable/pod{DIGEST}/{CONTAINER}",
    f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{DIGEST}.slice/cri-containerd-{CONTAINER}.scope",
    f"system.slice/containerd.service/kubepods-burstable-pod{DIGEST}.slice:cri-containerd:{CONTAINER}",
]
MIRROR = {"kubernetes.io/config.hash": DIGEST, "kubernetes.io/config.mirror": DIGEST}
OF_KUBELET = {"kubernetes.io/config.hash": DIGEST, "kubernetes.io/config.source": "file"}
ONLY_MIRROR = {"kubernetes.io/config.mirror": DIGEST}


@pytest.mark.parametrize("path", STATIC_SHAPES)
@pytest.mark.parametrize("annotations", [MIRROR, OF_KUBELET, ONLY_MIRROR], ids=["mirror", "kubelet", "old"])
def test_a_static_pod_is_found_by_the_hash_of_its_file(tmp_path: Path, path: str, annotations: dict[str, str]) -> None:
    cluster = _cluster(_pod("static", annotations=annotations))
    (serving,) = serving_pods(cluster, "n1")
    (tmp_path / path).mkdir(parents=True)
    assert (serving.uid, serving.cgroup_name) == (UID, DIGEST)
    assert known_names(cluster) == {DIGEST}
    assert (tmp_path / path).stat().st_ino in CgroupTree(tmp_path).scan([DIGEST])[DIGEST]


@pytest.mark.parametrize("source", [{}, {"kubernetes.io/config.source": "api"}])
def test_a_hash_that_anybody_may_write_makes_no_pod_static(source: dict[str, str]) -> None:
    (serving,) = serving_pods(_cluster(_pod("a", annotations={"kubernetes.io/config.hash": DIGEST} | source)), "n1")
    assert serving.cgroup_name == UID


def test_the_cgroup_of_another_pod_cannot_be_claimed() -> None:
    thief = _pod("a-thief", annotations={**MIRROR, "kubernetes.io/config.hash": UID})
    serving = serving_pods(_cluster(replace(thief, uid="0" * 8), _pod("owner")), "n1")
    assert [(pod.name, pod.cgroup_name) for pod in serving] == [("a-thief", None), ("owner", UID)]


def test_only_pods_of_this_node_that_a_pool_selects_are_served() -> None:
    cluster = _cluster(_pod("a"), _pod("b", node="n2"), _pod("c", labels={"app": "web"}))
    assert [pod.name for pod in serving_pods(cluster, "n1")] == ["a"]


def test_a_pod_of_two_pools_serves_the_ports_of_both() -> None:
    pools = [Pool("ns", name, "g", "v1", {"app": "llm"}, ports, "FailClose", "") for name, ports in POOLS]
    cluster = Cluster(pods={("ns", "a"): _pod("a")}, pools={("g", "ns", pool.name): pool for pool in pools})
    (serving,) = serving_pods(cluster, "n1")
    assert serving.ports == (8000, 8001, 9000)


def test_a_pod_says_which_of_its_ports_it_serves_and_where_its_engine_has_its_page() -> None:
    told = {"llm-d.ai/active-ports": "8001", "prometheus.io/port": "9400"}
    pool = Pool("ns", "p", "g", "v1", {"app": "llm"}, (8000, 8001), "FailClose", "")
    labels = {"app": "llm", "llm-d.ai/engine-type": "sglang"}
    pod = replace(_pod("a", labels=labels), annotations=told, active_ports=frozenset({8001}))
    (serving,) = serving_pods(Cluster(pods={("ns", "a"): pod}, pools={("g", "ns", "p"): pool}), "n1")

    assert serving.ports == (8001,)
    assert serving.hint(8001) == Hint((Page(9400), Page(8001)), "sglang")


POOLS = [("one", (8000, 8001)), ("two", (8000, 9000))]


def test_cgroups_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path)
    pod = tmp_path / f"kubepods/pod{UID}"
    assert tree.scan([UID]) == {}
    pod.mkdir(parents=True)
    assert tree.scan([UID]) == {UID: {pod.stat().st_ino}}
    container = pod / CONTAINER
    container.mkdir()
    assert tree.scan([UID]) == {UID: {pod.stat().st_ino, container.stat().st_ino}}
    container.rmdir()
    assert tree.scan([UID]) == {UID: {pod.stat().st_ino}}
    pod.rmdir()
    assert tree.scan([UID]) == {}


def test_a_container_that_is_replaced_between_two_scans_is_noticed(tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path)
    pod = tmp_path / f"kubepods/pod{UID}"
    (pod / "old").mkdir(parents=True)
    tree.scan([UID])
    (pod / "old").rmdir()
    (pod / "new").mkdir()
    assert tree.scan([UID]) == {UID: {pod.stat().st_ino, (pod / "new").stat().st_ino}}


def _pod(
    name: str, node: str = "n1", labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None
) -> Pod:
    return Pod("ns", name, UID, labels or {"app": "llm"}, annotations or {}, "10.0.0.1", node, True, False)


def _cluster(*pods: Pod) -> Cluster:
    pool = Pool("ns", "p", "g", "v1", {"app": "llm"}, (8000,), "FailClose", "")
    return Cluster(pods={("ns", pod.name): pod for pod in pods}, pools={("g", "ns", "p"): pool})
