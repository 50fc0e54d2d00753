"""What the objects of a pool and the pages of its engines do to requests, behind a real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.catalog.resolving import SERVED_FOR_S
from lab.machine import manifests
from lab.machine.envoy import BodyMode
from tests.conftest import run
from tests.gateway.pages import Pages, pages
from tests.gateway.site import HOST, Answer, Site, site

LIMIT_S = 60.0
CLIENTS = 8
READING = [BodyMode.BUFFERED, BodyMode.FULL_DUPLEX_STREAMED]  # the modes that show the picker the whole body
X_K8S = "inference.networking.x-k8s.io/v1alpha2"


def of_pool(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": manifests.NAMESPACE, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"apiVersion": X_K8S, "kind": kind, "metadata": metadata, "spec": {"poolRef": {"name": "lab"}, **spec}}


def model(name: str, criticality: str, **spec: Any) -> dict[str, Any]:
    return of_pool("InferenceModel", name, modelName=name, criticality=criticality, **spec)


async def put(here: Site, *objects: dict[str, Any]) -> None:
    """Adds objects and waits until the controller goes by them."""
    probe = model("probe", "Standard", targetModels=[{"name": "probed", "weight": 1}])
    manifests.write(here.folder / "manifests", [*objects, probe])
    while True:
        answer = await ask(here, "probe")
        if answer.status == 200 and json.loads(answer.json()["body"])["model"] == "probed":
            return
        await asyncio.sleep(0.05)


async def ask(here: Site, name: str, **headers: str) -> Answer:
    return await here.post({"model": name, "prompt": "hello"}, **headers)


async def seen_by(here: Site, count: int, body: bytes) -> Counter[str]:
    """So many equal requests over kept connections; the models that upstreams were asked for."""
    asked: Counter[str] = Counter()

    async def client(times: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, here.gateway_port)
        with contextlib.closing(writer):
            for _ in range(times):
                head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
                writer.write(head + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 200 "), answer
                length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                asked[json.loads(json.loads(await reader.readexactly(length))["body"])["model"]] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client(count // CLIENTS))
    return asked


@pytest.mark.parametrize("mode", READING)
def test_a_roll_out_of_90_to_10_is_within_binomial_bounds(tmp_path: Path, mode: BodyMode) -> None:
    async def body() -> None:
        async with site(tmp_path, body_mode=mode) as here:
            targets = [{"name": "chat-v1", "weight": 90}, {"name": "a-much-longer-name-v2", "weight": 10}]
            await put(here, model("chat", "Standard", targetModels=targets))
            asked = await seen_by(here, 5000, b'{"prompt": "hello", "model": "chat", "max_tokens": 4}')
            assert asked.total() == 5000
            # five standard deviations: sqrt(5000 x 0.9 x 0.1) = 21.2
            assert abs(asked["chat-v1"] - 4500) < 106, asked
            assert set(asked) == {"chat-v1", "a-much-longer-name-v2"}

    run(body(), timeout_s=LIMIT_S, debug=False)  # thousands of requests


@pytest.mark.parametrize("mode", READING)
def test_objects_and_paths_say_which_model_and_whether_at_all(tmp_path: Path, mode: BodyMode) -> None:
    async def body() -> None:
        async with site(tmp_path, body_mode=mode) as here:
            assert (await ask(here, "chat")).status == 200  # without InferenceModels every model is served
            await put(here, model("chat", "Standard", targetModels=[{"name": "chat-v2"}]))

            unknown = await ask(here, "other")
            assert unknown.status == 404
            assert b"'other'" in unknown.body

            infer = await here.post(b"not JSON", path="/v2/models/chat/versions/1/infer?a=b")
            assert infer.status == 200
            assert infer.json()["path"] == "/v2/models/chat-v2/versions/1/infer?a=b"
            assert infer.json()["body"] == "not JSON"

            grpc = await here.post(b"\x00\x00\x00\x00\x01{", path="/v1/completions", content_type="application/grpc")
            assert grpc.json()["body"] == "\x00\x00\x00\x00\x01{"
            assert (await here.post(b"{", path="/unknown")).status == 200

            rerank = await here.post(b'{"query": "q", "model": "chat"}', path="/v1/rerank")
            assert rerank.json()["body"] == '{"query": "q", "model": "chat-v2"}'
            assert (await here.post(b'{"model": "other"}', path="/score")).status == 404
            form = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nother\r\n--x--\r\n'
            spoken = await here.post(
                form, path="/v1/audio/transcriptions", content_type="multipart/form-data; boundary=x"
            )
            assert spoken.json()["body"].encode() == form

    run(body(), timeout_s=LIMIT_S)


@contextlib.asynccontextmanager
async def paged(folder: Path, arguments: Sequence[str] = (), upstreams: int = 2) -> AsyncIterator[tuple[Site, Pages]]:
    """A site whose pods say where their engines' pages are."""
    ips = [f"127.0.2.{number + 1}" for number in range(upstreams)]
    async with pages(ips) as told, site(folder, upstreams=upstreams, arguments=arguments) as here:
        for file in (folder / "manifests").glob("pod-*.yaml"):
            pod = yaml.safe_load(file.read_text())
            pod["metadata"]["annotations"] = {"prometheus.io/port": str(told.port)}
            manifests.write(folder / "manifests", [pod])
        yield here, told


async def until(here: Site, name: str, status: int, **headers: str) -> Answer:
    """Asks until the controller has read what the pages say."""
    while (answer := await ask(here, name, **headers)).status != status:
        await asyncio.sleep(0.05)
    return answer


def test_under_overload_the_lowest_priority_is_shed_and_critical_requests_are_not(tmp_path: Path) -> None:
    async def body() -> None:
        async with paged(tmp_path, ["--slo-ttft=2s"]) as (here, told):  # of which half may be waited for room
            low, high = (of_pool("InferenceObjective", name, priority=p) for name, p in (("low", -5), ("high", 5)))
            classes = [model(name.lower(), name) for name in ("Critical", "Standard", "Sheddable")]
            await put(here, low, high, *classes)
            names = ("critical", "standard", "sheddable")
            assert {(await ask(here, name)).status for name in names} == {200}

            for ip in told.texts:  # both pods have a queue
                told.say(ip, running=8, waiting=12)
            shed = await until(here, "sheddable", 429)
            assert shed.headers["retry-after"] == "1"
            assert shed.headers["x-llm-d-request-dropped-reason"] == "rejected-saturated"
            assert b"system saturated, sheddable request dropped" in shed.body
            assert [(await ask(here, name)).status for name in names] == [200, 200, 429]
            objective = "x_gateway_inference_objective"
            assert (await ask(here, "standard", **{objective: "low"})).status == 429
            assert (await ask(here, "sheddable", **{objective: "high"})).status == 200

            told.say("127.0.2.1")  # one has room again
            await until(here, "sheddable", 200)

    run(body(), timeout_s=LIMIT_S)


@pytest.mark.parametrize(("policy", "standard"), [("gie-v0.3", 429), ("gie-v1", 200)])
def test_the_references_policies_shed_by_their_own_rule(tmp_path: Path, policy: str, standard: int) -> None:
    async def body() -> None:
        async with paged(tmp_path, [f"--policy={policy}"]) as (here, told):
            await put(here, *(model(name.lower(), name) for name in ("Critical", "Standard", "Sheddable")))
            for ip in told.texts:
                told.say(ip, running=8, waiting=6)  # the threshold is 5
            await until(here, "sheddable", 429)
            names = ("critical", "standard", "sheddable")
            assert [(await ask(here, name)).status for name in names] == [200, standard, 429]

    run(body(), timeout_s=LIMIT_S)


async def owners(here: Site, told: Pages, name: str, count: int) -> list[str]:
    """Who answers requests of which each is over, and known to be, before the next."""
    owns = []
    for _ in range(count):
        owns.append((await ask(here, name)).json()["own"])
        await told.reread()
    return owns


def test_requests_for_an_adapter_stay_with_the_pod_that_has_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with paged(tmp_path, upstreams=3) as (here, told):
            await told.reread()
            await asyncio.sleep(SERVED_FOR_S)  # for so long an adapter may pass for a base model
            owns = {name: await owners(here, told, name, 6) for name in ("sql", "chat")}
            assert [len(set(own)) for own in owns.values()] == [1, 1], owns
            assert len(set(await owners(here, told, "base", 12))) > 1

    run(body(), timeout_s=LIMIT_S)
