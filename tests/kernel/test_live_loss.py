"""Segments of real connections lost, overtaken, repeated, cut anew: no request is missed, none is counted twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

import pytest

from tests.conftest import skip_or_fail
from tests.kernel import tun
from tests.kernel.live import Node, Served, post
from tests.kernel.test_live_http2 import GRPC_SERVER, HELLO, unary_call
from tests.kernel.tun import Client, Link

REQUEST = post("/v1/plain?size=30", b"b" * 900)
ENDING = b"x" * 30
PIECES = (REQUEST[:60], REQUEST[60:400], REQUEST[400:])
OFFSETS = (0, 60, 400)
ORDERS = list(itertools.permutations(range(3)))


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    try:
        with tun.link() as link:
            yield link
    except OSError as error:
        skip_or_fail("kernel", f"no TUN device: {error}")


@pytest.fixture(scope="module")
def served(node: Node, link: Link) -> Served:
    return node.serve(link.server)


def rise(served: Served, before: dict[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in served.counts().items() if count != before.get(name)}


def close(served: Served, client: Client) -> None:
    closed = served["connections_closed"]
    client.finish()
    served.until(lambda: served["connections_closed"] == closed + 1)


@pytest.mark.parametrize("order", ORDERS)
def test_segments_of_a_request_in_any_order_are_that_request(
    served: Served, link: Link, order: tuple[int, ...]
) -> None:
    before = served.counts()
    client = Client(link, served.port).open()
    for number in range(2):
        for piece in order:
            client.segment(PIECES[piece], number * len(REQUEST) + OFFSETS[piece])
        client.read_until(ENDING)
    close(served, client)
    found = rise(served, before)
    assert (found["started"], found["completed"], found["first_data"]) == (2, 2, 2)
    assert not {"adopted", "lost", "connections_opaque", "pipelined"} & found.keys()
    assert (served["in_flight"], served["waiting"]) == (0, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_the_first_to_come_may_be_the_third_ack_too(served: Served, link: Link, order: tuple[int, ...]) -> None:
    """The bare ACK was lost, so a segment opens the connection, and not always the first."""
    before = served.counts()
    client = Client(link, served.port).open(PIECES[order[0]], OFFSETS[order[0]])
    for piece in order[1:]:
        client.segment(PIECES[piece], OFFSETS[piece])
    client.read_until(ENDING)
    close(served, client)
    found = rise(served, before)
    assert (found["started"], found["completed"], found["first_data"]) == (1, 1, 1)
    assert not {"adopted", "lost", "connections_opaque", "pipelined"} & found.keys()


def test_a_third_ack_that_comes_again_is_one_request(served: Served, link: Link) -> None:
    before = served.counts()
    client = Client(link, served.port).open(REQUEST)
    client.segment(REQUEST).segment(REQUEST[:100]).segment(REQUEST[50:], 50)
    client.read_until(ENDING)
    close(served, client)
    found = rise(served, before)
    assert (found["started"], found["completed"], found["rx_bytes"]) == (1, 1, len(REQUEST))


@pytest.mark.parametrize("with_ack", [REQUEST, b""])
def test_data_on_a_syn_that_is_not_taken_is_no_request_of_its_own(served: Served, link: Link, with_ack: bytes) -> None:
    before = served.counts()
    client = Client(link, served.port).open(with_ack, on_syn=REQUEST)
    client.segment(REQUEST)
    client.read_until(ENDING)
    close(served, client)
    found = rise(served, before)
    assert (found["started"], found["completed"], found["rx_bytes"]) == (1, 1, len(REQUEST))


def test_clients_that_open_at_the_same_time_are_kept_apart(served: Served, link: Link) -> None:
    before = served.counts()
    clients = [Client(link, served.port) for _ in range(3)]
    for client in clients:
        client.open(REQUEST if client is clients[1] else b"")
    for client in (clients[0], clients[2]):
        client.segment(REQUEST)
    for client in clients:
        client.read_until(ENDING)
        close(served, client)
    found = rise(served, before)
    assert (found["started"], found["completed"], found["connections_opened"]) == (3, 3, 3)
    assert found["rx_bytes"] == 3 * len(REQUEST)


@pytest.mark.parametrize("seed", range(20))
def test_bytes_sent_again_in_other_pieces_count_once(served: Served, link: Link, seed: int) -> None:
    rng, before, said = Random(seed), served.counts(), REQUEST * 3
    client = Client(link, served.port).open()
    for number in range(3):
        start, end = number * len(REQUEST), (number + 1) * len(REQUEST)
        cuts = sorted({start, end, *(rng.randrange(start, end) for _ in range(4))})
        parts = list(itertools.pairwise(cuts))
        parts += [sorted((rng.randrange(end), rng.randrange(end))) for _ in range(4)]
        rng.shuffle(parts)
        for a, b in [*parts, (start, end)]:
            client.segment(said[a:b], a)
        client.read_until(ENDING)
    close(served, client)
    found = rise(served, before)
    assert (found["started"], found["completed"], found["first_data"]) == (3, 3, 3)
    assert not {"adopted", "lost", "connections_opaque", "pipelined"} & found.keys()


@pytest.mark.parametrize("later", [True, False], ids=["the client goes on", "the client says no more"])
def test_frames_overtaken_and_so_missed_make_the_connection_opaque(node: Node, link: Link, later: bool) -> None:
    served = node.serve(link.server, GRPC_SERVER)
    calls = [unary_call(2 * n + 1) for n in range(3)]
    client = Client(link, served.port).open(HELLO)
    first = len(HELLO)
    client.segment(calls[1], first + len(calls[0])).segment(calls[0], first)  # the second call overtakes the first
    served.until(lambda: served["started"] == 1)
    if later:
        client.segment(calls[2], first + len(calls[0]) + len(calls[1]))
    while served["connections_opaque"] == 0:
        client.take()
    assert (served["started"], served["in_flight"], served["waiting"]) == (1, 0, 0)
    assert served["completed"] + served["lost"] == 1
    assert served["chunks"] <= 1
    close(served, client)
