"""What an exchange reads of headers and paths, and how it answers where the path names the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from controller.gateway.exchange import Exchange
from controller.gateway.modes import BUFFERED, FULL_DUPLEX, NONE
from controller.requests.paths import Kind
from tests.controller import messages as m
from tests.controller.gateway.test_exchange import COMPLETION, DESTINATION, through


def test_headers_say_objective_flow_and_target_whichever_name_they_have() -> None:
    for prefix in ("x-gateway", "x-llm-d"):
        exchange = Exchange()
        told = {f"{prefix}-inference-objective": "gold", f"{prefix}-inference-fairness-id": "a team"}
        exchange.receive(m.headers(FULL_DUPLEX, **told, **{f"{prefix}-model-name-rewrite": "t"}))
        exchange.receive(m.body())

        assert exchange.asks == replace(COMPLETION, objective="gold", flow="a team", target="t")


@pytest.mark.parametrize("older_first", [True, False])
def test_the_newer_name_of_a_header_counts_in_any_order_even_if_it_is_empty(older_first: bool) -> None:
    pairs = [("x-gateway-inference-objective", "old"), ("x-llm-d-inference-objective", "")]
    exchange = Exchange()
    exchange.receive(m.headers(NONE, **dict(pairs if older_first else pairs[::-1])))

    assert exchange.asks is not None
    assert exchange.asks.objective == ""


@pytest.mark.parametrize(("mode", "path"), [(BUFFERED, "/v1/rerank"), (FULL_DUPLEX, "/tokenize"), (BUFFERED, "")])
def test_a_model_in_any_json_body_is_changed_there(mode: int, path: str) -> None:
    exchange = Exchange()
    exchange.receive(m.headers(mode, path=path))
    exchange.receive(m.body(b'{"query": "q", "model" : "a" }'))
    answers = exchange.answer(DESTINATION, "bb")

    changed = b'{"query": "q", "model" : "bb" }'
    if mode == FULL_DUPLEX:
        assert m.streamed(answers[1:])[0] == changed
    else:
        assert m.read(answers[0]).request_body.response.body_mutation.body == changed
    assert m.set_headers(m.read(answers[0]))["content-length"] == str(len(changed))


@pytest.mark.parametrize("mode", [NONE, FULL_DUPLEX])
def test_a_v2_path_names_the_model_and_its_body_is_not_read(mode: int) -> None:
    exchange = Exchange()
    exchange.receive(m.headers(mode, path="/v2/models/llama/versions/2/generate_stream"))
    if mode == FULL_DUPLEX:
        exchange.receive(m.body(b"no JSON"))

    assert exchange.asks is not None
    assert (exchange.asks.model, exchange.asks.kind) == ("llama", Kind.GENERATE)


def test_a_grpc_body_passes_unread() -> None:
    headers = m.headers(FULL_DUPLEX, path="/v1/completions", content_type="application/grpc")
    answers = through(Exchange(), headers, m.body(b"\x00\x00\x00\x00\x02{]"))

    assert m.kinds(answers) == ["request_headers", "request_body"]


def test_a_model_that_a_filter_before_us_read_is_taken_where_the_body_is_not_shown() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(NONE, x_gateway_model_name="known"))
    assert exchange.asks == replace(COMPLETION, model="known")

    exchange = Exchange()
    exchange.receive(m.headers(FULL_DUPLEX, x_gateway_model_name="known"))
    exchange.receive(m.body())
    assert exchange.asks == COMPLETION


@pytest.mark.parametrize(("mode", "at"), [(NONE, 0), (FULL_DUPLEX, 0), (BUFFERED, 1)])
def test_a_model_in_the_path_is_changed_there_and_the_body_is_not(mode: int, at: int) -> None:
    exchange, sent = Exchange(), b'{"model": "a"}'
    answers = exchange.receive(m.headers(mode, path="/v2/models/a/versions/1/infer?x=1"))
    answers += exchange.receive(m.body(sent)) if mode != NONE else []
    answers += exchange.answer(DESTINATION, "b")

    answer = m.read(answers[at])
    common = getattr(answer, answer.WhichOneof("response")).response
    told = {o.header.key: o.header.raw_value for o in common.header_mutation.set_headers}
    assert told[":path"] == b"/v2/models/b/versions/1/infer?x=1"
    assert m.metadata_pick(answer) == told["x-gateway-destination-endpoint"].decode() == DESTINATION
    assert not common.body_mutation.body
    if mode == FULL_DUPLEX:
        assert m.streamed(answers[1:])[0] == sent


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({":status": "503"}, 503),
        ({"status": "429"}, 429),
        ({"status": "200", ":status": "500"}, 500),
        ({"Status": "\u0665\u0660\u0660"}, None),
        ({":status": "5000"}, None),
        ({}, None),
    ],
)
def test_a_responses_status_is_read_with_or_without_its_colon(told: dict[str, str], status: int | None) -> None:
    message = ext_proc.ProcessingRequest(response_headers=ext_proc.HttpHeaders())
    for key, value in told.items():
        message.response_headers.headers.headers.add(key=key, value=value)
    exchange = Exchange()
    exchange.receive(message.SerializeToString())

    assert exchange.response_status == status


def test_a_grpc_stream_goes_on_before_its_client_has_said_all() -> None:
    """A client that waits for a first answer would wait for ever."""
    exchange = Exchange()
    path = "/inference.GRPCInferenceService/ModelStreamInfer"
    exchange.receive(m.headers(FULL_DUPLEX, path=path, content_type="application/grpc+proto"))
    assert exchange.asks is not None
    (answer,) = exchange.answer(DESTINATION)
    assert m.header_pick(m.read(answer)) == m.metadata_pick(m.read(answer)) == DESTINATION
    assert not exchange.done

    parts = [m.streamed(exchange.receive(m.body(data, ends))) for data, ends in ((b"one", False), (b"", True))]
    assert [(body, ends) for body, ends, _ in parts] == [(b"one", [False]), (b"", [True])]
    assert exchange.done
    assert exchange.receive(m.body(b"more")) == []


def test_trailers_end_a_grpc_stream() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(FULL_DUPLEX, content_type="application/grpc"))
    exchange.answer(DESTINATION)
    exchange.receive(m.body(b"one", ends=False))
    assert m.kinds(exchange.receive(m.trailers())) == ["request_trailers"]
    assert exchange.done
