"""The endpoint picker protocol as a real Envoy speaks it, without a kernel to measure."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.machine.envoy import BodyMode, Routing
from tests.conftest import run
from tests.gateway.site import DESTINATION, Site, site

ASK = {"model": "lab", "prompt": "hello", "max_tokens": 4}
MODES = [mode for mode in BodyMode if mode.shows_body]
LIMIT_S = 20.0

Through = Callable[[Callable[[Site], Coroutine[Any, Any, None]]], None]


@pytest.fixture(scope="module", params=MODES)
def through(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Through]:
    """Runs a test's body on one site for each mode, where the header alone routes."""
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as held:
        runner = held.enter_context(asyncio.Runner(debug=True))
        standing = site(folder, body_mode=request.param, routing=Routing.ORIGINAL_DST)
        here = runner.run(standing.__aenter__())
        held.callback(lambda: runner.run(standing.__aexit__(None, None, None)))

        async def limited(body: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
            async with asyncio.timeout(LIMIT_S):
                await body(here)

        yield lambda body: runner.run(limited(body))


@pytest.mark.parametrize("mode", list(BodyMode))
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_every_request_reaches_the_pod_its_header_names(tmp_path: Path, mode: BodyMode, tls: bool) -> None:
    """Envoy obeys the metadata here and passes the header on, so both say the same."""

    async def body() -> None:
        async with site(tmp_path, upstreams=3, body_mode=mode, picker_tls=tls) as here:
            answers = [await here.post(ASK) for _ in range(30)]
            assert {answer.status for answer in answers} == {200}
            seen = [answer.json() for answer in answers]
            assert all(one["headers"][DESTINATION] == one["own"] for one in seen)
            assert set(Counter(one["own"] for one in seen)) == set(here.upstreams)
            picks = [sample for sample in await here.samples() if sample.name == "sonde_controller_picks_total"]
            assert sum(sample.value for sample in picks) == 30

    run(body())


def test_the_header_alone_can_route(through: Through) -> None:
    async def body(here: Site) -> None:
        for _ in range(6):
            seen = (await here.post(ASK)).json()
            assert seen["headers"][DESTINATION] == seen["own"]

    through(body)


def test_nobody_outside_chooses_an_endpoint(through: Through) -> None:
    async def body(here: Site) -> None:
        answer = await here.post(ASK, x_gateway_destination_endpoint="127.0.0.1:1")
        assert answer.status == 200
        assert answer.json()["headers"][DESTINATION] in here.upstreams

    through(body)


def test_of_a_control_header_that_comes_twice_nothing_is_left(through: Through) -> None:
    def ask(port: int) -> dict[str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        body = json.dumps(ASK).encode()
        connection.putrequest("POST", "/v1/completions")
        for name in (DESTINATION, DESTINATION.upper(), f"{DESTINATION}-served", f"{DESTINATION}-served"):
            connection.putheader(name, "127.0.0.1:1")
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        with contextlib.closing(connection):
            seen = json.loads(connection.getresponse().read())
        assert seen["headers"][DESTINATION] == seen["own"]  # the last of several is what the upstream tells
        return dict(seen["headers"])

    async def body(here: Site) -> None:
        headers = await asyncio.to_thread(ask, here.gateway_port)
        assert f"{DESTINATION}-served" not in headers

    through(body)


def test_bodies_arrive_byte_for_byte(through: Through) -> None:
    async def body(here: Site) -> None:
        for size in (0, 1, 61_999, 62_001, 1_000_000):
            sent = b'{"model": "lab", "prompt": "%s"}' % (b"x" * size)
            answer = await here.post(sent)
            assert answer.status == 200
            assert answer.json()["body"].encode() == sent

    through(body)


def test_a_body_that_is_no_json_is_refused_with_the_place(through: Through) -> None:
    async def body(here: Site) -> None:
        answer = await here.post(b'{"model": "lab", ]')
        assert answer.status == 400
        assert b"BadRequest" in answer.body
        assert b"17" in answer.body, answer.body  # the offset of the bracket
        assert (await here.post(ASK)).status == 200

    through(body)


@pytest.mark.parametrize("mode", MODES)
def test_without_an_endpoint_the_answer_is_503(tmp_path: Path, mode: BodyMode) -> None:
    async def body() -> None:
        async with site(tmp_path, upstreams=0, body_mode=mode, routing=Routing.ORIGINAL_DST) as here:
            answer = await here.post(ASK)
            assert answer.status == 503
            assert b"endpoint" in answer.body

    run(body())


def test_the_reference_of_release_03_answers_429_there_and_so_does_its_policy(tmp_path: Path) -> None:
    async def body() -> None:
        flags = ["--policy=gie-v0.3"]
        async with site(tmp_path, upstreams=0, arguments=flags, routing=Routing.ORIGINAL_DST) as here:
            assert (await here.post(ASK)).status == 429

    run(body())


def test_pods_come_and_go_with_their_files(tmp_path: Path) -> None:
    async def body() -> None:
        async with site(tmp_path) as here:
            (here.folder / "manifests" / "pod-pod-1.yaml").unlink()
            await here.until("sonde_controller_endpoint_ready", 1)
            owns = {(await here.post(ASK)).json()["own"] for _ in range(8)}
            assert owns == {here.upstreams[1]}

    run(body())


def test_a_manifest_with_a_fault_changes_nothing_and_is_one_line(tmp_path: Path) -> None:
    async def body() -> None:
        async with site(tmp_path) as here:
            (here.folder / "manifests" / "pod-pod-1.yaml").write_text("kind: Pod\n  name: [")
            await here.logged("pod-pod-1.yaml")
            owns = {(await here.post(ASK)).json()["own"] for _ in range(12)}
            assert owns == set(here.upstreams)
            lines = [line for line in here.controller.output.read_text().splitlines() if "pod-pod-1.yaml" in line]
            assert len(lines) == 1

    run(body())


@pytest.mark.parametrize("fail_open", [True, False])
def test_a_dead_picker_is_the_gateways_to_judge(tmp_path: Path, fail_open: bool) -> None:
    async def body() -> None:
        async with site(tmp_path, body_mode=BodyMode.BUFFERED, fail_open=fail_open) as here:
            assert (await here.post(ASK)).status == 200
            await here.controller.stop()
            assert ((await here.post(ASK)).status == 200) is fail_open

    run(body())
