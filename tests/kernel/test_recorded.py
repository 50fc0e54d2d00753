"""Exchanges as real engines had them, cut anywhere, sent again, overtaken: the same counts, and no count twice."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from random import Random

import pytest

from agent.kernel import bpfsys
from tests.kernel.conversation import Bench, Conversation

FOLDER = Path(__file__).parents[1] / "data" / "exchanges"
NAMES = sorted(path.stem for path in FOLDER.glob("*.request"))
SCALARS = ("started", "responded", "first_data", "completed", "in_flight", "waiting", "lost", "connections_opaque",
           "pipelined", "status_4xx", "rx_bytes", "tx_bytes")  # fmt: skip


def exchange(name: str) -> tuple[bytes, bytes]:
    return (FOLDER / f"{name}.request").read_bytes(), (FOLDER / f"{name}.response").read_bytes()


def talk(bench: Bench, port: int = 55_000) -> tuple[Conversation, dict[str, int]]:
    """A new connection from a port whose last one is forgotten."""
    bpfsys.map_delete(bench.programs.map_fd("test_flows"), struct.pack("<I", port))
    made = bench.converse(slot=930, client_port=port)
    return made, {name: made[name] for name in SCALARS}


def rise(made: Conversation, before: dict[str, int]) -> dict[str, int]:
    return {name: made[name] - before[name] for name in SCALARS}


def pieces(data: bytes, rng: Random, most: int = 12) -> list[bytes]:
    edges = sorted({0, len(data), *(rng.randrange(1, len(data)) for _ in range(rng.randrange(most)))})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def troubled(made: Conversation, direction: str, data: bytes, rng: Random) -> None:
    """In order, but now and then old bytes come again; from the client also bytes too early, or old and new at once."""
    send = made.client if direction == "ingress" else made.server
    done = b""
    for piece in pieces(data, rng):
        if done and rng.random() < 0.4:  # other boundaries than before, as offload and path changes make them
            start = rng.randrange(len(done))
            old = done[start : rng.randrange(start, len(done)) + 1]
            made.sent[direction] -= len(done) - start
            send(old)
            made.sent[direction] += len(done) - start - len(old)
        if direction == "ingress" and done and rng.random() < 0.3 and len(piece) > 1:
            send(piece[len(piece) // 2 :], ahead=len(piece) // 2)  # overtakes, and comes again behind
        if direction == "ingress" and done and rng.random() < 0.3:  # a retransmission with something new at its end
            n = rng.randrange(1, len(done) + 1)
            made.sent[direction] -= n
            send(done[-n:] + piece)
        else:
            send(piece)
        done += piece


def test_there_are_exchanges_of_both_engines() -> None:
    assert {name.split("_")[0] for name in NAMES} == {"triton", "vllm"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_exchange_is_one_complete_request(bench: Bench, name: str) -> None:
    request, response = exchange(name)
    made, before = talk(bench)
    made.client(request).server(response)
    found = rise(made, before)
    assert (found["started"], found["completed"], found["first_data"], found["in_flight"]) == (1, 1, 1, 0)
    assert found["status_4xx"] == (name == "vllm_404")
    assert (found["rx_bytes"], found["tx_bytes"]) == (len(request), len(response))


@pytest.mark.parametrize("seed", range(200))
def test_any_segmentation_under_any_trouble_counts_the_same(bench: Bench, seed: int) -> None:
    rng = Random(seed)
    names = [rng.choice(NAMES) for _ in range(rng.randrange(1, 4))]
    made, before = talk(bench)
    for request, response in map(exchange, names):
        made.client(request).server(response)
    expected = rise(made, before)
    assert expected["completed"] == len(names)
    made, before = talk(bench)
    for request, response in map(exchange, names):
        troubled(made, "ingress", request, rng)
        troubled(made, "egress", response, rng)
        assert made.balanced()
    assert rise(made, before) == expected


@pytest.mark.parametrize("name", [name for name in NAMES if "stream" in name])
def test_the_terminator_cut_at_every_byte_ends_the_answer(bench: Bench, name: str) -> None:
    request, response = exchange(name)
    for place in range(len(response) - 40, len(response)):
        made, before = talk(bench)
        made.client(request).server(response[:place])
        assert rise(made, before)["in_flight"] == 1, place
        made.server(response[place:])
        assert (rise(made, before)["completed"], rise(made, before)["in_flight"]) == (1, 0), place


@pytest.mark.parametrize("name", [name for name in NAMES if name != "triton_generate"])
def test_the_first_data_is_the_same_byte_wherever_it_is_cut(bench: Bench, name: str) -> None:
    """Each piece comes at the time of its last byte's number, so the sum says in which the first data was seen."""
    request, response = exchange(name)
    body = response.index(b"\r\n\r\n") + 4
    first = response.index(b"data:", body) + 5 if "stream" in name else body + 1
    rng = Random(name)
    for _ in range(25):
        made, before = talk(bench)
        sum_before = made["ttft_ns_sum"]
        made.at(0).client(request)
        ends = list(itertools.accumulate(map(len, cut := pieces(response, rng))))
        for end, piece in zip(ends, cut, strict=True):
            made.at(end).server(piece)
        assert rise(made, before)["first_data"] == 1
        assert (made["ttft_ns_sum"] - sum_before) // 1000 == next(end for end in ends if end >= first), cut
