"""Every order of messages a gateway could send, and faults of our own at any point."""

from __future__ import annotations

from itertools import product

import pytest

from controller.gateway.exchange import Exchange
from controller.gateway.modes import BUFFERED, BUFFERED_PARTIAL, FULL_DUPLEX, NONE, STREAMED
from tests.controller import messages as m

DESTINATION = "10.0.0.1:8000"
MODES = [NONE, STREAMED, BUFFERED, BUFFERED_PARTIAL, FULL_DUPLEX, None]
LETTERS = "hHbBtxyzg"  # the next test's messages by a letter each


def sent(letter: str, mode: int | None) -> bytes:
    return {
        "h": m.headers(mode, response_mode=FULL_DUPLEX),
        "H": m.headers(mode, ends=True),
        "b": m.body(b'{"model": "m"', ends=False),
        "B": m.body(b"}", ends=True),
        "t": m.trailers(),
        "x": m.response_headers(),
        "y": m.response_body(b"data", True),
        "z": m.response_trailers(),
        "g": b"\xff\xff",
    }[letter]


@pytest.mark.parametrize("mode", MODES)
def test_in_every_order_what_is_answered_makes_sense(mode: int | None) -> None:
    for letters in product(LETTERS, repeat=4):
        exchange = Exchange()
        answers: list[bytes] = []
        for letter in letters:
            answers += exchange.receive(sent(letter, mode))
            if exchange.asks:
                answers += exchange.answer(DESTINATION)
        sense(letters, answers)


def sense(letters: tuple[str, ...], answers: list[bytes]) -> None:
    read = [m.read(answer) for answer in answers]
    kinds = [answer.WhichOneof("response") for answer in read]
    asked = {"h": "request_headers", "H": "request_headers", "b": "request_body", "B": "request_body"}
    seen = {asked.get(letter) for letter in letters}
    assert kinds.count("request_headers") <= 1, letters
    assert kinds.count("immediate_response") <= 1, letters
    assert "request_headers" not in kinds or "request_headers" in seen, letters
    assert sum(m.metadata_pick(answer) is not None for answer in read) <= 1, letters
    if "immediate_response" in kinds:
        assert kinds[-1] == "immediate_response", letters
    ends = [
        a.request_body.response.body_mutation.streamed_response.end_of_stream
        for a, kind in zip(read, kinds, strict=True)
        if kind == "request_body"
    ]
    assert sum(ends) <= 1, letters
    if "request_body" in kinds and "request_headers" in kinds:
        assert kinds.index("request_headers") < kinds.index("request_body"), letters


@pytest.mark.parametrize("passes", [True, False], ids=["fail open", "fail close"])
@pytest.mark.parametrize(
    ("mode", "letters", "kinds"),
    [
        (NONE, "h", ["request_headers"]),
        (STREAMED, "h", ["request_headers"]),
        (BUFFERED, "H", ["request_headers"]),
        (BUFFERED, "hB", ["request_body"]),
        (BUFFERED, "ht", ["request_trailers"]),
        (BUFFERED_PARTIAL, "hb", ["request_body"]),
        (FULL_DUPLEX, "H", ["request_headers"]),
        (FULL_DUPLEX, "hB", ["request_headers", "request_body"]),
        (FULL_DUPLEX, "hbt", ["request_headers", "request_body", "request_trailers"]),
        (FULL_DUPLEX, "h", ["request_headers"]),
        (FULL_DUPLEX, "hb", ["request_headers", "request_body"]),
    ],
)
def test_a_fault_of_ours_is_answered_as_the_pool_says(mode: int, letters: str, kinds: list[str], passes: bool) -> None:
    exchange = Exchange()
    for letter in letters:
        message = m.body(m.BODY) if letter == "B" else m.headers(mode, path="/x") if letter == "h" else None
        exchange.receive(message or sent(letter, mode))
    answers = exchange.fail(passes)

    if not passes:
        assert m.kinds(answers) == ["immediate_response"]
        immediate = m.read(answers[0]).immediate_response
        assert (immediate.status.code, immediate.body) == (
            500,
            b"inference error: Internal - the endpoint picker failed",
        )
        return
    assert m.kinds(answers) == kinds
    assert not any(m.metadata_pick(m.read(answer)) for answer in answers)
    if kinds[0] == "request_headers":  # whatever the client sent may not have been read
        assert "x-gateway-destination-endpoint" in m.mutation(m.read(answers[0])).remove_headers


def test_after_a_fault_inside_a_streamed_body_the_rest_goes_back_as_it_comes() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(FULL_DUPLEX))
    exchange.receive(m.body(b"one", ends=False))
    answers = exchange.fail(passes=True)
    assert not exchange.answered  # the stream must not end before the body has
    answers += exchange.receive(m.body(b"two", ends=False))
    answers += exchange.receive(m.body(b""))

    assert exchange.answered
    assert m.streamed(answers[1:]) == (b"onetwo", [False, False, True], [3, 3, 0])


def test_a_fault_after_the_answer_changes_nothing() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(NONE))
    exchange.answer(DESTINATION)

    assert exchange.fail(passes=True) == exchange.fail(passes=False) == []
