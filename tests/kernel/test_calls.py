"""What write and read calls add: chunks as they were written, whatever loss makes of segments, and read delays."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from agent.kernel import check, loader
from tests.conftest import skip_or_fail
from tests.kernel.conversation import Bench
from tests.kernel.live import Node, Served, post, read_answer, running_node


@pytest.fixture(scope="module")
def node(bench: Bench) -> Iterator[Node]:
    with running_node("calls") as node:
        if not node.pins.follows_calls():
            skip_or_fail("kernel", "this kernel has no tracepoints of write and read calls (they came with 6.3)")
        yield node


@pytest.fixture
def served(node: Node) -> Served:
    return node.serve()


def test_chunks_by_writes_equal_chunks_by_segments_without_loss(served: Served) -> None:
    with served.connect() as connection:
        for _ in range(3):
            connection.sendall(post("/v1/stream?chunks=20&gap=2"))
            read_answer(connection)
        connection.sendall(post("/v1/plain?size=100"))
        read_answer(connection)
    assert (served["chunks"], served["exact_chunks"]) == (61, 61)


def test_chunks_held_back_by_a_full_window_are_counted_as_written(served: Served) -> None:
    """A client that does not read makes the server's segments wait and merge."""
    with served.connect() as connection:
        connection.setsockopt(1, 8, 4096)  # SOL_SOCKET, SO_RCVBUF
        connection.sendall(post("/v1/stream?chunks=3000&gap=0"))
        served.until(lambda: served["chunks"] > 10)
        time.sleep(0.2)
        assert read_answer(connection).count(b"data:") == 3000
    served.until(lambda: served["completed"] == 1)
    assert served["exact_chunks"] == 3000


def test_a_server_that_stands_still_shows_in_the_read_delay(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/plain"))
        read_answer(connection)
        before = (served["read_delay_ns_sum"], int(served.histogram("read_delay_hist").sum()))
        assert before[1] >= 1
        served.process.send_signal(signal.SIGSTOP)
        connection.sendall(post("/v1/plain"))
        served.until(lambda: served["started"] == 2)
        threading.Timer(0.25, lambda: served.process.send_signal(signal.SIGCONT)).start()
        read_answer(connection)
    assert served["read_delay_ns_sum"] - before[0] >= 240_000_000
    assert served.histogram("read_delay_hist").sum() == before[1] + 1


def test_loading_again_attaches_no_call_twice(node: Node, served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(post("/v1/stream?chunks=100&gap=5"))
        served.until(lambda: served["chunks"] > 3)
        assert loader.load(node.pins, node.cgroup) == 0
        read_answer(connection)
    assert (served["chunks"], served["exact_chunks"]) == (100, 100)


def test_check_says_which_level_is_reached(node: Node) -> None:
    row = next(row for row in check.preflight(node.pins) if row.name == "write and read calls")
    if not row.found:
        skip_or_fail("kernel", row.detail)
    assert row.detail.startswith("level 2")
    assert "measurement is of level 2" in check._state(node.pins)
