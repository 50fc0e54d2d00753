from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.gateway.exchange import Exchange
from controller.gateway.modes import BUFFERED, FULL_DUPLEX, STREAMED
from controller.requests.rewriting import splice
from tests.controller import messages as m

DESTINATION = "10.0.0.1:8000"


@pytest.mark.parametrize(
    ("body", "spliced"),
    [
        (b'{"model":"a"}', b'{"model":"new"}'),
        (b' {  "model" :\t"a" , "x": 1.50e1 }\n', b' {  "model" :\t"new" , "x": 1.50e1 }\n'),
        (b'{"x":{"model":"a"},"model":"a"}', b'{"x":{"model":"a"},"model":"new"}'),
        (b'{"prompt":"\\"model\\":\\"a\\"","model":"a"}', b'{"prompt":"\\"model\\":\\"a\\"","model":"new"}'),
        (b'{"mod\\u0065l":"\\u0061"}', b'{"mod\\u0065l":"new"}'),
        (b'{"model":"a","model":"b"}', b'{"model":"a","model":"new"}'),
        ('{"p":"é","model":"ü"}'.encode(), '{"p":"é","model":"new"}'.encode()),
        (b'{"model":1}', None),
        (b'{"x":"model"}', None),
        (b'["model"]', None),
        (b'{"model":"a"', None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_only_the_value_changes(body: bytes, spliced: bytes | None) -> None:
    assert splice(body, "new") == spliced


def test_a_name_that_needs_escapes_gets_them() -> None:
    assert json.loads(splice(b'{"model":"a","n":1}', 'q"\\\n') or b"") == {"model": 'q"\\\n', "n": 1}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), values), st.text(min_size=1), st.text(), st.integers(0, 4))
def test_what_a_parser_reads_differs_in_the_model_alone(
    rest: dict[str, object], model: str, new: str, indent: int
) -> None:
    body = json.dumps(rest | {"model": model}, indent=indent or None, ensure_ascii=indent % 2 == 0).encode(
        errors="surrogatepass" if indent % 2 == 0 else "replace"
    )
    spliced = splice(body, new.encode(errors="replace").decode())
    assert spliced is not None
    expected = json.loads(body) | {"model": new.encode(errors="replace").decode()}
    assert json.loads(spliced) == expected


def test_a_buffered_body_is_replaced_and_its_length_told() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(BUFFERED))
    exchange.receive(m.body())
    (answer,) = map(m.read, exchange.answer(DESTINATION, "longer-name"))

    body = answer.request_body.response.body_mutation.body
    assert body == m.BODY.replace(b'"m"', b'"longer-name"')
    assert m.set_headers(answer) == {
        "x-gateway-destination-endpoint": DESTINATION,
        "content-length": str(len(body)),
    }
    assert m.metadata_pick(answer) == DESTINATION


def test_a_chunked_body_gets_no_length() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(BUFFERED, transfer_encoding="chunked"))
    exchange.receive(m.body())

    assert "content-length" not in m.set_headers(m.read(exchange.answer(DESTINATION, "new")[0]))


def test_a_streamed_body_comes_back_with_the_other_name() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(FULL_DUPLEX))
    exchange.receive(m.body())
    answers = exchange.answer(DESTINATION, "new")

    body = m.streamed(answers[1:])[0]
    assert body == m.BODY.replace(b'"m"', b'"new"')
    assert m.set_headers(m.read(answers[0]))["content-length"] == str(len(body))


@pytest.mark.parametrize("model", [None, "m"])
def test_the_same_name_leaves_the_body_alone(model: str | None) -> None:
    exchange = Exchange()
    exchange.receive(m.headers(BUFFERED))
    exchange.receive(m.body())

    assert not m.read(exchange.answer(DESTINATION, model)[0]).request_body.response.HasField("body_mutation")


def test_where_no_body_is_seen_there_is_nothing_to_rewrite() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(STREAMED))

    assert m.kinds(exchange.answer(DESTINATION, "new")) == ["request_headers"]
