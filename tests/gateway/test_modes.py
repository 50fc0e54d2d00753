"""What differs between gateways: who sends responses, what happens when the picker is gone or at fault, big bodies."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from lab.machine.envoy import BodyMode, Routing
from tests.conftest import run
from tests.gateway.crowd import Crowd
from tests.gateway.site import DESTINATION, HOST, site

ASK = {"model": "lab", "prompt": "hello", "max_tokens": 4}
BIG = b'{"model": "lab", "prompt": "%s"}' % (b"x" * 20_000_000)


@pytest.mark.parametrize("mode", [mode for mode in BodyMode if mode.shows_body])
def test_a_gateway_that_sends_responses_gets_them_back_untouched(tmp_path: Path, mode: BodyMode) -> None:
    async def body() -> None:
        async with site(tmp_path, body_mode=mode, sends_responses=True, routing=Routing.ORIGINAL_DST) as here:
            for size in (0, 1000, 300_000):
                sent = b'{"model": "lab", "prompt": "%s"}' % (b"x" * size)
                answer = await here.post(sent)
                assert answer.status == 200
                assert answer.json()["body"].encode() == sent

    run(body(), timeout_s=60)


@pytest.mark.parametrize("mode", [BodyMode.STREAMED, BodyMode.NONE])
@pytest.mark.parametrize("routing", list(Routing))
def test_a_gateway_that_shows_no_body_is_routed_by_the_headers(
    tmp_path: Path, mode: BodyMode, routing: Routing
) -> None:
    async def body() -> None:
        async with site(tmp_path, body_mode=mode, routing=routing) as here:
            sent = b'{"model": "lab", "prompt": "%s"}' % (b"x" * 200_000)
            for _ in range(4):
                answer = await here.post(sent)
                assert answer.status == 200
                seen = answer.json()
                assert (seen["headers"][DESTINATION], seen["body"].encode()) == (seen["own"], sent)

    run(body(), timeout_s=60)


@pytest.mark.parametrize("mode", [mode for mode in BodyMode if mode.shows_body])
def test_bodies_of_20_mb_work(tmp_path: Path, mode: BodyMode) -> None:
    async def body() -> None:
        options = {"body_limit_bytes": 32 << 20, "message_timeout_s": 20.0}
        async with site(tmp_path, body_mode=mode, **options) as here:
            answer = await here.post(BIG)
            assert answer.status == 200
            assert answer.json()["body"].encode() == BIG

    run(body(), timeout_s=90)


@pytest.mark.parametrize("fail_open", [True, False])
def test_a_picker_that_the_gateway_knows_is_gone_fails_as_configured_in_full_duplex(
    tmp_path: Path, fail_open: bool
) -> None:
    async def body() -> None:
        async with site(tmp_path, fail_open=fail_open, health_check_s=0.2) as here:
            assert (await here.post(ASK)).status == 200
            await here.controller.stop()
            await here.uses(0)
            if fail_open:  # Envoy's worker hears of it a little later than its admin page
                while (await here.post(ASK)).status != 200:
                    pass
            else:
                assert (await here.post(ASK)).status == 500

    run(body(), timeout_s=60)


@pytest.mark.parametrize("mode", [mode for mode in BodyMode if mode.shows_body])
def test_clients_that_give_up_leave_nothing_behind(tmp_path: Path, mode: BodyMode) -> None:
    """Inside their body, and right after it: in the second case the request may have had its endpoint."""
    whole = json.dumps(ASK).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(whole)

    async def body() -> None:
        async with site(tmp_path, body_mode=mode) as here:
            for sent in (whole[:10], whole) * 4:
                _, writer = await asyncio.open_connection(HOST, here.gateway_port)
                writer.write(head + sent)
                await writer.drain()
                if sent != whole:
                    await here.value("sonde_controller_exchanges_open", lambda value: value > 0)
                writer.close()
            for name in ("sonde_controller_exchanges_open", "sonde_controller_reservations"):
                await here.value(name, lambda value: value == 0)

    run(body(), timeout_s=60)


def test_clients_that_stall_large_bodies_make_room_for_the_others(tmp_path: Path) -> None:
    """All but the last two bytes of each come; who has to go is answered, and who has not can still end in time."""
    body_start, end, count, limit = b'{"model": "lab", "prompt": "' + b"x" * 300_000, b'"}', 20, 4 << 20
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body_start + end)
    fit = limit // len(body_start)

    async def body() -> None:
        flags = [f"--body-memory={limit}"]
        async with site(tmp_path, body_mode=BodyMode.FULL_DUPLEX_STREAMED, arguments=flags) as here:
            clients = [await asyncio.open_connection(HOST, here.gateway_port) for _ in range(count)]
            for _, writer in clients:
                writer.write(head + body_start)
                await writer.drain()
            reads = [asyncio.ensure_future(reader.readuntil(b"\r\n\r\n")) for reader, _ in clients]
            while sum(read.done() for read in reads) < count - fit:
                await asyncio.sleep(0.05)
            gone = [read.result().lower() for read in reads if read.done()]
            assert all(answer.startswith(b"http/1.1 503 ") and b"retry-after: 1" in answer for answer in gone)
            assert (await here.post(ASK)).status == 200

            for (_, writer), read in zip(clients, reads, strict=True):
                if not read.done():
                    writer.write(end)
                    assert (await read).startswith(b"HTTP/1.1 200 ")
                writer.close()
            assert len(gone) == count - fit

    run(body(), timeout_s=60)


def test_nobody_outside_steers_by_the_conformance_suites_header(tmp_path: Path) -> None:
    async def body() -> None:
        async with site(tmp_path) as here:
            owns = Counter(
                [(await here.post(ASK, test_epp_endpoint_selection="127.0.2.2")).json()["own"] for _ in range(6)]
            )
            assert set(owns) == set(here.upstreams)

    run(body())


def test_the_conformance_suite_steers_where_asked_for(tmp_path: Path) -> None:
    async def body() -> None:
        async with site(tmp_path, arguments=["--conformance-hooks"], sends_responses=True) as here:
            for _ in range(4):
                answer = await here.post(ASK, test_epp_endpoint_selection="127.0.2.2")
                assert answer.json()["own"] == here.upstreams[1]
                assert answer.headers["x-conformance-test-selected-endpoint"] == here.upstreams[1]
            assert (await here.post(ASK, test_epp_endpoint_selection="10.9.9.9")).status == 503

    run(body(), timeout_s=60)


def test_a_list_is_walked_when_an_endpoint_refuses(tmp_path: Path) -> None:
    """The pod that takes no connections is still in the pool; the gateway's retry takes the next of the list."""

    async def body() -> None:
        async with site(tmp_path, upstreams=3, arguments=["--max-endpoints=3"]) as here:
            here.echoes[0].close()
            async with Crowd(here, 4) as crowd:
                await crowd.answered(60)
            assert crowd.statuses == Counter({200: crowd.statuses.total()}), crowd.failures

    run(body(), timeout_s=60)


def test_models_roll_out_by_weight(tmp_path: Path) -> None:
    """5,000 requests for a name whose targets weigh 90 and 10: the count is binomial, here within five deviations."""
    rollout = {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": {"name": "rollout", "namespace": "default"},
        "spec": {
            "poolRef": {"name": "lab", "group": "inference.networking.k8s.io"},
            "rules": [
                {
                    "matches": [{"model": {"type": "Exact", "value": "chat"}}],
                    "targets": [{"modelRewrite": "chat-v1", "weight": 90}, {"modelRewrite": "chat-v2", "weight": 10}],
                }
            ],
        },
    }
    asked = b'{"max_tokens": 4,  "model":"chat", "prompt": "h\\u00e9llo"}'

    async def body() -> None:
        async with site(tmp_path, objects=[rollout], body_mode=BodyMode.BUFFERED) as here:
            async with Crowd(here, 8, asked) as crowd:
                await crowd.answered(5000)
            seen = Counter(json.loads(one)["body"] for one in crowd.bodies[:5000])
            assert set(seen) == {asked.decode().replace('"chat"', f'"chat-{version}"') for version in ("v1", "v2")}
            small = seen[asked.decode().replace('"chat"', '"chat-v2"')]
            assert abs(small - 500) < 5 * (5000 * 0.9 * 0.1) ** 0.5

    run(body(), timeout_s=110, debug=False)
