"""Services and their EndpointSlices as frozen values; as with all objects, where they come from is not known here."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from agent.cluster.fields import Fields, shown

SERVICE_NAME = "kubernetes.io/service-name"  # on a slice: whose it is
DISCOVERY = "discovery.k8s.io/v1"
MAX_PORTS = 1000
MAX_ENDPOINTS = 1000  # of one slice, as the API has it


@dataclass(frozen=True, slots=True)
class ServicePort:
    name: str  # "" if there is but one
    port: int
    target: int | str  # of the pods: a number, or the name of a container's port


@dataclass(frozen=True, slots=True)
class Service:
    namespace: str
    name: str
    addresses: tuple[str, ...]  # its cluster IPs, one of each family; (): headless, or a name elsewhere
    ports: tuple[ServicePort, ...]  # of TCP
    selector: Mapping[str, str]
    reserved: str = ""  # a setting by which it is not for others to choose the endpoint, such as sessionAffinity


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    address: str
    ready: bool
    pod: str  # "": it is no pod's


@dataclass(frozen=True, slots=True)
class Slice:
    namespace: str
    name: str
    service: str
    ports: Mapping[str, int]  # of TCP, by the names of the Service's ports
    endpoints: tuple[SliceEndpoint, ...]


def read_service(fields: Fields, metadata: Fields) -> Service:
    spec = fields.fields("spec", optional=True)
    external = spec.text("type", default="") == "ExternalName"
    return Service(
        namespace=metadata.text("namespace", default="default"),
        name=metadata.text("name"),
        addresses=() if external else _addresses(spec),
        ports=tuple(_port(port) for port in spec.items("ports", MAX_PORTS) if _is_tcp(port)),
        selector=spec.texts("selector"),
        reserved=_reserved(spec),
    )


def _addresses(spec: Fields) -> tuple[str, ...]:
    several = spec.values.get("clusterIPs")
    if several is not None and not isinstance(several, list):
        raise spec.fault("clusterIPs", f"expected a list, got {shown(several)}")
    found = several or [spec.text("clusterIP", default="")]
    return tuple(_ip(spec, "clusterIP", text) for text in found if text not in ("", "None"))


def _ip(fields: Fields, key: str, text: object) -> str:
    try:
        return str(ipaddress.ip_address(text if isinstance(text, str) else ""))
    except ValueError:
        raise fields.fault(key, f"expected an IP address, got {shown(text)}") from None


def _is_tcp(port: Fields) -> bool:
    return port.text("protocol", default="TCP") == "TCP"


def _port(port: Fields) -> ServicePort:
    number, target = port.number("port", 1, 65535), port.values.get("targetPort")
    if isinstance(target, str) and target.isascii() and target.isdigit() and len(target) <= 5:
        target = int(target)
    if isinstance(target, str):
        return ServicePort(port.text("name", default=""), number, target)
    if target is not None and (isinstance(target, bool) or not isinstance(target, int) or not 1 <= target <= 65535):
        raise port.fault("targetPort", f"expected a port's number or name, got {shown(target)}")
    return ServicePort(port.text("name", default=""), number, target or number)


def _reserved(spec: Fields) -> str:
    if spec.text("sessionAffinity", default="None") != "None":
        return "sessionAffinity"
    return "internalTrafficPolicy" if spec.text("internalTrafficPolicy", default="Cluster") != "Cluster" else ""


def read_slice(fields: Fields, metadata: Fields) -> Slice:
    ports = [port for port in fields.items("ports") if _is_tcp(port)]
    numbers = {port.text("name", default=""): port.number("port", 0, 65535, default=0) for port in ports}
    by_name = fields.text("addressType", default="IPv4") == "FQDN"
    return Slice(
        namespace=metadata.text("namespace", default="default"),
        name=metadata.text("name"),
        service=metadata.texts("labels").get(SERVICE_NAME, ""),
        ports={name: number for name, number in numbers.items() if number},
        endpoints=() if by_name else tuple(_endpoint(one) for one in fields.items("endpoints", MAX_ENDPOINTS)),
    )


def _endpoint(endpoint: Fields) -> SliceEndpoint:
    addresses = endpoint.values.get("addresses")
    if not isinstance(addresses, list) or not addresses:
        raise endpoint.fault("addresses", f"expected at least one, got {shown(addresses)}")
    reference = endpoint.fields("targetRef", optional=True)
    conditions = endpoint.fields("conditions", optional=True)
    return SliceEndpoint(
        address=_ip(endpoint, "addresses[0]", addresses[0]),  # the API says that all of them are the same endpoint
        ready=conditions.values.get("ready") is not False,  # not said means ready
        pod=reference.text("name", default="") if reference.text("kind", default="") == "Pod" else "",
    )
