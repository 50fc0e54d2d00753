"""The two ways to place the lab's pods on this machine, and the choice between them.

`namespaces`: cgroups and network namespaces, measured by the agent (root and BPF). `loopback`: an address of
127.0.1.0/24 for each pod, no agent. Owns the ground, not what runs on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.kernel import cgroups as tree
from agent.kernel import check, pins
from lab.config import Kind
from lab.machine import cgroups, network
from lab.machine.manifests import LabPod


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens: `engine` and `control` on each pod's address, the rest on the node's."""

    engine: int = 8000
    control: int = 8900
    sonde: int = 8080
    round_robin: int = 8081
    least_request: int = 8082
    admin: int = 9901
    grpc: int = 9002
    health: int = 9003
    metrics: int = 9090
    weights: int = 9004
    agent: int = 9431
    agent_metrics: int = 9432


@dataclass(frozen=True, slots=True)
class Ground:
    """Where the lab stands. `lab_slice` and `pins` are None on loopback, where nothing measures in the kernel."""

    kind: Kind
    lab: str
    node: str
    node_ip: str
    pods: tuple[LabPod, ...]
    ports: Ports
    lab_slice: Path | None = None
    pins: pins.Pins | None = None

    def pod_command(self, index: int, command: Sequence[str]) -> list[str]:
        """How to start a command where the pod is."""
        if self.lab_slice is None:
            return list(command)
        inside = network.enter_command(network.pod_namespace(self.lab, index), command)
        pod = self.pods[index]
        return cgroups.enter_command(cgroups.container_scope(self.lab_slice, pod.uid, pod.container_id), inside)

    def node_command(self, command: Sequence[str]) -> list[str]:
        """How to start a command where the node's own processes are."""
        if self.lab_slice is None:
            return list(command)
        inside = network.enter_command(network.node_namespace(self.lab), command)
        return cgroups.enter_command(cgroups.node_scope(self.lab_slice), inside)


class GroundError(Exception):
    """This machine refuses the ground; the text says what it lacks, or what it refused."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How pods will be placed, and why not better: two lines and the table of what is needed."""

    kind: Kind
    why: tuple[str, ...] = ()


WITHOUT_KERNEL = (
    "The lab runs on loopback instead: the controller decides by engine metrics and its own reservations only."
)


def choose(lab: str, asked: Kind | None) -> Choice:
    """Namespaces where this machine and user can measure in the kernel, unless told otherwise. Raises GroundError."""
    if asked is Kind.LOOPBACK:
        return Choice(asked)
    requirements = [*check.preflight(pin_place(lab), None), _namespaces()]
    missing = check.missing(requirements)
    if not missing:
        return Choice(Kind.NAMESPACES)
    names = ", ".join(requirement.name for requirement in missing)
    table = check.table(requirements)
    if asked is Kind.NAMESPACES:
        raise GroundError("\n".join([f"pods in namespaces need what is missing here: {names}", *table]))
    return Choice(Kind.LOOPBACK, (f"No measuring in the kernel here, missing: {names}.", WITHOUT_KERNEL, *table))


def _namespaces() -> check.Requirement:
    reason = network.permitted()
    return check.Requirement(
        "network namespaces",
        reason is None,
        reason or "can be made",
        "pods cannot have addresses of their own",
        "run as root, with iproute2 and util-linux installed",
    )


def pin_place(lab: str) -> pins.Pins:
    return pins.Pins(Path("/sys/fs/bpf") / lab)


@contextlib.contextmanager
def stand(kind: Kind, lab: str, pods: int, seed: int) -> Iterator[Ground]:
    """Prepares the ground and removes it whatever happens. Raises GroundError where this machine refuses."""
    if kind is Kind.LOOPBACK:
        ips = [f"127.0.1.{network.FIRST_POD + index}" for index in range(pods)]
        yield Ground(kind, lab, f"{lab}-node", "127.0.0.1", _pods(lab, ips, seed), _free_ports(ips))
        return
    ground = Ground(
        kind,
        lab,
        network.node_namespace(lab),
        network.NODE_ADDRESS,
        _pods(lab, [network.pod_address(index) for index in range(pods)], seed),
        Ports(),
        cgroups.slice_of(tree.root(), lab),
        pin_place(lab),
    )
    try:
        try:
            _make(ground)
        except OSError as error:
            raise GroundError(f"cannot make the pods' namespaces and cgroups: {error}") from error
        with network.inside(network.node_namespace(lab)):
            yield ground
    finally:
        clear(lab)


def _make(ground: Ground) -> None:
    assert ground.lab_slice is not None
    network.build(ground.lab, len(ground.pods))
    cgroups.make(cgroups.node_scope(ground.lab_slice))
    for pod in ground.pods:
        cgroups.make(cgroups.container_scope(ground.lab_slice, pod.uid, pod.container_id))


def clear(lab: str) -> list[str]:
    """Removes what a lab of this name has left on the machine, and says what it was. Raises OSError."""
    if os.geteuid() != 0:
        return []
    said = []
    with contextlib.suppress(tree.NoCgroup2):
        lab_slice = cgroups.slice_of(tree.root(), lab)
        if lab_slice.is_dir():
            said.append(f"{lab_slice} with {cgroups.remove(lab_slice)} processes")
    place = pin_place(lab)
    if removed := pins.remove(place):
        said.append(f"{len(removed)} pins in {place.root}")
    place.lock.unlink(missing_ok=True)
    if names := network.remove(lab):
        said.append(f"{len(names)} network namespaces")
    return said


def program(package: str, *arguments: str) -> list[str]:
    """How to start one of our own programs with this Python; unbuffered, so that its last words are in its log."""
    return [sys.executable, "-u", "-m", package, *arguments]


def _pods(lab: str, ips: Sequence[str], seed: int) -> tuple[LabPod, ...]:
    return tuple(lab_pod(f"{lab}-{seed}-{index}", pod_name(index), ip) for index, ip in enumerate(ips))


def pod_name(index: int) -> str:
    return f"pod-{index + 1}"


def lab_pod(identity: str, name: str, ip: str) -> LabPod:
    """One whose uid and container follow from its identity."""
    uid = uuid.uuid5(uuid.NAMESPACE_OID, identity)
    return LabPod(name, str(uid), ip, hashlib.sha256(identity.encode()).hexdigest())


def _free_ports(pod_ips: Sequence[str]) -> Ports:
    """Ports nobody listens on: one for all pods, since a pool has one target port."""
    with contextlib.ExitStack() as held:
        names = [name for name in Ports.__slots__ if name not in ("engine", "control")]
        chosen = {name: _hold(held, ["127.0.0.1"]) for name in names}
        return Ports(engine=_hold(held, pod_ips), control=_hold(held, pod_ips), **chosen)


def _hold(held: contextlib.ExitStack, ips: Sequence[str], attempts: int = 50) -> int:
    for _ in range(attempts):
        with contextlib.ExitStack() as mine, contextlib.suppress(OSError):
            port = 0
            for ip in ips:
                probe = mine.enter_context(socket.socket())
                probe.bind((ip, port))
                port = probe.getsockname()[1]
            held.enter_context(mine.pop_all())
            return port
    raise OSError(f"no port is free on all of {', '.join(ips)}")
