"""The servicer behind a real gRPC server on port 0."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
import grpc.aio
import pytest

from controller.catalog.classes import NO_ENDPOINT
from controller.choosing.admission import Gate, Nobody, admit_all, no_endpoint
from controller.choosing.affinity import Affinity
from controller.choosing.picker import Picker
from controller.endpoints.table import Table
from controller.exporting.counts import Counts, Series, Tally
from controller.gateway import extproc
from controller.gateway.exchange import BODY_LIMIT_BYTES
from controller.gateway.extproc import Manner
from controller.gateway.modes import BUFFERED, FULL_DUPLEX, NONE
from controller.policies.fleet import Policy
from controller.policies.price import SONDE
from tests.conftest import run
from tests.controller import messages as m
from tests.controller.known import pod, table

METHOD = f"/{extproc.SERVICE}/Process"


@dataclass
class Served:
    table: Table
    processor: extproc.ExternalProcessor
    counts: Counts
    server: grpc.aio.Server
    call: Callable[[], Any]

    def tally(self, model: str) -> Tally:
        """What is counted of a model; raises KeyError before anything is."""
        return self.counts.view().tallies[Series(model, model)]

    @property
    def ledger(self) -> Any:
        return self.table.rows[0].ledger


@asynccontextmanager
async def serving(
    *pods: Any,
    policy: Policy = SONDE,
    failure_mode: str = "FailClose",
    max_endpoints: int = 1,
    gate: Gate = admit_all,
    nobody: Nobody = no_endpoint,
    affinity: Affinity | None = None,
    **manner: Any,
) -> AsyncIterator[Served]:
    known = table(*pods, failure_mode=failure_mode)
    counts = Counts()
    picker = Picker(known, policy, Random(1), max_endpoints=max_endpoints, affinity=affinity or Affinity())
    processor = extproc.ExternalProcessor(picker, counts, Manner(**manner), gate, nobody)
    server = grpc.aio.server(options=extproc.OPTIONS)
    server.add_generic_rpc_handlers((processor.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield Served(known, processor, counts, server, channel.stream_stream(METHOD))
    await server.stop(None)


async def until(true: Callable[[], bool]) -> None:
    """The other end of a real connection acts when it acts; run() bounds the wait."""
    while not true():
        await asyncio.sleep(0.002)


async def ask(call: Any, *sent: bytes, answers: int) -> list[bytes]:
    for message in sent:
        await call.write(message)
    return [await call.read() for _ in range(answers)]


def serve(body: Callable[[Served], Awaitable[None]], *pods: Any, debug: bool = True, **options: Any) -> None:
    async def whole() -> None:
        async with serving(*pods, **options) as served:
            await body(served)

    run(whole(), debug=debug)


@pytest.mark.parametrize(
    ("mode", "sent", "expected"),
    [
        (BUFFERED, [m.body()], ["request_headers", "request_body"]),
        (FULL_DUPLEX, [m.body()], ["request_headers", "request_body"]),
        (NONE, [], ["request_headers"]),
    ],
)
def test_a_gateway_gets_its_endpoint_in_every_mode(mode: int, sent: list[bytes], expected: list[str]) -> None:
    async def body(served: Served) -> None:
        call = served.call()
        answers = await ask(call, m.headers(mode), *sent, answers=len(expected))
        await call.done_writing()

        assert m.kinds(answers) == expected
        assert "10.0.0.1:8000" in [m.metadata_pick(m.read(answer)) for answer in answers]
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    serve(body, pod("a"))


def test_a_body_of_20_mb_in_one_message_comes_back() -> None:
    big = b'{"model": "m", "prompt": "' + b"x" * 20_000_000 + b'"}'

    async def body(served: Served) -> None:
        call = served.call()
        await call.write(m.headers(FULL_DUPLEX))
        await call.write(m.body(big))
        assert m.kinds([await call.read()]) == ["request_headers"]
        answers = []
        while not answers or not m.streamed(answers[-1:])[1][0]:
            answers.append(await call.read())

        assert m.streamed(answers)[0] == big

    serve(body, pod("a"))


def test_a_buffered_body_that_is_too_large_gets_its_answer_too() -> None:
    async def body(served: Served) -> None:
        call = served.call()
        await ask(call, m.headers(BUFFERED), answers=1)
        (answer,) = await ask(call, m.body(bytes(BODY_LIMIT_BYTES + 1)), answers=1)
        assert m.read(answer).immediate_response.status.code == 413

    serve(body, pod("a"), debug=False)


def test_without_endpoints_the_answer_is_503() -> None:
    async def body(served: Served) -> None:
        call = served.call()
        (answer,) = await ask(call, m.headers(FULL_DUPLEX), m.body(), answers=1)

        immediate = m.read(answer).immediate_response
        assert immediate.status.code == 503
        assert immediate.body == b"inference error: ServiceUnavailable - " + NO_ENDPOINT.text.encode()
        assert await call.code() is grpc.StatusCode.OK
        await until(lambda: served.tally("m").errors == {"503": 1})
        await until(lambda: served.tally("m").running == 0)

    serve(body)


def test_a_buffered_stream_holds_its_reservation_until_it_ends() -> None:
    async def body(served: Served) -> None:
        call = served.call()
        await ask(call, m.headers(BUFFERED), m.body(), answers=2)
        assert served.ledger.own == 1

        await call.done_writing()
        await call.code()
        await until(lambda: served.processor.open == 0)

        assert served.ledger.own == 0

    serve(body, pod("a"))


def test_a_full_duplex_stream_that_ends_leaves_its_reservation_for_a_while() -> None:
    async def body(served: Served) -> None:
        call = served.call()
        await ask(call, m.headers(FULL_DUPLEX), m.body(), answers=2)
        await call.done_writing()
        await call.code()
        await until(lambda: served.processor.open == 0)

        assert (served.ledger.own, served.ledger.open) == (1, 0)

    serve(body, pod("a"))


@pytest.mark.parametrize(("mode", "known"), [(BUFFERED, True), (FULL_DUPLEX, False)])
def test_how_long_a_request_took_is_known_where_its_stream_lives_so_long(mode: int, known: bool) -> None:
    async def body(served: Served) -> None:
        call = served.call()
        await ask(call, m.headers(mode), m.body(), answers=2)
        assert served.tally("m").running == 1
        await call.done_writing()
        await until(lambda: served.tally("m").running == 0)
        assert sum(served.tally("m").durations_s.counts) == known
        assert served.tally("m").unfollowed is not known
        assert served.tally("m").sizes_bytes.sum == len(m.BODY)

    serve(body, pod("a"))


def test_an_answers_status_is_counted_where_the_gateway_shows_it() -> None:
    async def body(served: Served) -> None:
        call = served.call()
        await ask(call, m.headers(BUFFERED), m.body(), m.response_headers(status=500), answers=3)
        await call.done_writing()
        await until(lambda: served.tally("m").running == 0)
        assert served.tally("m").errors == {"500": 1}

    serve(body, pod("a"))


def test_a_gateway_that_goes_away_releases_its_reservation() -> None:
    async def body(served: Served) -> None:
        call = served.call()
        await ask(call, m.headers(BUFFERED), m.body(), answers=2)
        call.cancel()
        await until(lambda: served.processor.open == 0)

        assert served.ledger.own == 0

    serve(body, pod("a"))


def test_a_gateway_that_goes_away_before_the_body_reserves_nothing() -> None:
    async def body(served: Served) -> None:
        call = served.call()
        await ask(call, m.headers(BUFFERED), answers=1)
        call.cancel()
        await until(lambda: served.processor.open == 0)

        assert served.ledger.own == served.ledger.unshown == 0

    serve(body, pod("a"))


def test_a_body_that_does_not_come_ends_with_408_and_holds_nobody_else() -> None:
    async def body(served: Served) -> None:
        slow = served.call()
        await slow.write(m.headers(FULL_DUPLEX))
        other = served.call()
        assert len(await ask(other, m.headers(FULL_DUPLEX), m.body(), answers=2)) == 2

        assert m.read(await slow.read()).immediate_response.status.code == 408
        assert await slow.code() is grpc.StatusCode.OK

    serve(body, pod("a"), request_limit_s=0.1)


def test_bytes_that_are_no_message_do_not_hurt_the_next_request() -> None:
    async def body(served: Served) -> None:
        (answer,) = await ask(served.call(), b"\xff\xff", answers=1)
        assert m.read(answer).immediate_response.status.code == 400
        assert len(await ask(served.call(), m.headers(NONE), answers=1)) == 1

    serve(body, pod("a"))


def test_a_drain_ends_settled_streams_in_order_and_finishes_the_others() -> None:
    async def body(served: Served) -> None:
        settled, under_way = served.call(), served.call()
        await ask(settled, m.headers(BUFFERED), m.body(), answers=2)
        await ask(under_way, m.headers(BUFFERED), answers=1)

        served.processor.drain()
        assert await settled.read() is grpc.aio.EOF
        assert await settled.code() is grpc.StatusCode.OK
        assert m.kinds(await ask(under_way, m.body(), answers=1)) == ["request_body"]
        assert await under_way.code() is grpc.StatusCode.OK

    serve(body, pod("a"))


def test_a_thousand_exchanges_are_open_at_once() -> None:
    async def body(served: Served) -> None:
        calls = [served.call() for _ in range(1000)]
        await asyncio.gather(*(ask(call, m.headers(BUFFERED), m.body(), answers=2) for call in calls))
        assert served.processor.open == served.ledger.own == 1000

        for call in calls:
            await call.done_writing()
        await until(lambda: served.processor.open == 0)

        assert served.ledger.own == 0

    serve(body, pod("a"), debug=False)


@pytest.mark.parametrize("waits", [True, False], ids=["buffered", "duplex"])
def test_a_gateway_that_does_not_say_how_it_sends_bodies_is_found_out(waits: bool) -> None:
    async def body(served: Served) -> None:
        for _ in range(2):  # the second time it is known
            call = served.call()
            await call.write(m.headers(None))
            if waits:
                assert m.header_pick(m.read(await call.read())) is None
            answers = await ask(call, m.body(), answers=1 if waits else 2)
            assert m.metadata_pick(m.read(answers[0])) == "10.0.0.1:8000"
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK

    serve(body, pod("a"), quiet_s=0.05 if waits else 10.0)


def fail(*_: Any) -> int:
    raise ZeroDivisionError


BROKEN = Policy(fail)


@pytest.mark.parametrize("mode", [BUFFERED, FULL_DUPLEX])
@pytest.mark.parametrize("failure_mode", ["FailOpen", "FailClose"])
def test_a_fault_of_ours_is_answered_as_the_pool_says(mode: int, failure_mode: str) -> None:
    opens = failure_mode == "FailOpen"

    async def body(served: Served) -> None:
        call = served.call()
        answers = await ask(call, m.headers(mode), m.body(), answers=2 if opens or mode == BUFFERED else 1)
        await call.done_writing()

        assert await call.code() is grpc.StatusCode.OK
        assert served.ledger.own == 0
        assert not any(m.metadata_pick(m.read(answer)) for answer in answers)
        if opens:
            assert m.kinds(answers) == ["request_headers", "request_body"]
        else:
            assert m.read(answers[-1]).immediate_response.status.code == 500
        assert served.counts.view().faults == 1

    serve(body, pod("a"), policy=BROKEN, failure_mode=failure_mode)


def test_the_endpoint_that_served_is_accounted_for() -> None:
    async def body(served: Served) -> None:
        call = served.call()
        answers = await ask(call, m.headers(BUFFERED), m.body(), m.response_headers("10.0.0.2:8000"), answers=3)
        first, second = m.header_pick(m.read(answers[1])).split(",")  # type: ignore[union-attr]
        rows = {row.endpoint.address: row for row in served.table.rows}
        assert {first, second} == rows.keys()
        await until(lambda: rows["10.0.0.1:8000"].misses == (first == "10.0.0.1:8000"))
        await call.done_writing()
        await call.code()
        await until(lambda: served.processor.open == 0)
        assert [row.ledger.own for row in rows.values()] == [0, 0]

    serve(body, pod("a"), pod("b"), max_endpoints=2)


def test_the_conformance_suites_headers_are_obeyed_only_where_asked_for() -> None:
    async def body(served: Served) -> None:
        for _ in range(5):
            call = served.call()
            sent = m.headers(BUFFERED, test_epp_endpoint_selection="10.0.0.2")
            answers = await ask(call, sent, m.body(), m.response_headers("10.0.0.2:8000"), answers=3)
            assert m.header_pick(m.read(answers[1])) == "10.0.0.2:8000"
            assert m.set_headers(m.read(answers[2]))["x-conformance-test-served-endpoint"] == "10.0.0.2:8000"
            await call.done_writing()

    serve(body, pod("a"), pod("b"), hooks=True)

    async def without(served: Served) -> None:
        picks = set()
        for _ in range(4):
            call = served.call()
            sent = m.headers(BUFFERED, test_epp_endpoint_selection="10.0.0.2")
            answers = await ask(call, sent, m.body(), m.response_headers(), answers=3)
            picks.add(m.header_pick(m.read(answers[1])))
            assert m.set_headers(m.read(answers[2])) == {}
        assert len(picks) == 2

    serve(without, pod("a"), pod("b"))
