"""What kube-proxy does for a Service, in one network namespace: a chain of nftables that gives each new connection an
endpoint by chance and rewrites where it goes.

As kube-proxy's own rules do, each is tried with a probability that makes all endpoints alike: 1/n, 1/(n-1), ..., 1.
With lab/machine/network.py the only module that imports pyroute2; there is no nft program needed.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.nftables.main import NFTables

Address = tuple[str, int]
Json = dict[str, Any]

TABLE, CHAIN = "kube-proxy", "service"
# of linux/netfilter
_IPV4 = 2
_ACCEPT = 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_DESTINATION_ADDRESS, _DESTINATION_PORT = 16, 2  # offsets there
_L4PROTO, _RANDOM, _DNAT, _EQUAL = 16, 1, 1, 0
_PRIORITY = -100  # where destinations are rewritten

_TCP = struct.pack("B", socket.IPPROTO_TCP)
_ZERO = struct.pack("=I", 0)


def serve(service: Address, endpoints: Sequence[Address], gateway: str) -> None:
    """In the calling thread's namespace, which has no table of ours yet; IPv4. Raises OSError where the kernel refuses.

    gateway: who packets would go to if no rule took them, so that there is a route at all.
    """
    try:
        with IPRoute() as link:
            link.route("add", dst=f"{service[0]}/32", gateway=gateway)
        with NFTables(nfgen_family=_IPV4) as tables:
            tables.table("add", name=TABLE)
            tables.chain("add", table=TABLE, name=CHAIN, hook="output", type="nat", priority=_PRIORITY, policy=_ACCEPT)
            for at, endpoint in enumerate(endpoints):
                rule = list(_rule(service, endpoint, one_of=len(endpoints) - at))
                tables.rule("add", table=TABLE, chain=CHAIN, expressions=[rule])
    except NetlinkError as error:
        raise OSError(error.code, f"this kernel refuses nftables' rules for a Service: {error}") from error


def _rule(service: Address, endpoint: Address, one_of: int) -> Iterator[Json]:
    yield _expression("meta", "META", key=_L4PROTO, dreg=1)
    yield _is(_TCP)
    yield _expression("payload", "PAYLOAD", dreg=1, base=_NETWORK_HEADER, offset=_DESTINATION_ADDRESS, len=4)
    yield _is(socket.inet_aton(service[0]))
    yield _expression("payload", "PAYLOAD", dreg=1, base=_TRANSPORT_HEADER, offset=_DESTINATION_PORT, len=2)
    yield _is(struct.pack("!H", service[1]))
    if one_of > 1:
        yield _expression("numgen", "NG", dreg=1, modulus=one_of, type=_RANDOM, offset=0)
        yield _is(_ZERO)
    yield _value(1, socket.inet_aton(endpoint[0]))
    yield _value(2, struct.pack("!H", endpoint[1]))
    yield _expression("nat", "NAT", type=_DNAT, family=_IPV4, reg_addr_min=1, reg_proto_min=2)


def _is(value: bytes) -> Json:
    return _expression("cmp", "CMP", sreg=1, op=_EQUAL, data=_data(value))


def _value(register: int, value: bytes) -> Json:
    return _expression("immediate", "IMMEDIATE", dreg=register, data=_data(value))


def _data(value: bytes) -> Json:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _expression(name: str, prefix: str, **fields: Any) -> Json:
    told = [(f"NFTA_{prefix}_{field.upper()}", value) for field, value in fields.items()]
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": told})]}
