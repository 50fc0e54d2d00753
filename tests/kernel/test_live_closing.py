"""How connections end, by whom, and what becomes of the requests on them."""

from __future__ import annotations

import signal
import socket
import struct

import pytest

from tests.kernel.live import SERVER, Node, Served, post, read_answer

CAUSES = ("closed_by_client", "closed_by_server", "reset_by_client", "reset_by_server", "timed_out")


@pytest.fixture
def served(node: Node) -> Served:
    return node.serve()


def causes(served: Served) -> dict[str, int]:
    served.until(lambda: served["connections_closed"] == served["connections_opened"], within_s=10)
    found = {name: served[name] for name in CAUSES if served[name]}
    assert sum(found.values()) == served["connections_closed"]
    return found


def test_a_client_that_closes_first_is_the_cause(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/plain"))
        read_answer(connection)
    assert causes(served) == {"closed_by_client": 1}


def test_a_server_that_closes_first_is_the_cause(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/closing?chunks=2"))
        read_answer(connection)
    assert causes(served) == {"closed_by_server": 1}


def test_resets_of_both_sides_are_causes(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/plain"))
        read_answer(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    served.until(lambda: served["reset_by_client"] == 1)
    with served.connect() as connection:
        connection.sendall(post("/v1/silent", b"x") + b"unread" * 1000)
        served.until(lambda: served["waiting"] == 1)
        served.process.send_signal(signal.SIGSTOP)  # so that these bytes are never read
        connection.sendall(b"unread" * 1000)
        served.process.send_signal(signal.SIGKILL)
        served.until(lambda: served["in_flight"] == 0, within_s=10)
    assert causes(served) == {"reset_by_client": 1, "reset_by_server": 1}
    assert served["server_aborted"] == 1


def test_a_half_close_is_no_abort_when_the_answer_comes_whole(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/stream?chunks=5&gap=20"))
        connection.shutdown(socket.SHUT_WR)
        assert read_answer(connection).count(b"data:") == 5
    assert causes(served) == {"closed_by_client": 1}
    assert (served["completed"], served["client_aborted"]) == (1, 0)


def test_a_half_close_before_a_response_that_ends_with_its_connection(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/closing?chunks=5&gap=20"))
        connection.shutdown(socket.SHUT_WR)
        assert read_answer(connection).count(b"data:") == 5
    causes(served)
    assert (served["completed"], served["client_aborted"], served["server_aborted"]) == (1, 0, 0)


def test_after_an_abort_the_next_connection_is_measured_as_ever(served: Served) -> None:
    for _ in range(5):
        aborted = served.connect()
        aborted.sendall(post("/v1/stream?chunks=1000&gap=5"))
        served.until(lambda: served["in_flight"] == 1)
        aborted.close()
        served.until(lambda: served["in_flight"] == 0)
        with served.connect() as connection:
            connection.sendall(post("/v1/plain"))
            read_answer(connection)
    assert (served["started"], served["completed"], served["client_aborted"]) == (10, 5, 5)


def test_workers_that_share_a_port_share_its_slot(node: Node) -> None:
    served = node.serve()
    served.process.kill()
    served.process.wait()
    for _ in range(3):
        node.start(served.host, served.port, SERVER, "shared")
    for _ in range(30):
        with served.connect() as connection:
            connection.sendall(post("/v1/plain"))
            read_answer(connection)
    assert (served["started"], served["completed"], served["connections_opened"]) == (30, 30, 30)


def test_a_client_that_waits_for_continue_is_measured_from_its_first_byte(served: Served) -> None:
    head, _, body = post("/v1/plain", b"b" * 100_000).partition(b"\r\n\r\n")
    with served.connect() as connection:
        connection.sendall(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        read_answer(connection)
    assert (served["started"], served["responded"], served["completed"], served["first_data"]) == (1, 1, 1, 1)
    assert 0 < served["upload_ns_sum"] <= served["header_ns_sum"]


def test_pipelined_requests_on_a_real_connection(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/plain?size=5") * 4)
        data = b""
        while data.count(b"HTTP/1.1 200") < 4 or not data.endswith(b"xxxxx"):
            data += connection.recv(65536)
    served.until(lambda: served["completed"] == 4)
    assert (served["started"], served["in_flight"], served["waiting"]) == (4, 0, 0)
