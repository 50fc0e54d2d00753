"""The field's own cases (peer_cases.py), sent by a gRPC client to a served picker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import grpc.aio
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from agent.cluster.objects import Cluster, Model, ModelRewrite, Objective, Pool, RewriteRule, Target, cluster_of
from controller.choosing.admission import PAGE_POLICIES, gate_of, nobody_of, policy_of
from controller.choosing.affinity import Affinity
from controller.choosing.picker import Picker
from controller.choosing.saturation import limits
from controller.exporting.counts import Rewritten, Series
from controller.gateway.exchange import Exchange
from controller.gateway.modes import FULL_DUPLEX
from controller.gateway.reading import SUBSET_KEY, SUBSET_NAMESPACE
from controller.model import ClusterChanged, EngineScraped, EngineSignal
from controller.plugins import NOTHING, taken
from tests.controller import messages as m
from tests.controller.gateway.test_extproc import Served, serve
from tests.controller.known import GROUP, LABELS, pod, table
from tests.controller.peer_cases import (
    LLM_D_OBJECTIVE,
    LORA,
    QUEUES,
    SCORERS,
    SQL_LORA,
    TREE,
    Case,
    Engine,
    completion,
    pages,
    to,
)


def model(name: str, criticality: str | None, target: str = "") -> Model:
    targets = (Target(target, None),) if target else ()
    return Model("default", name, "p", name, criticality, targets, "")


MODELS = (
    model("my-model", "Critical", "my-model-12345"),
    model("sql-lora", "Critical", "sql-lora-1fdg2"),
    model("sql-lora-sheddable", "Sheddable", "sql-lora-1fdg3"),
    model("direct-model", "Critical"),
)
OBJECTIVES = tuple(
    Objective("default", name, "p", priority, "")
    for name, priority in {
        "my-model": 2, "sql-lora": 2, "direct-model": 2, "sql-lora-sheddable": 0, "sheddable": -1,
    }.items()
)  # fmt: skip


def objects(case: Case, *more: ModelRewrite) -> Cluster:
    pool = Pool("default", "p", GROUP, "v1", LABELS, (8000,), "FailClose", "")
    pods = [pod(f"pod-{engine.at}", f"192.168.1.{engine.at + 1}") for engine in case.engines]
    return cluster_of([pool, *pods, *(MODELS if case.policy == "gie-v0.3" else OBJECTIVES), *more])


def page(engine: Engine, now: float) -> EngineScraped:
    signal = EngineSignal(
        now, "vllm", 0, engine.waiting, engine.kv, running_adapters=engine.adapters, max_adapters=engine.most
    )
    return EngineScraped(f"192.168.1.{engine.at + 1}:8000", signal)


def sent(case: Case) -> list[bytes]:
    """As the peers' own gateways send it: values of headers in `value`, nothing told of body modes."""
    head = ext_proc.ProcessingRequest()
    for key, value in {"hi": "mom", "x-request-id": "test-request-id", **case.headers}.items():
        head.request_headers.headers.headers.add(key=key, value=value)
    head.request_headers.end_of_stream = not case.body
    messages = [] if case.bare else [head]
    for at, chunk in enumerate(case.body):
        messages.append(ext_proc.ProcessingRequest())
        messages[-1].request_body.body = chunk
        messages[-1].request_body.end_of_stream = at == len(case.body) - 1
    if case.subset is not None:
        for message in messages:
            message.metadata_context.filter_metadata[SUBSET_NAMESPACE].update({SUBSET_KEY: list(case.subset)})
    return [message.SerializeToString() for message in messages]


async def answers_to(served: Served, messages: Sequence[bytes]) -> list[bytes]:
    call = served.call()
    for message in messages:
        await call.write(message)
    await call.done_writing()
    answers: list[bytes] = []
    while (answer := await call.read()) is not grpc.aio.EOF:
        answers.append(answer)
    assert await call.code() is grpc.StatusCode.OK
    return answers


def play(case: Case, look: object = None, *more: ModelRewrite, configured: str = "") -> None:
    given = taken(configured, case.policy) if configured else NOTHING
    known = given.limited(limits(case.policy, {}))

    async def body(served: Served) -> None:
        served.table.apply(ClusterChanged(objects(case, *more)), 0.0)
        now = time.monotonic()
        for engine in case.engines:
            served.table.apply(page(engine, now + 60), now)
        check(case, await answers_to(served, sent(case)))
        if case.counted:
            assert served.counts.view().tallies[Series(*case.counted)].requests == 1
        if callable(look):
            look(served)

    serve(
        body,
        policy=policy_of(case.policy, known, given.weights),
        gate=gate_of(case.policy, known),
        nobody=nobody_of(case.policy),
        affinity=Affinity(by_page=case.policy in PAGE_POLICIES),
        reads=given.reads,
        quiet_s=10.0,
    )


def check(case: Case, answers: list[bytes]) -> None:
    if case.status:
        immediate = m.read(answers[-1]).immediate_response
        assert immediate.status.code == case.status
        assert immediate.body.decode().startswith(f"inference error: {case.says}")
        return
    first = m.read(answers[0])
    assert m.header_pick(first) == m.metadata_pick(first)
    assert m.header_pick(first) == case.goes_to
    if not case.body:
        assert m.kinds(answers) == ["request_headers"]
        return
    wanted = b"".join(case.body)
    if case.asks_for:
        wanted = wanted.replace(_model_in(wanted), b'"model":"%b"' % case.asks_for.encode())
    if case.bare:
        assert m.kinds(answers) == ["request_body"]
        assert first.request_body.response.body_mutation.body == wanted
    else:
        assert m.streamed(answers[1:])[:2] == (wanted, [True])
    assert m.set_headers(first)["content-length"] == str(len(wanted))


def _model_in(body: bytes) -> bytes:
    start = body.index(b'"model":"')
    return body[start : body.index(b'"', start + 9) + 1]


@pytest.mark.parametrize("case", [*TREE, *SCORERS], ids=lambda case: f"{case.policy}: {case.name}")
def test_what_the_fields_pickers_are_tested_for(case: Case) -> None:
    play(case)


def test_a_rewrite_that_an_object_asks_for_is_made_and_counted() -> None:
    rule = RewriteRule(("model-to-be-rewritten",), (Target("rewritten-model", 1),))
    case = Case(
        "rewrite request model", "gie-v1", pages((0, 0.1, "foo rewritten-model")),
        [completion("test-rewrite", "model-to-be-rewritten")], goes_to="192.168.1.1:8000", asks_for="rewritten-model",
        counted=("model-to-be-rewritten", "rewritten-model", "0"),
    )  # fmt: skip

    def look(served: Served) -> None:
        key = Rewritten("by-hand", "model-to-be-rewritten", "rewritten-model")
        assert served.counts.view().rewritten == {key: 1}

    play(case, look, ModelRewrite("default", "by-hand", "p", (rule,), ""))


CONFIGURED = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer}%s]
schedulingProfiles:
- name: default
  plugins: [{pluginRef: queue-scorer}, {pluginRef: kv-cache-utilization-scorer}, {pluginRef: prefix-cache-scorer}%s]
"""


def test_weights_of_a_configuration_decide() -> None:
    engines = pages((10, 0.2, "foo bar"), (10, 0.4, "foo sql-lora-1fdg2"), (10, 0.3, "foo"), most=2)
    sent_body = [completion("test3", "sql-lora")]
    lora = CONFIGURED % (", {type: lora-affinity-scorer}", ", {pluginRef: lora-affinity-scorer}")
    affine = Case(
        "select lora despite higher kv cache", "gie-v1", engines, sent_body, SQL_LORA, goes_to=to(1), asks_for=LORA
    )
    play(affine, configured=lora)
    play(replace(affine, goes_to=to(0)), configured=CONFIGURED % ("", ""))


def test_a_body_that_a_configuration_passes_is_not_read() -> None:
    case = Case(
        "passthrough parser success", "gie-v1", QUEUES, [b"passthrough-parser"], {LLM_D_OBJECTIVE: "my-model"},
        goes_to=to(1), counted=("", "", "2"),
    )  # fmt: skip
    play(case, configured=CONFIGURED % (", {type: passthrough-parser}", "") + "parser: {pluginRef: passthrough-parser}")


def test_a_pools_answers_that_come_without_a_request_pass() -> None:
    """The peers' tests of responses begin with the response; JSON is not held back until it is whole here."""

    async def body(served: Served) -> None:
        chunks = [b'data: {"usage":{"prompt_tokens":7,"total_tokens":17,"completion_tokens":10}}\ndata: [DONE]', b""]
        messages = [m.response_headers(status=200), m.response_body(chunks[0], False), m.response_body(chunks[1], True)]
        answers = await answers_to(served, messages)
        assert m.kinds(answers) == ["response_headers", "response_body", "response_body"]
        assert m.streamed(answers[1:], "response_body")[:2] == (b"".join(chunks), [False, True])

    serve(body, pod("a"))


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("10.0.0.2", {"10.0.0.2:3000", "10.0.0.2:3002", "10.0.0.2:3004"}),
        ("10.0.0.1,10.0.0.3:3002", {"10.0.0.1:3000", "10.0.0.1:3002", "10.0.0.1:3004", "10.0.0.3:3002"}),
        ("10.0.0.2:3000, 10.0.0.2:3004", {"10.0.0.2:3000", "10.0.0.2:3004"}),
        ("10.0.0.9", set()),
        ("10.0.0.1:9999", set()),
        ("", set()),
    ],
)
def test_the_conformance_suite_names_pods_with_and_without_a_rank(header: str, allowed: set[str]) -> None:
    known = table(pod("a"), pod("b"), pod("c"), ports=(3000, 3002, 3004))
    picker = Picker(known, rng=Random(1))
    exchange = Exchange(hooks=True)
    exchange.receive(m.headers(FULL_DUPLEX, ends=True, test_epp_endpoint_selection=header))
    assert exchange.asks is not None
    picks = [picker.pick(exchange.asks, 0.0) for _ in range(100)]

    assert {pick.destination for pick in picks if pick} == allowed
