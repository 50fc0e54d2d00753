"""When a stream may end, and how."""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio
import pytest

from controller.catalog.resolving import Resolver
from controller.gateway import reading
from controller.gateway.modes import BUFFERED_PARTIAL, FULL_DUPLEX, STREAMED
from tests.controller import messages as m
from tests.controller.gateway.test_extproc import Served, ask, serve, until
from tests.controller.known import frame, kernel, pod


def broken(*_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("counts", [True, False])
def test_an_answer_that_the_gateway_does_not_take_never_ends_in_order(counts: bool) -> None:
    """It has a part of the body by then, and would send that on as the whole."""
    large = b'{"model": "m", "prompt": "' + b"x" * 20_000_000 + b'"}'

    async def body(served: Served) -> None:
        if counts:
            counted(served)
        call = served.call()
        await call.write(m.headers(FULL_DUPLEX))
        await call.write(m.body(large))
        leaving = served.processor.bodies._leaving
        await until(lambda: any(stream._sending for stream in leaving))  # and nobody reads
        for stream in leaving:
            stream.limit.expire()
        with pytest.raises(grpc.aio.AioRpcError, match="did not take the answer"):
            await ask(call, answers=1000)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: served.processor.open == 0)
        assert (served.ledger.own, served.processor.bodies.held_bytes) == (0, 0)

    serve(body, pod("a"))


@pytest.mark.parametrize("fault", [False, True])
def test_trailers_end_a_request_whose_body_had_no_end(fault: bool) -> None:
    async def body(served: Served) -> None:
        counted(served)
        call = served.call()
        answers = await ask(call, m.headers(STREAMED), m.body(b"one", ends=False), m.trailers(), answers=3)
        assert m.kinds(answers) == ["request_headers", "request_body", "request_trailers"]
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    with pytest.MonkeyPatch.context() as patch:
        if fault:
            patch.setattr(Resolver, "resolve", broken)
        serve(body, pod("a"), failure_mode="FailOpen")


def test_a_part_of_a_body_is_all_that_a_gateway_which_buffers_in_part_sends() -> None:
    async def body(served: Served) -> None:
        counted(served)
        call = served.call()
        answers = await ask(call, m.headers(BUFFERED_PARTIAL), m.body(m.BODY[:9], ends=False), answers=2)
        assert m.header_pick(m.read(answers[-1])) == "10.0.0.1:8000"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    serve(body, pod("a"))


def test_where_the_kernel_counts_the_stream_ends_with_the_request() -> None:
    async def body(served: Served) -> None:
        now = time.monotonic()
        served.table.apply(frame({"a": kernel(0, at=now)}), now)
        call = served.call()
        answers = await ask(call, m.headers(FULL_DUPLEX, response_mode=FULL_DUPLEX), m.body(), answers=2)

        assert m.streamed(answers[1:])[0] == m.BODY
        assert await call.read() is grpc.aio.EOF  # though this end is open
        assert await call.code() is grpc.StatusCode.OK
        await until(lambda: served.processor.open == 0)
        assert served.ledger.unshown == 1  # until the kernel shows it

    serve(body, pod("a"))


def test_a_streamed_body_keeps_its_stream_though_the_kernel_counts() -> None:
    async def body(served: Served) -> None:
        now = time.monotonic()
        served.table.apply(frame({"a": kernel(0, at=now)}), now)
        call = served.call()
        await ask(call, m.headers(STREAMED), m.body(b"one", ends=False), answers=2)
        assert m.kinds(await ask(call, m.body(b"two"), answers=1)) == ["request_body"]
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    serve(body, pod("a"))


def test_a_gateway_that_closes_inside_a_streamed_body_leaves_nothing() -> None:
    async def body(served: Served) -> None:
        call = served.call()
        await ask(call, m.headers(STREAMED), m.body(b"one", ends=False), answers=2)
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
        await until(lambda: served.processor.open == 0)
        assert served.ledger.own == 0

    serve(body, pod("a"))


def test_a_body_that_stalls_after_a_fault_of_ours_does_not_end_in_order() -> None:
    """In full duplex an orderly end means that the body is whole."""

    async def body(served: Served) -> None:
        call = served.call()
        (passed,) = await ask(call, m.headers(FULL_DUPLEX), answers=1)
        assert m.metadata_pick(m.read(passed)) is None
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "head", broken)
        serve(body, pod("a"), failure_mode="FailOpen", request_limit_s=0.3)


def counted(served: Served) -> None:
    now = time.monotonic()
    served.table.apply(frame({"a": kernel(0, at=now)}), now)
    assert served.processor.ends_with_request()


def test_where_the_kernel_counts_large_bodies_and_refusals_come_whole_with_the_end() -> None:
    large = b'{"model": "m", "prompt": "' + b"x" * 200_000 + b'"}'

    async def body(served: Served) -> None:
        counted(served)
        call = served.call()
        answers = await ask(call, m.headers(FULL_DUPLEX), m.body(large), answers=5)
        assert m.streamed(answers[1:])[0] == large
        assert await call.read() is grpc.aio.EOF

        refused = served.call()
        (answer,) = await ask(refused, m.headers(FULL_DUPLEX), m.body(b"no json"), answers=1)
        assert m.read(answer).immediate_response.status.code == 400
        assert await refused.code() is grpc.StatusCode.OK

    serve(body, pod("a"))


@pytest.mark.parametrize("counts", [True, False])
def test_a_streamed_body_may_take_longer_than_the_limit_once_it_has_its_endpoint(counts: bool) -> None:
    async def body(served: Served) -> None:
        if counts:
            counted(served)
        call = served.call()
        await ask(call, m.headers(STREAMED), m.body(b"one", ends=False), answers=2)
        await asyncio.sleep(0.1)
        assert m.kinds(await ask(call, m.body(b"two"), answers=1)) == ["request_body"]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    serve(body, pod("a"), request_limit_s=0.02)


@pytest.mark.parametrize("counts", [True, False])
def test_a_grpc_stream_lasts_as_long_as_its_client_wants(counts: bool) -> None:
    async def body(served: Served) -> None:
        if counts:
            counted(served)
        call = served.call()
        await ask(call, m.headers(FULL_DUPLEX, content_type="application/grpc"), answers=1)
        await asyncio.sleep(0.1)
        answers = await ask(call, m.body(b"one", ends=False), m.body(b"two"), answers=2)
        assert m.streamed(answers)[:2] == (b"onetwo", [False, True])
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    serve(body, pod("a"), request_limit_s=0.05)


def test_a_gateway_that_closes_before_its_request_is_whole_leaves_nothing() -> None:
    async def body(served: Served) -> None:
        counted(served)
        call = served.call()
        await call.write(m.headers(FULL_DUPLEX))
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.CANCELLED
        await until(lambda: served.processor.open == 0)
        assert served.ledger.own == 0

    serve(body, pod("a"))


def test_streams_stay_for_the_response_unless_kernels_count_all() -> None:
    async def body(served: Served) -> None:
        assert not served.processor.ends_with_request()
        now = time.monotonic()
        served.table.apply(frame({"a": kernel(0, at=now)}), now)
        assert not served.processor.ends_with_request()
        served.table.apply(frame({"a": kernel(0, at=now), "b": kernel(0, at=now)}), now)
        assert served.processor.ends_with_request()

    serve(body, pod("a"), pod("b"))
