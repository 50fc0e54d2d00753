"""Where the cgroup v2 tree is, and what the kernel calls a cgroup."""

from __future__ import annotations

import os
from pathlib import Path

_KUBEPODS = ("kubepods.slice", "kubepods", "kubelet.slice/kubelet-kubepods.slice", "kubelet/kubepods")


class NoCgroup2(Exception):
    """No cgroup v2 hierarchy, or not the cgroup asked for."""


def root(mounts: Path = Path("/proc/self/mounts")) -> Path:
    """Where cgroup v2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified beside v1. Raises NoCgroup2."""
    for line in mounts.read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(folder)
    raise NoCgroup2("no cgroup v2 hierarchy is mounted: boot with systemd.unified_cgroup_hierarchy=1")


def default_attach_point(tree: Path) -> Path:
    """The kubepods cgroup where there is one in the tree, else its root."""
    for name in _KUBEPODS:
        if (tree / name).is_dir():
            return tree / name
    return tree


def identity(cgroup: Path) -> int:
    """The kernel's id of a cgroup: its directory's inode number. Raises NoCgroup2."""
    try:
        return os.stat(cgroup).st_ino
    except OSError as error:
        raise NoCgroup2(f"no cgroup {cgroup}: {error.strerror}") from error
