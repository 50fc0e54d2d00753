"""The lab's stand-in for kube-proxy: nftables in a namespace, real connections. Needs root."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from lab.config import Kind
from lab.direct import nat
from lab.machine import network, substrate
from tests.conftest import skip_or_fail

SERVICE = ("10.96.0.10", 80)
CONNECTIONS = 300


@pytest.fixture
def lab() -> Iterator[str]:
    name = f"sonde-n{os.getpid()}"
    choice = substrate.choose(name, None)
    if choice.kind is not Kind.NAMESPACES:
        skip_or_fail("kernel", choice.why[0])
    try:
        network.build(name, 4)
        yield name
    finally:
        network.remove(name)


def serve(lab: str, index: int) -> tuple[str, int]:
    """A server in a namespace that says its number to each connection."""
    address = (network.pod_address(index), 8000)
    with network.inside(network.pod_namespace(lab, index)):
        listener = socket.create_server(address, backlog=CONNECTIONS)

    def accept() -> None:
        with listener:
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(str(index).encode())
                    if not connection.recv(1):  # the client ends the server by one byte
                        continue
                    return

    threading.Thread(target=accept, daemon=True).start()
    return address


def ask(address: tuple[str, int], end: bool = False) -> str:
    with socket.create_connection(address, timeout=5) as connection:
        answer = connection.recv(16).decode()
        if end:
            connection.sendall(b"x")
        return answer


def test_connections_to_the_service_go_to_all_its_endpoints_alike(lab: str) -> None:
    endpoints = [serve(lab, index) for index in (1, 2, 3)]
    try:
        with network.inside(network.pod_namespace(lab, 0)):
            nat.serve(SERVICE, endpoints, network.NODE_ADDRESS)
            came = Counter(ask(SERVICE) for _ in range(CONNECTIONS))
            assert ask(endpoints[0]) == "1"  # who calls a pod gets it
            with pytest.raises(OSError, match="nftables"):
                nat.serve(SERVICE, endpoints, network.NODE_ADDRESS)
    finally:
        with network.inside(network.pod_namespace(lab, 0)):
            for endpoint in endpoints:
                ask(endpoint, end=True)
    assert came.keys() == {"1", "2", "3"}
    # six standard deviations: a fair choice leaves this once in 10^8 runs
    assert all(abs(count - CONNECTIONS / 3) < 6 * (CONNECTIONS * 2 / 9) ** 0.5 for count in came.values())
