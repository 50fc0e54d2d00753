"""Finds the pods of this node and the cgroups each of them owns; knows nothing of slots or maps.

A cgroup's id, which is what a program in the kernel sees, is the inode number of its directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NewType

from agent.cluster.objects import Cluster, Pod, serving_ports
from agent.engines.places import Hint, hint_of

PodUid = NewType("PodUid", str)
CgroupId = NewType("CgroupId", int)

# kubelet gives a static pod the hash of its file as uid; its mirror in the API server has another one, and says so
CONFIG_HASH = "kubernetes.io/config.hash"
CONFIG_MIRROR = "kubernetes.io/config.mirror"
CONFIG_SOURCE = "kubernetes.io/config.source"  # where kubelet itself has it from: "api", "file", "http"

# Forms that occur: kubepods-burstable-pod<uid with _>.slice (systemd driver), pod<uid> (cgroupfs driver),
# kubelet-kubepods-pod<uid with _>.slice (kind), kubepods-pod<uid with _>.slice:cri-containerd:<id> (containerd that was
# given a systemd path with its cgroupfs driver)
_POD_SEGMENT = re.compile(r"(?:^|-)pod([0-9A-Za-z_-]+?)(?:\.slice|:|$)")


@dataclass(frozen=True, slots=True)
class ServingPod:
    """A pod of this node that a pool selects."""

    namespace: str
    name: str
    uid: PodUid | None  # None: the manifest has none, so that no cgroup can be told to be its own
    ip: str | None
    ports: tuple[int, ...]  # target ports of all pools that select it, ascending
    cgroup_name: str | None  # what its cgroup is called after, as uid_in_segment() gives it
    hints: tuple[Hint, ...] = ()  # of the engine pages behind the ports, in their order; (): nothing is known of them

    def hint(self, port: int) -> Hint:
        return self.hints[self.ports.index(port)] if self.hints else hint_of({}, {}, port, self.ports)


def serving_pods(cluster: Cluster, node_name: str) -> list[ServingPod]:
    """The pods of a node that at least one pool selects, by namespace and name."""
    ports: dict[tuple[str, str], set[int]] = {}
    for pool in cluster.pools.values():
        for pod in cluster.pods_of(pool):
            if pod.node == node_name:
                ports.setdefault((pod.namespace, pod.name), set()).update(serving_ports(pool, pod))
    uids = frozenset(_normal(pod.uid) for pod in cluster.pods.values() if pod.uid)
    return [_serving_pod(cluster.pods[key], ports[key], uids) for key in sorted(ports)]


def known_names(cluster: Cluster) -> frozenset[str]:
    """What the cgroups of all pods that are known are called after, of those too that no pool selects."""
    names = map(name_claimed, cluster.pods.values())
    return frozenset(name for name in names if name)


def _serving_pod(pod: Pod, ports: Iterable[int], uids: Collection[str]) -> ServingPod:
    name = name_claimed(pod)
    ordered = tuple(sorted(ports))
    return ServingPod(
        namespace=pod.namespace,
        name=pod.name,
        uid=PodUid(pod.uid) if pod.uid else None,
        ip=pod.ip,
        ports=ordered,
        # what is another pod's uid is that pod's, whoever says otherwise
        cgroup_name=name if pod.uid and (name == _normal(pod.uid) or name not in uids) else None,
        hints=tuple(hint_of(pod.labels, pod.annotations, port, ordered) for port in ordered),
    )


def name_claimed(pod: Pod) -> str | None:
    """The uid, or a static pod's hash. The hash alone makes no pod static: anybody may write it on a pod."""
    notes = pod.annotations
    if CONFIG_MIRROR in notes or notes.get(CONFIG_SOURCE, "api") != "api":
        name = notes.get(CONFIG_HASH) or notes.get(CONFIG_MIRROR) or pod.uid
    else:
        name = pod.uid
    return _normal(name) if name and pod.uid else None


def _normal(uid: str) -> str:
    """systemd reads a dash in a slice's name as a level, so kubelet writes underscores there."""
    return uid.lower().replace("_", "-")


def uid_in_segment(segment: str) -> str | None:
    """The pod uid that one component of a cgroup path names, in lower case with dashes; None where it names none."""
    match = _POD_SEGMENT.search(segment)
    return _normal(match[1]) if match else None


def uid_in_path(path: str, wanted: Iterable[str]) -> str | None:
    """Which of the wanted pods a cgroup path lies in; of nested ones the innermost."""
    known = frozenset(wanted)
    found = [uid for uid in map(uid_in_segment, path.split("/")) if uid in known]
    return found[-1] if found else None


@dataclass(slots=True)
class _Directory:
    """What was last seen of one directory of the tree."""

    uid: str | None  # of the innermost pod segment on its path, wanted or not
    outer: tuple[str, ...]  # of the pod segments outside that one
    links: int = -1
    seen: bool = False
    children: dict[str, _Directory] = field(default_factory=dict)


class CgroupTree:
    """The directories below a cgroup root, remembered so that a scan lists only what changed.

    A directory of cgroupfs has two links and one for each directory in it. A scan therefore needs one stat for each
    directory: where the count is as before and every known child is still there, no child can have come.
    """

    def __init__(self, root: Path, on_directory: Callable[[str], None] = lambda path: None) -> None:
        """`on_directory` is told of each directory before it is listed first."""
        self._path = str(root)
        self._top = _Directory(None, ())
        self._on_directory = on_directory
        self.paths: dict[CgroupId, str] = {}  # of the pods' cgroups, as of the last scan
        self.strangers: dict[str, set[CgroupId]] = {}  # pods in the tree that nobody wanted in the last scan

    def scan(self, wanted: Iterable[str]) -> dict[str, frozenset[CgroupId]]:
        """The cgroups of each wanted pod (by ServingPod.cgroup_name) that has any.

        A pod's own directory and all below it count. Directories that vanish meanwhile are passed over.
        """
        found: dict[str, set[CgroupId]] = {uid: set() for uid in wanted}
        self.paths = {}
        self.strangers = {}
        self._visit(self._path, self._top, found)
        return {uid: frozenset(ids) for uid, ids in found.items() if ids}

    def _visit(self, path: str, directory: _Directory, found: Mapping[str, set[CgroupId]]) -> bool:
        """Notes a directory and all below it; False where it is gone."""
        try:
            status = os.stat(path)
        except OSError:
            return False
        uid = next((uid for uid in (directory.uid, *directory.outer) if uid in found), None)
        if uid is not None:
            found[uid].add(CgroupId(status.st_ino))
        elif directory.uid is not None:
            self.strangers.setdefault(directory.uid, set()).add(CgroupId(status.st_ino))
        if directory.uid is not None:
            self.paths[CgroupId(status.st_ino)] = path
        if not directory.seen:
            directory.seen = True
            self._on_directory(path)
        if status.st_nlink != directory.links or status.st_nlink < 2:
            _list_children(path, directory)
        # listing and count can differ where something changed between them: then list again next time
        directory.links = status.st_nlink if status.st_nlink == len(directory.children) + 2 else -1
        vanished = [
            name for name, child in directory.children.items() if not self._visit(f"{path}/{name}", child, found)
        ]
        if vanished:
            self._visit_newcomers(path, directory, found)
            directory.links = -1
        return True

    def _visit_newcomers(self, path: str, directory: _Directory, found: Mapping[str, set[CgroupId]]) -> None:
        before = set(directory.children)
        _list_children(path, directory)
        for name in directory.children.keys() - before:
            self._visit(f"{path}/{name}", directory.children[name], found)


def _list_children(path: str, directory: _Directory) -> None:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        names = []
    known = directory.children
    directory.children = {name: known.get(name) or _child(name, directory) for name in names}


def _child(name: str, parent: _Directory) -> _Directory:
    uid = uid_in_segment(name)
    if uid is None:
        return _Directory(parent.uid, parent.outer)
    return _Directory(uid, (parent.uid, *parent.outer) if parent.uid is not None else ())
