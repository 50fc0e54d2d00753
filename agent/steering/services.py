"""Which addresses of Services are to be steered, and to which Ready pods, as the cluster's objects say it. Pure.

Owns what a Service must be like for that; refuses to know weights. A pool with something wrong about it is a fault in
one line, and has no front.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from agent.cluster.objects import Cluster, ObjectKey, Pod, Pool, serving_ports
from agent.cluster.services import Service, ServicePort
from agent.steering.maps import Frontend
from agent.steering.state import PoolName

Named = Mapping[PoolName, str]  # pool -> its Service's name, from the command line


class Target(NamedTuple):
    """One endpoint: a port of a pod."""

    address: str
    port: int
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Front:
    """What clients ask for, and who may answer."""

    frontend: Frontend
    pool: PoolName
    ports: frozenset[int]  # of the pods, behind this port of the Service
    ready: tuple[Target, ...] | None  # None: nothing says who is


class Fault(Exception):
    """Why a pool's Service cannot be steered."""


class Absent(Fault):
    """An object is not there, or not yet: a Service is listed a moment after its pool."""


@dataclass(frozen=True, slots=True)
class Found:
    fronts: Mapping[PoolName, tuple[Front, ...]]
    faults: Mapping[PoolName, str]
    absent: frozenset[PoolName] = frozenset()  # of the faults: those that may just be early


def named(cluster: Cluster, asked: Named) -> dict[PoolName, str]:
    """The pools whose Services are to be steered: by their annotation, or by the command line, which counts more."""
    annotated = {(pool.namespace, pool.name): pool.balance_service for pool in cluster.pools.values()}
    return {**{key: name for key, name in annotated.items() if name}, **asked}


def wanted_services(cluster: Cluster, asked: Named) -> set[ObjectKey]:
    return {(namespace, name) for (namespace, _), name in named(cluster, asked).items()}


def find(cluster: Cluster, asked: Named, complete: bool, held: Mapping[Frontend, PoolName]) -> Found:
    """`complete`: the cluster has all pods, not only a node's. Of two pools with one address who holds it keeps it."""
    fronts: dict[PoolName, tuple[Front, ...]] = {}
    faults: dict[PoolName, str] = {}
    absent: set[PoolName] = set()
    taken: dict[Frontend, PoolName] = {}
    owners = set(held.values())
    for key, name in sorted(named(cluster, asked).items(), key=lambda one: (one[0] not in owners, one[0])):
        try:
            found = tuple(_fronts(cluster, key, name, complete))
            _check_overlap(key, name, found, taken)
        except Fault as fault:
            faults[key] = f"Service {key[0]}/{name} of pool {key[1]}: {fault}"
            absent |= {key} if isinstance(fault, Absent) else set()
            continue
        fronts[key] = found
        taken |= {front.frontend: key for front in found}
    return Found(fronts, faults, frozenset(absent))


def _check_overlap(key: PoolName, name: str, found: Iterable[Front], taken: Mapping[Frontend, PoolName]) -> None:
    for front in found:
        other = taken.get(front.frontend)
        if other is not None:
            address, port = front.frontend
            raise Fault(f"{address} port {port} is steered for pool {'/'.join(other)}: one pool for each address")


def still_ready(cluster: Cluster, name: str, front: Front, complete: bool) -> Front:
    """A front of before, with who is Ready now as far as its Service still tells."""
    service, pool = cluster.services.get((front.pool[0], name)), _pool(cluster, front.pool)
    ports = [port for port in service.ports if port.port == front.frontend.port] if service else []
    if service is None or pool is None or not ports:
        return front
    ready = _ready(cluster, service, ports[0], pool, complete)
    return replace(front, ready=_of_family(ready, front.frontend.address))


def _of_family(ready: set[Target] | None, address: str) -> tuple[Target, ...] | None:
    if ready is None:
        return None
    return tuple(sorted(one for one in ready if _family(one.address) == _family(address)))


def _fronts(cluster: Cluster, key: PoolName, name: str, complete: bool) -> Iterator[Front]:
    service, pool = cluster.services.get((key[0], name)), _pool(cluster, key)
    if pool is None:
        raise Absent("there is no such pool")
    if service is None:
        raise Absent("there is no such Service")
    _check(cluster, service)
    answers = False
    for port in service.ports:
        numbers = _numbers(cluster, service, port, pool, complete)
        answers = answers or bool(numbers)
        ready = _ready(cluster, service, port, pool, complete) if numbers else None
        for address in service.addresses if numbers else ():
            yield Front(Frontend(address, port.port), key, numbers, _of_family(ready, address))
    if not answers:
        ports = ", ".join(map(str, pool.target_ports))
        raise Fault(f"no TCP port of it leads to a target port of the pool ({ports})")


def _pool(cluster: Cluster, key: PoolName) -> Pool | None:
    """Of two versions of one pool the newer."""
    same = [pool for pool in cluster.pools.values() if (pool.namespace, pool.name) == key]
    return max(same, key=lambda pool: pool.version == "v1", default=None)


def _check(cluster: Cluster, service: Service) -> None:
    if not service.addresses:
        raise Fault("it has no clusterIP (it is headless, or a name elsewhere): give it one")
    if service.reserved:
        raise Fault(f"its {service.reserved} says who may answer whom: connections to it are left alone")
    owners = {pod.ip: f"{pod.namespace}/{pod.name}" for pod in cluster.pods.values() if pod.ip}
    owners |= {one.address: f"{service.namespace}/{one.pod}" for one in _endpoints(cluster, service)}
    for address in service.addresses:
        if address in owners:
            raise Fault(f"its address {address} is that of pod {owners[address]}")


def _numbers(cluster: Cluster, service: Service, port: ServicePort, pool: Pool, complete: bool) -> frozenset[int]:
    """The pool's target ports that a port of the Service leads to."""
    if isinstance(port.target, int):
        found = {port.target}
    else:
        found = {number for slice_ports in _slice_ports(cluster, service) if (number := slice_ports.get(port.name))}
        if complete:
            found |= {number for pod in _selected(cluster, service) if (number := _number(pod, port))}
    return frozenset(found) & set(pool.target_ports)


def _slice_ports(cluster: Cluster, service: Service) -> list[Mapping[str, int]]:
    return [one.ports for one in cluster.slices_of(service)]


def _endpoints(cluster: Cluster, service: Service) -> Iterator[Target]:
    for one in cluster.slices_of(service):
        for endpoint in one.endpoints:
            yield Target(endpoint.address, 0, endpoint.pod)


def _ready(cluster: Cluster, service: Service, port: ServicePort, pool: Pool, complete: bool) -> set[Target] | None:
    """By the Service's slices, else by its pods where all are known. A pod itself is heard of before its slice."""
    slices = cluster.slices_of(service)
    if slices:
        return {
            Target(endpoint.address, number, endpoint.pod)
            for one in slices
            if (number := one.ports.get(port.name)) in pool.target_ports and number is not None
            for endpoint in one.endpoints
            if endpoint.ready and _may_answer(cluster.pods.get((service.namespace, endpoint.pod)))
        }
    if not complete or not service.selector:
        return None
    chosen = [(pod, _number(pod, port)) for pod in _selected(cluster, service) if _may_answer(pod)]
    return {
        Target(pod.ip, number, pod.name)
        for pod, number in chosen
        if pod.ip and number is not None and number in serving_ports(pool, pod)
    }


def _may_answer(pod: Pod | None) -> bool:
    return pod is None or (pod.ready and not pod.terminating)


def _selected(cluster: Cluster, service: Service) -> list[Pod]:
    wanted = service.selector.items()
    if not wanted:
        return []
    return [
        pod
        for pod in cluster.pods.values()
        if pod.namespace == service.namespace and wanted <= dict(pod.labels).items()
    ]


def _number(pod: Pod, port: ServicePort) -> int | None:
    return port.target if isinstance(port.target, int) else pod.named_ports.get(port.target)


def _family(address: str) -> int:
    return ipaddress.ip_address(address).version
