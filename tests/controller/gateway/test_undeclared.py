"""Gateways that send no protocol_config: what they do tells how they send bodies."""

from __future__ import annotations

import pytest

from controller.choosing.picker import Picker
from controller.exporting.counts import Counts
from controller.gateway import extproc
from controller.gateway.exchange import Exchange
from controller.gateway.modes import BUFFERED, FULL_DUPLEX
from tests.controller import messages as m
from tests.controller.known import table

DESTINATION = "10.0.0.1:8000"


def test_one_that_sends_body_without_an_answer_speaks_full_duplex() -> None:
    exchange = Exchange()
    assert exchange.receive(m.headers(None)) == []
    assert exchange.undecided
    exchange.receive(m.body())
    answers = exchange.answer(DESTINATION)

    assert m.kinds(answers) == ["request_headers", "request_body"]
    assert m.header_pick(m.read(answers[0])) == DESTINATION
    assert m.streamed(answers[1:])[0] == m.BODY
    assert exchange.learned == FULL_DUPLEX


def test_one_that_waits_buffers() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(None, x_gateway_destination_endpoint="6.6.6.6:6"))
    (passed,) = exchange.quiet()

    assert m.mutation(m.read(passed)).remove_headers == ["x-gateway-destination-endpoint"]
    assert not exchange.undecided
    exchange.receive(m.body())
    (answer,) = exchange.answer(DESTINATION)
    assert m.read(answer).WhichOneof("response") == "request_body"
    assert m.header_pick(m.read(answer)) == m.metadata_pick(m.read(answer)) == DESTINATION
    assert exchange.learned == BUFFERED


def test_one_that_begins_with_the_body_buffers() -> None:
    exchange = Exchange()
    exchange.receive(m.body())
    assert exchange.asks is not None
    assert exchange.asks.model == "m"
    (answer,) = exchange.answer(DESTINATION)

    assert m.read(answer).WhichOneof("response") == "request_body"
    assert m.header_pick(m.read(answer)) == DESTINATION


def test_after_a_wrong_guess_every_body_message_is_answered() -> None:
    """A slow client behind a gateway that streams: the pick comes too late to change headers, but nothing hangs."""
    exchange = Exchange()
    exchange.receive(m.headers(None))
    exchange.quiet()
    exchange.receive(m.body(m.BODY[:9], ends=False))
    assert exchange.asks is not None
    assert (exchange.asks.model, exchange.asks.body) == (None, None)
    answers = exchange.answer(DESTINATION)
    answers += exchange.receive(m.body(m.BODY[9:]))

    assert m.kinds(answers) == ["request_body", "request_body"]
    assert exchange.learned is None


def test_trailers_without_body_are_full_duplex_too() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(None, path="/other"))
    exchange.receive(m.trailers())

    assert m.kinds(exchange.answer(DESTINATION)) == ["request_headers", "request_trailers"]


@pytest.mark.parametrize("waits", [True, False], ids=["buffered", "duplex"])
def test_its_responses_come_as_its_requests_do(waits: bool) -> None:
    exchange = Exchange()
    exchange.receive(m.headers(None))
    if waits:
        exchange.quiet()
    exchange.receive(m.body())
    exchange.answer(DESTINATION)
    answers = exchange.receive(m.response_body(b"data", True))

    assert m.kinds(answers) == ["response_body"]
    assert m.streamed(answers, "response_body")[0] == (b"" if waits else b"data")


def test_a_request_without_body_leaves_nothing_to_decide() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(None, ends=True))

    assert not exchange.undecided
    assert exchange.asks is not None


@pytest.mark.parametrize(("assumed", "kinds"), [(BUFFERED, ["request_headers"]), (FULL_DUPLEX, [])])
def test_an_operator_may_tell(assumed: int, kinds: list[str]) -> None:
    exchange = Exchange(assumed)

    assert m.kinds(exchange.receive(m.headers(None))) == kinds
    assert not exchange.undecided


@pytest.mark.parametrize("mode", [BUFFERED, FULL_DUPLEX])
def test_what_the_gateway_says_counts_more_than_what_is_assumed(mode: int) -> None:
    exchange = Exchange(FULL_DUPLEX if mode == BUFFERED else BUFFERED)

    assert bool(exchange.receive(m.headers(mode))) is (mode == BUFFERED)
    assert exchange.quiet() == []


def test_of_many_connections_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extproc, "PEER_LIMIT", 3)
    processor = extproc.ExternalProcessor(Picker(table()), Counts())
    for at in range(5):
        processor._remember(f"ipv4:10.0.0.9:{at}", BUFFERED)

    assert list(processor._modes) == [f"ipv4:10.0.0.9:{at}" for at in (2, 3, 4)]
