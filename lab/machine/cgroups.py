"""The lab's cgroups: what kubelet and containerd would make for its pods, below one slice of the lab's own.

Knows path shapes and the cgroup v2 file system; knows nothing of namespaces or of what runs inside.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

KILL_WAIT_S = 3.0


def slice_of(tree: Path, lab: str) -> Path:
    """The lab's slice: its kubepods.slice is below, and the node's own processes are beside that."""
    return tree / f"{lab}.slice"


def node_scope(lab_slice: Path) -> Path:
    return lab_slice / "node.scope"


def container_scope(lab_slice: Path, pod_uid: str, container_id: str) -> Path:
    """A Burstable pod's container with the systemd cgroup driver and containerd; `container_id` is 64 hex digits."""
    pod = f"kubepods-burstable-pod{pod_uid.replace('-', '_')}.slice"
    return lab_slice / "kubepods.slice" / "kubepods-burstable.slice" / pod / f"cri-containerd-{container_id}.scope"


def enter_command(cgroup: Path, command: Sequence[str]) -> list[str]:
    """How to start a command inside: moved before it is executed, as sockets keep the cgroup they are made in."""
    return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup), *command]


def make(cgroup: Path) -> None:
    """Makes a cgroup and those above it. Raises OSError."""
    cgroup.mkdir(parents=True, exist_ok=True)


def remove(lab_slice: Path) -> int:
    """Kills what still runs in a lab's slice and removes it; returns how many processes there were. Raises OSError.

    Again until it is gone: a process that was being started meanwhile may join late, and a cgroup whose last one has
    just ended may stay busy for a moment.
    """
    killed = 0
    deadline = time.monotonic() + KILL_WAIT_S
    while lab_slice.is_dir():
        pids = _pids(lab_slice)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        try:
            for folder, _, _ in os.walk(lab_slice, topdown=False):
                Path(folder).rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                raise OSError(error.errno, f"{lab_slice} cannot be removed, with processes {pids} in it") from error
            time.sleep(0.01)
    return killed


def _pids(lab_slice: Path) -> list[int]:
    pids = []
    for folder, _, _ in os.walk(lab_slice):
        with contextlib.suppress(FileNotFoundError):
            pids += [int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()]
    return [pid for pid in pids if pid != os.getpid()]
