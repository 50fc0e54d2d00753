"""Requests that get no endpoint, by what objects and engines say; behind a real gRPC server."""

from __future__ import annotations

import time

import pytest

from agent.cluster.objects import Model, Objective, cluster_of
from controller.choosing.admission import gate_of
from controller.choosing.saturation import limits
from controller.exporting.counts import Series
from controller.gateway.modes import BUFFERED, FULL_DUPLEX, NONE
from controller.model import ClusterChanged, EngineScraped
from tests.controller import messages as m
from tests.controller.gateway.test_extproc import Served, ask, serve
from tests.controller.known import engine, pod


def test_with_models_an_unknown_one_is_404_and_the_others_are_served() -> None:
    async def body(served: Served) -> None:
        known = Model("default", "m", "p", "m", "Critical", (), "")
        pool = served.table.pool
        assert pool is not None
        served.table.apply(ClusterChanged(cluster_of([pool, pod("a"), known])), 0.0)
        call = served.call()
        (answer,) = await ask(call, m.headers(FULL_DUPLEX), m.body(b'{"model": "other"}'), answers=1)
        assert m.read(answer).immediate_response.status.code == 404
        assert b"'other'" in m.read(answer).immediate_response.body
        long = b'{"model": "%s"}' % (b"x" * 1_000_000)
        (answer,) = await ask(served.call(), m.headers(FULL_DUPLEX), m.body(long), answers=1)
        assert m.read(answer).immediate_response.status.code == 404
        assert len(answer) < 1000  # a client's name is not said again in full

        answers = await ask(served.call(), m.headers(FULL_DUPLEX), m.body(), answers=2)
        assert m.kinds(answers) == ["request_headers", "request_body"]
        assert served.counts.view().tallies[Series("m", "m", "1")].requests == 1

    serve(body, pod("a"))


@pytest.mark.parametrize("mode", [BUFFERED, FULL_DUPLEX, NONE])
def test_what_may_be_shed_is_shed_by_a_pool_without_room(mode: int) -> None:
    async def body(served: Served) -> None:
        pool = served.table.pool
        assert pool is not None
        low = Objective("default", "low", "p", -1, "")
        served.table.apply(ClusterChanged(cluster_of([pool, pod("a"), low])), 0.0)
        now = time.monotonic()
        served.table.apply(EngineScraped("10.0.0.1:8000", engine(8, 12, at=now + 60)), now)
        sent = [m.headers(mode, **{"x-gateway-inference-objective": "low"})] + [m.body()] * (mode != NONE)
        answers = await ask(served.call(), *sent, answers=1 if mode != BUFFERED else 2)
        immediate = m.read(answers[-1]).immediate_response
        told = {option.header.key: option.header.raw_value.decode() for option in immediate.headers.set_headers}
        assert immediate.status.code == 429
        assert (told["retry-after"], told["x-llm-d-request-dropped-reason"]) == ("1", "rejected-saturated")
        assert served.ledger.own == 0

        (answer, *_) = await ask(served.call(), m.headers(NONE), answers=1)
        assert m.header_pick(m.read(answer)) == "10.0.0.1:8000"

    serve(body, pod("a"), gate=gate_of("sonde", limits("sonde", {})))
