"""The whole tracker on real sockets: connections, aborts, reloads; every count exact."""

from __future__ import annotations

import os
import signal
import socket
import struct

import pytest

from agent.kernel import loader
from tests.conftest import skip_or_fail
from tests.kernel.conversation import Bench
from tests.kernel.live import Node, Served, post, read_answer, running_node
from tests.kernel.pods import wait_until


@pytest.fixture
def served(node: Node) -> Served:
    return node.serve()


def test_connections_and_requests_on_keep_alive_are_exact(served: Served) -> None:
    with served.connect() as one, served.connect() as two:
        for _ in range(20):
            for connection in (one, two):
                connection.sendall(post("/v1/plain?size=100", b"p" * 50))
                assert read_answer(connection).endswith(b"x" * 100)
        assert (served["connections_opened"], served["connections_closed"]) == (2, 0)
        assert (served["started"], served["completed"], served["in_flight"], served["waiting"]) == (40, 40, 0, 0)
    served.until(lambda: served["connections_closed"] == 2)


def test_in_flight_is_exact_while_streams_run(served: Served) -> None:
    connections = [served.connect() for _ in range(16)]
    for connection in connections:
        connection.sendall(post("/v1/stream?chunks=20&gap=10"))
    served.until(lambda: served["started"] == 16)
    assert served["in_flight"] == 16
    for connection in connections:
        assert read_answer(connection).count(b"data:") == 20
        connection.close()
    assert (served["completed"], served["in_flight"]) == (16, 0)
    assert (served["first_data"], served["chunks"], served["gaps"]) == (16, 320, 304)


def test_a_client_that_closes_mid_stream_aborted(served: Served) -> None:
    connection = served.connect()
    connection.sendall(post("/v1/stream?chunks=10000&gap=5"))
    served.until(lambda: served["chunks"] > 3)
    connection.close()
    served.until(lambda: served["in_flight"] == 0)
    assert (served["client_aborted"], served["server_aborted"], served["completed"]) == (1, 0, 0)


def test_a_client_that_resets_mid_stream_aborted(served: Served) -> None:
    connection = served.connect()
    connection.sendall(post("/v1/stream?chunks=10000&gap=5"))
    served.until(lambda: served["chunks"] > 3)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    served.until(lambda: served["in_flight"] == 0)
    assert (served["client_aborted"], served["resets_in"]) == (1, 1)
    served.until(lambda: served["connections_closed"] == 1)


def test_a_client_that_gives_up_waiting_aborted(served: Served) -> None:
    connection = served.connect()
    connection.sendall(post("/v1/silent"))
    served.until(lambda: served["waiting"] == 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    served.until(lambda: served["in_flight"] == 0)
    assert (served["client_aborted"], served["waiting"]) == (1, 0)


def test_a_server_killed_mid_stream_aborted(served: Served) -> None:
    connections = [served.connect() for _ in range(3)]
    for connection in connections[:2]:
        connection.sendall(post("/v1/stream?chunks=10000&gap=5"))
    served.until(lambda: served["chunks"] > 6)
    served.process.send_signal(signal.SIGKILL)
    served.until(lambda: served["in_flight"] == 0)
    assert (served["server_aborted"], served["client_aborted"]) == (2, 0)
    for connection in connections:
        connection.close()
    served.until(lambda: served["connections_closed"] == 3)


def test_a_response_that_ends_with_its_connection_is_complete(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/closing?chunks=5"))
        assert read_answer(connection).count(b"data:") == 5
    served.until(lambda: served["in_flight"] == 0)
    assert (served["completed"], served["chunks"], served["server_aborted"]) == (1, 5, 0)


def test_a_request_that_rides_on_the_third_ack_is_not_missed(served: Served) -> None:
    for _ in range(5):
        with socket.socket() as connection:
            connection.settimeout(5)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)  # delays the bare ACK
            connection.connect((served.host, served.port))
            connection.sendall(post("/v1/plain?size=9"))
            read_answer(connection)
    assert (served["started"], served["completed"], served["connections_opened"]) == (5, 5, 5)
    assert served["rx_bytes"] == 5 * len(post("/v1/plain?size=9"))


def test_large_bodies_both_ways_count_their_bytes_once(served: Served) -> None:
    request = post("/v1/plain?size=3000000", b"u" * 1_000_000)
    with served.connect() as connection:
        connection.sendall(request)
        answer = read_answer(connection)
    assert (served["rx_bytes"], served["tx_bytes"]) == (len(request), len(answer))
    assert (served["started"], served["completed"]) == (1, 1)


def test_a_header_of_sixty_four_kilobytes_is_lost_not_wrong(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/padded?size=64000"))
        read_answer(connection)
        assert (served["in_flight"], served["waiting"]) == (0, 0)
    assert (served["started"], served["lost"], served["connections_opaque"]) == (1, 1, 1)


def test_a_header_of_six_kilobytes_in_one_segment_is_read(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/padded?size=6000"))
        read_answer(connection)
    assert (served["completed"], served["lost"], served["first_data"]) == (1, 0, 1)


def test_ipv6_connections_are_followed(node: Node) -> None:
    try:
        served = node.serve("::1")
    except OSError as error:
        skip_or_fail("kernel", f"no IPv6 loopback: {error}")
    with served.connect() as connection:
        connection.sendall(post("/v1/stream?chunks=4"))
        read_answer(connection)
    assert (served["completed"], served["chunks"]) == (1, 4)


def test_syns_and_syn_acks_are_seen_at_the_listener(served: Served) -> None:
    for _ in range(4):
        served.connect().close()
    assert (served["syns"], served["syn_acks"]) == (4, 4)


def test_loading_again_in_mid_stream_changes_no_count(node: Node, served: Served) -> None:
    before = node.hook_programs()
    with served.connect() as connection:
        connection.sendall(post("/v1/stream?chunks=300&gap=10"))
        served.until(lambda: served["chunks"] > 3)
        assert loader.load(node.pins, node.cgroup) == 0
        assert len(node.hook_programs()) == len(before)
        assert read_answer(connection).count(b"data:") == 300
    assert (served["started"], served["completed"], served["chunks"], served["in_flight"]) == (1, 1, 300, 0)


def test_a_second_cgroup_is_refused_while_loaded(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert loader.load(node.pins, node.cgroup.parent) == 1
    assert "already attached to another cgroup" in capsys.readouterr().out


def test_of_two_loaders_at_once_one_is_told_to_wait(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    with loader._locked(node.pins):
        assert loader.load(node.pins, node.cgroup) == 1
    assert "another load or unload" in capsys.readouterr().out


def test_a_socket_older_than_its_owner_is_followed_from_its_next_request(node: Node) -> None:
    served = node.serve()
    served.node.slots[served.slot]["generation"] = 99  # as if the owner were not yet known
    with served.connect() as connection:
        connection.sendall(post("/v1/plain?size=5"))
        read_answer(connection)
        assert served["started"] == 0
        served.node.slots[served.slot]["generation"] = 3
        node.bump_epoch()
        connection.sendall(post("/v1/plain?size=5"))
        read_answer(connection)
    assert (served["started"], served["completed"]) == (1, 1)


def test_unloading_leaves_no_program_and_no_pin(bench: Bench) -> None:
    with running_node("unload") as node:
        assert len(node.hook_programs()) == 3
        assert loader.unload(node.pins) == 0
        wait_until(lambda: node.hook_programs() == [])  # detached a moment after the last pin is gone
        assert not node.pins.root.exists()
        assert not os.path.exists(node.pins.lock)
