"""Whose request bodies go when too many bytes of them are held."""

from __future__ import annotations

import asyncio
from random import Random

import grpc.aio
from hypothesis import given
from hypothesis import strategies as st

from controller.gateway.bodies import Bodies
from controller.gateway.modes import FULL_DUPLEX
from tests.controller import messages as m
from tests.controller.gateway.test_extproc import Served, ask, serve, until
from tests.controller.known import pod

MB = 1_000_000


def test_below_the_limit_nobody_goes() -> None:
    bodies: Bodies[str] = Bodies(10)
    assert bodies.hold("a", 4) == bodies.hold("b", 6) == bodies.hold("a", 4) == []
    assert bodies.held_bytes == 10
    bodies.let_go("a")
    bodies.let_go("a")
    bodies.let_go("nobody")
    assert bodies.held_bytes == 6


def test_who_has_not_grown_for_the_longest_time_goes_first() -> None:
    bodies: Bodies[str] = Bodies(10)
    bodies.hold("stalls", 4)
    bodies.hold("grows", 1)
    assert bodies.hold("grows", 7) == ["stalls"]
    assert (bodies.held_bytes, bodies.dropped) == (7, 1)


def test_small_ones_are_in_no_danger() -> None:
    bodies: Bodies[object] = Bodies(20 * MB)
    small = [("small", at) for at in range(100)]
    assert not any(bodies.hold(owner, 500) for owner in small)
    bodies.hold("large", 15 * MB)
    assert bodies.hold("another", 15 * MB) == ["large"]
    assert bodies.held_bytes == 15 * MB + 100 * 500


def test_a_whole_body_counts_and_stays() -> None:
    bodies: Bodies[str] = Bodies(10)
    bodies.hold("whole", 8, whole=True)
    assert bodies.hold("comes", 5) == ["comes"]
    assert bodies.hold("another", 8, whole=True) == []
    assert bodies.held_bytes == 16
    bodies.let_go("whole")
    assert bodies.hold("comes", 2) == []
    assert bodies.hold("another", 9, whole=True) == ["comes"]


def test_one_that_is_too_large_for_itself_goes_without_the_others() -> None:
    bodies: Bodies[str] = Bodies(10)
    bodies.hold("a", 2)
    assert bodies.hold("b", 11)[-1] == "b"


def test_of_many_that_grow_together_as_many_as_fit_are_finished() -> None:
    bodies: Bodies[int] = Bodies(100)
    growing, finished, rng = dict.fromkeys(range(50), 0), 0, Random(1)
    while growing:
        owner = rng.choice(list(growing))
        growing[owner] += 1
        for gone in bodies.hold(owner, growing[owner]):
            del growing[gone]
        if growing.get(owner) == 20:
            finished += 1
            bodies.let_go(owner)
            del growing[owner]
    assert finished >= 4
    assert bodies.held_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["grows", "whole", "goes"]), st.integers(0, 8))))
def test_what_is_counted_is_what_is_held(steps: list[tuple[int, str, int]]) -> None:
    bodies: Bodies[int] = Bodies(20)
    held: dict[int, tuple[int, bool]] = {}
    for owner, step, size in steps:
        held.pop(owner, None)
        if step == "goes":
            bodies.let_go(owner)
        else:
            held[owner] = size, step == "whole"
            for gone in bodies.hold(owner, size, step == "whole"):
                assert not held.pop(gone)[1]
        assert bodies.held_bytes == sum(size for size, _ in held.values())
        assert bodies.held_bytes <= 20 or all(whole for _, whole in held.values())


# behind a real gRPC server


async def sent(served: Served, whole: bytes) -> bytes:
    """The body as it comes back."""
    call = served.call()
    await call.write(m.headers(FULL_DUPLEX))
    await call.write(m.body(whole))
    assert m.kinds([await call.read()]) == ["request_headers"]
    echoed: list[bytes] = []
    while not echoed or not m.streamed(echoed[-1:])[1][0]:
        echoed.append(await call.read())
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    return m.streamed(echoed)[0]


def test_clients_that_stall_large_bodies_make_room_for_those_that_do_not() -> None:
    part = b'{"model": "m", "prompt": "' + b"x" * MB

    async def body(served: Served) -> None:
        stalled = [served.call() for _ in range(30)]
        for call in stalled:
            await call.write(m.headers(FULL_DUPLEX))
            await call.write(m.body(part, ends=False))
        reads = [asyncio.ensure_future(call.read()) for call in stalled]
        await until(lambda: sum(read.done() for read in reads) == 20)
        assert served.processor.bodies.held_bytes == 10 * len(part)

        for _ in range(3):
            assert await sent(served, part + b'"}') == part + b'"}'
        await until(lambda: sum(read.done() for read in reads) == 21)
        gone = [m.read(read.result()).immediate_response for read in reads if read.done()]
        assert {answer.status.code for answer in gone} == {503}
        assert {o.header.key: o.header.raw_value for o in gone[0].headers.set_headers}["retry-after"] == b"1"

        for call, read in zip(stalled, reads, strict=True):
            if not read.done():
                await call.write(m.body(b'"}'))
                assert m.kinds([await read]) == ["request_headers"]
            call.cancel()
        await until(lambda: served.processor.open == 0)
        assert served.processor.bodies.held_bytes == 0

    serve(body, pod("a"), body_memory_bytes=10 * (len(part) + 10), debug=False)


def test_a_body_that_never_fits_is_413() -> None:
    async def body(served: Served) -> None:
        call = served.call()
        (answer,) = await ask(call, m.headers(FULL_DUPLEX), m.body(b"x" * 3 * MB, ends=False), answers=1)
        assert m.read(answer).immediate_response.status.code == 413
        await until(lambda: served.processor.bodies.held_bytes == 0)

    serve(body, pod("a"), body_memory_bytes=2 * MB)


def test_bodies_that_come_whole_all_pass_however_many_they_are() -> None:
    """They are answered at once, which is the quickest way to be rid of them."""
    whole = b'{"model": "m", "prompt": "' + b"x" * MB + b'"}'

    async def body(served: Served) -> None:
        assert await asyncio.gather(*(sent(served, whole) for _ in range(20))) == [whole] * 20
        assert (served.processor.bodies.dropped, served.processor.bodies.held_bytes) == (0, 0)

    serve(body, pod("a"), body_memory_bytes=3 * MB, debug=False)
