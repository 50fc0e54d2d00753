"""Which clients are left alone: pods that opted out by label, and pods with a mesh's sidecar. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from agent.cluster.objects import Cluster, Pod
from agent.kernel.steer_layout import NUMBERS
from agent.placing.pods import CgroupId, name_claimed

LABEL = "sonde.dev/balance"
_OFF = ("off", "false", "no", "disabled")
BY_LABEL, BY_MESH = NUMBERS["SONDE_STEER_SKIP_LABEL"], NUMBERS["SONDE_STEER_SKIP_MESH"]


def left_alone(cluster: Cluster) -> dict[str, int]:
    """Why, by what a pod's cgroup may be called after."""
    found: dict[str, int] = {}
    for pod in cluster.pods.values():
        why, name = _why(pod), name_claimed(pod)
        if why and name:
            found[name] = why
    return found


def _why(pod: Pod) -> int:
    if pod.labels.get(LABEL, "").lower() in _OFF:
        return BY_LABEL
    return BY_MESH if pod.meshed else 0


def skips(why: Mapping[str, int], cgroups: Mapping[str, frozenset[CgroupId]]) -> dict[int, int]:
    """Why, by cgroup id."""
    return {int(cgroup): why[name] for name in why.keys() & cgroups.keys() for cgroup in cgroups[name]}
