"""Where direct clients meet pods: three nodes, each with a slice of cgroups, pins, an agent's place, pods and a client.

All are network namespaces on one bridge, as the lab's; a node is what its cgroups and its pins are. Owns the ground,
not what runs on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.kernel import cgroups as tree
from agent.kernel.pins import Pins
from lab.direct import nat
from lab.machine import cgroups, network, substrate
from lab.machine.manifests import LabPod
from lab.machine.substrate import GroundError, Ports

NODES = 3
SERVICE, SERVICE_ADDRESS = "lab", ("10.96.0.10", 80)


@dataclass(frozen=True, slots=True)
class Place:
    """A pod, an agent or a client: a network namespace, and a cgroup if it is not the node's own."""

    index: int  # of its network namespace
    node: int
    pod: LabPod

    @property
    def ip(self) -> str:
        return self.pod.ip


@dataclass(frozen=True, slots=True)
class NodesGround:
    lab: str
    lab_slice: Path
    agents: tuple[Place, ...]
    pods: tuple[Place, ...]
    clients: tuple[Place, ...]
    ports: Ports

    def name(self, node: int) -> str:
        return f"{self.lab}-node-{node + 1}"

    def slice(self, node: int) -> Path:
        return self.lab_slice / f"node-{node + 1}.slice"

    def pins(self, node: int) -> Pins:
        return pins_of(self.lab, node)

    def scope(self, place: Place) -> Path:
        return cgroups.container_scope(self.slice(place.node), place.pod.uid, place.pod.container_id)

    def inside(self, place: Place, command: Sequence[str], contained: bool = True) -> list[str]:
        """How to start a command at a place; not contained: it is the node's own, and has no cgroup of a pod."""
        entered = network.enter_command(network.pod_namespace(self.lab, place.index), command)
        scope = self.scope(place) if contained else cgroups.node_scope(self.slice(place.node))
        return cgroups.enter_command(scope, entered)

    def apart(self, command: Sequence[str]) -> list[str]:
        """How to start a command that belongs to no node."""
        entered = network.enter_command(network.node_namespace(self.lab), command)
        return cgroups.enter_command(cgroups.node_scope(self.lab_slice), entered)

    @property
    def controller_ip(self) -> str:
        return network.NODE_ADDRESS


def pins_of(lab: str, node: int) -> Pins:
    return substrate.pin_place(f"{lab}-node-{node + 1}")


@contextlib.contextmanager
def stand(lab: str, pods: int, seed: int, by_chance: bool = True) -> Iterator[NodesGround]:
    """Makes the ground and removes it whatever happens; this thread's sockets are inside. Raises GroundError.

    by_chance: clients have kube-proxy's rules, so that an unsteered connection gets somewhere.
    """
    ground = _plan(lab, pods, seed)
    try:
        try:
            _make(ground)
            if by_chance:
                _serve(ground)
        except OSError as error:
            raise GroundError(f"cannot make the nodes: {error}") from error
        with network.inside(network.node_namespace(lab)):
            yield ground
    finally:
        clear(lab)


def _plan(lab: str, pods: int, seed: int) -> NodesGround:
    names = [f"agent-{node + 1}" for node in range(NODES)]
    names += [substrate.pod_name(at) for at in range(pods)]
    names += [f"client-{node + 1}" for node in range(NODES)]
    places = []
    for index, name in enumerate(names):
        node = (index - NODES) % NODES if index < NODES + pods else index - NODES - pods
        pod = substrate.lab_pod(f"{lab}-{seed}-{name}", name, network.pod_address(index))
        places.append(Place(index, index if index < NODES else node, pod))
    lab_slice = cgroups.slice_of(tree.root(), lab)
    middle = NODES + pods
    return NodesGround(
        lab, lab_slice, tuple(places[:NODES]), tuple(places[NODES:middle]), tuple(places[middle:]), Ports()
    )


def _make(ground: NodesGround) -> None:
    network.build(ground.lab, NODES + len(ground.pods) + NODES)
    cgroups.make(cgroups.node_scope(ground.lab_slice))
    for node in range(NODES):
        cgroups.make(cgroups.node_scope(ground.slice(node)))
    for place in (*ground.pods, *ground.clients):
        cgroups.make(ground.scope(place))


def _serve(ground: NodesGround) -> None:
    """kube-proxy's part on each node, in its client's namespace."""
    endpoints = [(place.ip, ground.ports.engine) for place in ground.pods]
    for client in ground.clients:
        with network.inside(network.pod_namespace(ground.lab, client.index)):
            nat.serve(SERVICE_ADDRESS, endpoints, network.NODE_ADDRESS)


def clear(lab: str) -> list[str]:
    """Removes what a lab of this name has left on the machine, and says what it was. Raises OSError."""
    said = substrate.clear(lab)
    for node in range(NODES):
        said += substrate.clear(f"{lab}-node-{node + 1}")
    return said
