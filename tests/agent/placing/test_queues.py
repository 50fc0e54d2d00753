"""Listeners to slots, and the connections that were open before anybody counted; sockets of this very process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.sockdiag import Listener, Namespace, messages
from agent.placing.pods import CgroupId, PodUid
from agent.placing.queues import Queue, Sockets, SocketTables, queues
from agent.placing.slots import Endpoint, Held, Key, Owner
from tests.conftest import skip_or_fail

ONE, TWO = Owner(0, 3), Owner(1, 1)
OWNERS = {Key(CgroupId(7), 80): ONE, Key(CgroupId(8), 80): ONE, Key(CgroupId(7), 81): TWO}


def test_workers_that_share_a_port_have_their_queues_summed() -> None:
    found = queues([Listener(80, 7, 3, 128), Listener(80, 8, 4, 128), Listener(81, 7, 0, 10)], OWNERS, {})
    assert found == {ONE: Queue(7, 256, 7), TWO: Queue(0, 10, 0)}


def test_listeners_of_nobody_are_passed_over() -> None:
    assert queues([Listener(82, 7, 3, 128), Listener(80, 9, 1, 1)], OWNERS, {}) == {}


def test_the_longest_is_remembered_for_the_same_slot_only() -> None:
    before = {ONE: Sockets(Queue(5, 128, 9)), Owner(1, 0): Sockets(Queue(5, 128, 50))}
    found = queues([Listener(80, 7, 3, 128), Listener(81, 7, 2, 10)], OWNERS, before)
    assert (found[ONE].longest, found[TWO].longest) == (9, 2)


@pytest.mark.parametrize("raw", [b"", b"\x01", bytes(15), bytes(40), b"\xff" * 3 + bytes(30)])
def test_what_is_cut_off_holds_no_message(raw: bytes) -> None:
    assert [kind for kind, _ in messages(raw) if kind] == []


def own_cgroup() -> CgroupId:
    tree = next(
        f for _, f, kind, *_ in map(str.split, Path("/proc/self/mounts").read_text().splitlines()) if kind == "cgroup2"
    )
    line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return CgroupId(os.stat(tree + line[3:].strip()).st_ino)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param) as listening:
        try:
            listening.bind(("127.0.0.1" if request.param == socket.AF_INET else "::1", 0))
        except OSError as error:
            skip_or_fail("kernel", f"there is no such loopback: {error}")
        listening.listen(5)
        yield listening


def test_the_kernel_tells_queue_limit_and_connections(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    clients = [socket.create_connection(listener.getsockname()[:2]) for _ in range(3)]
    accepted = listener.accept()[0]
    namespace = Namespace()
    try:
        (mine,) = [one for one in namespace.listeners() if one.port == port]
        assert (mine.queued, mine.limit) == (2, 5)
        assert sum(namespace.open_connections(port).values()) == 3
    finally:
        namespace.close()
        for one in (*clients, accepted):
            one.close()


def test_idle_connections_from_before_are_counted_until_they_speak(listener: socket.socket, tmp_path: Path) -> None:
    try:
        cgroup = own_cgroup()
    except (OSError, StopIteration) as error:
        skip_or_fail("kernel", f"there is no cgroup v2 of this process: {error}")
    endpoint = Endpoint(PodUid("u"), listener.getsockname()[1])
    held = {endpoint: Held(ONE, frozenset({cgroup}))}
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    clients = [socket.create_connection(listener.getsockname()[:2]) for _ in range(4)]
    tables = SocketTables()
    try:
        tables.look(held, {cgroup: str(tmp_path)}, {ONE: 0})
        if tables.found.get(ONE, Sockets()).queue is None:
            skip_or_fail("kernel", "this kernel does not say which cgroup a socket has (it came with 5.9)")
        assert tables.found[ONE] == Sockets(Queue(4, 5, 4), unheard=4)
        assert tables.look(held, {cgroup: str(tmp_path)}, {ONE: 3})[ONE].unheard == 1
        assert tables.look(held, {cgroup: str(tmp_path)}, {ONE: 4})[ONE].unheard == 0
        assert tables.look({}, {}, {}) == {}
    finally:
        tables.close()
        for client in clients:
            client.close()


def test_a_pod_without_a_process_has_no_namespace_yet(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("")
    held = {Endpoint(PodUid("u"), 80): Held(ONE, frozenset({CgroupId(1), CgroupId(2)}))}
    assert SocketTables().look(held, {CgroupId(1): str(tmp_path), CgroupId(2): "/nowhere"}, {ONE: 0}) == {}
