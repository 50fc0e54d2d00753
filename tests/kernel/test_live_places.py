"""Where clients and servers are: both families at one socket, both ends in one pod, many connections at once."""

from __future__ import annotations

import socket
import subprocess
import sys

from lab.machine.cgroups import enter_command
from tests.conftest import skip_or_fail
from tests.kernel.live import SERVER, Node, Served, free_port, post, read_answer

CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    for _ in range(5):
        connection.sendall(b"POST /v1/plain?size=5 HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 0\\r\\n\\r\\n")
        while not connection.recv(65536).endswith(b"xxxxx"):
            pass
"""


def test_a_client_in_the_servers_own_cgroup_is_not_counted_twice(node: Node) -> None:
    served = node.serve()
    command = [sys.executable, "-c", CLIENT, served.host, str(served.port)]
    subprocess.run(enter_command(node.cgroup, command), check=True, timeout=20)
    assert (served["started"], served["completed"], served["connections_opened"]) == (5, 5, 1)
    served.until(lambda: served["connections_closed"] == 1)


def test_one_socket_for_both_families_has_one_slot(node: Node) -> None:
    port = free_port("127.0.0.1")
    slot = node.own(port)
    try:
        process = node.start("::", port, SERVER, "dual")
    except AssertionError:
        skip_or_fail("kernel", "no IPv6 on this machine")
    served = Served(node, slot, "127.0.0.1", port, process)
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), timeout=5) as connection:
            connection.sendall(post("/v1/stream?chunks=3"))
            read_answer(connection)
    assert (served["started"], served["completed"], served["chunks"], served["connections_opened"]) == (2, 2, 6, 2)


def test_a_thousand_connections_come_and_go(node: Node) -> None:
    served = node.serve()
    for _ in range(10):
        connections = [served.connect() for _ in range(100)]
        for connection in connections[::2]:
            connection.sendall(post("/v1/silent"))
        served.until(lambda: served["in_flight"] == 50, within_s=20)
        for connection in connections:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
        served.until(lambda: served["in_flight"] == 0, within_s=20)
    served.until(lambda: served["connections_closed"] == 1000, within_s=20)
    assert (served["connections_opened"], served["waiting"]) == (1000, 0)
    assert served["client_aborted"] == 500
