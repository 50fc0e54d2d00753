from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.gateway.exchange import BODY_LIMIT_BYTES, Exchange
from controller.gateway.modes import BUFFERED, BUFFERED_PARTIAL, FULL_DUPLEX, NONE, STREAMED
from controller.model import Request
from controller.requests.paths import Kind
from tests.controller import messages as m

DESTINATION = "10.0.0.1:8000"
COMPLETION = Request("/v1/completions", "m", None, Kind.COMPLETIONS)


def through(exchange: Exchange, *sent: bytes) -> list[bytes]:
    """All answers, with every question settled at once."""
    out: list[bytes] = []
    for message in sent:
        out += exchange.receive(message)
        if exchange.asks:
            out += exchange.answer(DESTINATION)
    return out


# full duplex


def test_full_duplex_answers_nothing_before_the_body_has_ended() -> None:
    exchange = Exchange()

    assert exchange.receive(m.headers(FULL_DUPLEX)) == []
    assert exchange.receive(m.body(m.BODY, ends=False)) == []
    assert exchange.receive(m.body(b"")) == []
    assert exchange.asks == COMPLETION


def test_full_duplex_answers_headers_with_the_pick_then_the_whole_body() -> None:
    answers = through(Exchange(), m.headers(FULL_DUPLEX), m.body())

    assert m.kinds(answers) == ["request_headers", "request_body"]
    assert m.header_pick(m.read(answers[0])) == m.metadata_pick(m.read(answers[0])) == DESTINATION
    assert m.streamed(answers[1:]) == (m.BODY, [True], [len(m.BODY)])


def test_full_duplex_echoes_a_large_body_in_chunks() -> None:
    big = b'{"model": "m", "prompt": "' + b"x" * 150_000 + b'"}'
    answers = through(
        Exchange(), m.headers(FULL_DUPLEX), m.body(big[:100], False), m.body(big[100:], False), m.body(b"")
    )

    body, ends, sizes = m.streamed(answers[1:])
    assert body == big
    assert max(sizes) <= 62_000
    assert ends == [False, False, True]


def test_an_empty_body_is_echoed_as_the_end_of_stream() -> None:
    answers = through(Exchange(), m.headers(FULL_DUPLEX, path="/other"), m.body(b""))

    assert m.streamed(answers[1:]) == (b"", [True], [0])


def test_trailers_end_a_full_duplex_body_and_are_answered_last() -> None:
    answers = through(Exchange(), m.headers(FULL_DUPLEX), m.body(m.BODY, ends=False), m.trailers())

    assert m.kinds(answers) == ["request_headers", "request_body", "request_trailers"]
    assert m.streamed(answers[1:2]) == (m.BODY, [False], [len(m.BODY)])


@pytest.mark.parametrize("again", [m.body(b""), m.body(m.BODY), m.body(b"x", ends=False)])
def test_what_comes_after_the_end_of_a_full_duplex_body_is_ignored(again: bytes) -> None:
    exchange = Exchange()
    through(exchange, m.headers(FULL_DUPLEX), m.body())

    assert exchange.receive(again) == []


def test_full_duplex_tells_the_length_that_the_gateway_took_away() -> None:
    answers = through(Exchange(), m.headers(FULL_DUPLEX), m.body())
    chunked = through(Exchange(), m.headers(FULL_DUPLEX, transfer_encoding="chunked"), m.body())
    trailed = through(Exchange(), m.headers(FULL_DUPLEX), m.body(ends=False), m.trailers())

    assert m.set_headers(m.read(answers[0]))["content-length"] == str(len(m.BODY))
    assert "content-length" not in m.set_headers(m.read(chunked[0])) | m.set_headers(m.read(trailed[0]))


def test_a_gateway_that_keeps_the_headers_to_itself_gets_the_pick_with_the_body() -> None:
    (answer,) = through(Exchange(), m.body(mode=FULL_DUPLEX))

    assert m.streamed([answer]) == (m.BODY, [True], [len(m.BODY)])
    assert m.metadata_pick(m.read(answer)) == DESTINATION


# buffered


def test_buffered_headers_are_answered_at_once_without_a_pick() -> None:
    exchange = Exchange()
    (answer,) = exchange.receive(m.headers(BUFFERED))

    assert m.kinds([answer]) == ["request_headers"]
    assert m.metadata_pick(m.read(answer)) is None
    assert exchange.asks is None


@pytest.mark.parametrize("ends", [True, False], ids=["without trailers", "with trailers"])
def test_a_buffered_body_is_answered_with_the_pick_and_left_as_it_is(ends: bool) -> None:
    answers = through(Exchange(), m.headers(BUFFERED), m.body(m.BODY, ends))

    answer = m.read(answers[1])
    assert answer.WhichOneof("response") == "request_body"
    assert m.header_pick(answer) == m.metadata_pick(answer) == DESTINATION
    assert not answer.request_body.response.HasField("body_mutation")


def test_trailers_after_a_buffered_body_pass() -> None:
    answers = through(Exchange(), m.headers(BUFFERED), m.body(m.BODY, ends=False), m.trailers())

    assert m.kinds(answers) == ["request_headers", "request_body", "request_trailers"]


def test_a_partial_body_that_is_cut_is_not_read() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(BUFFERED_PARTIAL))
    exchange.receive(m.body(m.BODY[:10], ends=False))

    assert exchange.asks == replace(COMPLETION, model=None)


def test_a_whole_partial_body_is_read() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(BUFFERED_PARTIAL))
    exchange.receive(m.body())

    assert exchange.asks == COMPLETION


# on headers


@pytest.mark.parametrize("mode", [NONE, STREAMED])
def test_modes_without_a_whole_body_pick_on_headers(mode: int) -> None:
    exchange = Exchange()
    (answer,) = through(exchange, m.headers(mode))

    assert m.header_pick(m.read(answer)) == m.metadata_pick(m.read(answer)) == DESTINATION


def test_a_streamed_body_passes_chunk_by_chunk() -> None:
    exchange = Exchange()
    through(exchange, m.headers(STREAMED))

    answers = through(exchange, m.body(b"a", False), m.body(b"b"), m.body(b""))

    assert m.kinds(answers) == ["request_body", "request_body"]
    assert not any(m.read(answer).request_body.response.HasField("body_mutation") for answer in answers)


@pytest.mark.parametrize("mode", [NONE, STREAMED, BUFFERED, BUFFERED_PARTIAL, FULL_DUPLEX, None])
def test_a_request_without_body_is_picked_on_its_headers_in_every_mode(mode: int | None) -> None:
    exchange = Exchange()
    exchange.receive(m.headers(mode, path="/v1/models", ends=True))

    assert exchange.asks == Request("/v1/models", None, None)
    assert m.kinds(exchange.answer(DESTINATION)) == ["request_headers"]
    assert exchange.receive(m.body(b"")) == []


# what is read


@pytest.mark.parametrize("raw", [True, False], ids=["raw_value", "value"])
def test_header_values_are_read_wherever_they_are(raw: bool) -> None:
    exchange = Exchange()
    exchange.receive(m.headers(ends=True, path="/a", raw=raw))

    assert exchange.asks == Request("/a", None, None)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (["10.0.0.1:8000", "[fd00::1]:8000"], ("10.0.0.1:8000", "[fd00::1]:8000")),
        ("10.0.0.1:8000, [fd00::1]:8000", ("10.0.0.1:8000", "[fd00::1]:8000")),
        ([], ()),
        ("", ()),
        ([1, "10.0.0.1:8000"], ("10.0.0.1:8000",)),
        (["10.0.0.1:8000, 10.0.0.2:8000", "10.0.0.3:8000"], ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")),
        (7, ()),
    ],
)
def test_the_gateways_subset_is_read(hint: object, expected: tuple[str, ...]) -> None:
    exchange = Exchange()
    exchange.receive(m.headers(ends=True, subset=hint))

    assert exchange.asks is not None
    assert exchange.asks.subset == expected


@pytest.mark.parametrize("mode", [BUFFERED, FULL_DUPLEX, NONE])
def test_control_headers_of_clients_do_not_get_through(mode: int) -> None:
    spoofed = {"x_gateway_destination_endpoint": "6.6.6.6:6", "X_Gateway_Destination_Endpoint_Served": "6.6.6.6:6"}
    answers = through(Exchange(), m.headers(mode, **spoofed), *([] if mode == NONE else [m.body()]))

    removed: set[str] = set()
    overwritten: set[str] = set()
    for answer in map(m.read, answers):
        if answer.WhichOneof("response") in ("request_headers", "request_body"):
            mutation = getattr(answer, answer.WhichOneof("response")).response.header_mutation
            removed |= set(mutation.remove_headers)
            overwritten |= {option.header.key for option in mutation.set_headers}
    assert overwritten - {"content-length"} == {"x-gateway-destination-endpoint"}
    assert "x-gateway-destination-endpoint-served" in removed


def test_bodies_of_other_paths_are_not_read() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(path="/v1/audio"))
    exchange.receive(m.body(b"\x00no json"))

    assert exchange.asks == Request("/v1/audio", None, None)


# refusals


@pytest.mark.parametrize("mode", [BUFFERED, FULL_DUPLEX])
def test_bad_json_is_400_and_says_where(mode: int) -> None:
    exchange = Exchange()
    exchange.receive(m.headers(mode))
    (answer,) = exchange.receive(m.body(b'{"model": nope}'))

    immediate = m.read(answer).immediate_response
    assert immediate.status.code == 400
    assert immediate.body.endswith(b"JSON is malformed: invalid character (byte 14)")
    assert exchange.over
    assert exchange.receive(m.body()) == []


def test_a_question_can_be_refused() -> None:
    exchange = Exchange()
    through(exchange, m.headers(FULL_DUPLEX))
    exchange.receive(m.body())
    (answer,) = exchange.refuse(503, "ServiceUnavailable", "nobody there")

    assert m.read(answer).immediate_response.body == b"inference error: ServiceUnavailable - nobody there"
    assert exchange.refused == 503
    assert exchange.asks is None


def test_after_an_answer_nothing_is_refused() -> None:
    exchange = Exchange()
    through(exchange, m.headers(NONE))

    assert exchange.refuse(408, "RequestTimeout", "late") == []


def test_a_body_beyond_the_limit_is_413() -> None:
    exchange = Exchange()
    exchange.receive(m.headers(FULL_DUPLEX, path="/other"))
    part = m.body(bytes(BODY_LIMIT_BYTES // 2), ends=False)

    assert exchange.receive(part) == []
    assert exchange.receive(part) == []
    assert m.read(exchange.receive(m.body(b"x"))[0]).immediate_response.status.code == 413


def test_bytes_that_are_no_message_are_400() -> None:
    (answer,) = Exchange().receive(b"\xff\xff")

    assert m.read(answer).immediate_response.status.code == 400


# response phases


def test_response_phases_that_come_unasked_pass_untouched() -> None:
    exchange = Exchange()
    through(exchange, m.headers(FULL_DUPLEX, response_mode=FULL_DUPLEX), m.body())

    assert m.kinds(exchange.receive(m.response_headers())) == ["response_headers"]
    answers = exchange.receive(m.response_body(b"data: x\n\n", False))
    assert m.streamed(answers, "response_body") == (b"data: x\n\n", [False], [9])
    answers = exchange.receive(m.response_body(b"", True))
    assert m.streamed(answers, "response_body") == (b"", [True], [0])
    assert m.kinds(exchange.receive(m.response_trailers())) == ["response_trailers"]


def test_a_buffered_response_body_is_answered_without_its_bytes() -> None:
    exchange = Exchange()
    through(exchange, m.headers(BUFFERED, response_mode=BUFFERED), m.body())
    (answer,) = exchange.receive(m.response_body(b"x" * 1000, True))

    assert len(answer) < 10


@pytest.mark.parametrize(("mode", "outlives"), [(BUFFERED, False), (NONE, False), (FULL_DUPLEX, True)])
def test_only_full_duplex_streams_close_before_the_response(mode: int, outlives: bool) -> None:
    exchange = Exchange()
    through(exchange, m.headers(mode), *([] if mode == NONE else [m.body()]))
    assert exchange.outlives_stream is outlives

    exchange.receive(m.response_headers())

    assert not exchange.outlives_stream


# whatever the order


@given(st.data(), st.binary(max_size=200_000), st.booleans())
def test_any_split_of_the_body_comes_back_whole(data: st.DataObject, body: bytes, with_trailers: bool) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    sent = [m.body(part, ends=False) for part in parts]
    sent.append(m.trailers() if with_trailers else m.body(b""))
    answers = through(Exchange(), m.headers(FULL_DUPLEX, path="/other"), *sent)

    chunks = answers[1:-1] if with_trailers else answers[1:]
    echoed, ends, sizes = m.streamed(chunks)
    assert echoed == body
    assert all(size <= 62_000 for size in sizes)
    assert ends == [False] * (len(ends) - (not with_trailers)) + [True] * (not with_trailers)


any_message = st.one_of(
    st.builds(
        m.headers,
        st.sampled_from([None, NONE, STREAMED, BUFFERED, BUFFERED_PARTIAL, FULL_DUPLEX, 99]),
        st.text(max_size=20) | st.sampled_from(["/v1/completions", ""]),
        st.booleans(),
        st.none() | st.text() | st.lists(st.text()),
        st.booleans(),
    ),
    st.builds(m.body, st.binary(max_size=50) | st.just(m.BODY), st.booleans()),
    st.builds(m.response_body, st.binary(max_size=50), st.booleans()),
    st.sampled_from([m.trailers(), m.response_headers(), m.response_trailers(), b""]),
    st.binary(max_size=30),
)


@given(st.lists(st.tuples(any_message, st.sampled_from(["answer", "refuse", "leave"])), max_size=12))
def test_a_hostile_gateway_never_makes_an_exchange_raise(sent: list[tuple[bytes, str]]) -> None:
    exchange = Exchange()
    picks = refusals = 0
    for message, settle in sent:
        answers = exchange.receive(message)
        if exchange.asks and settle == "answer":
            answers += exchange.answer(DESTINATION)
        elif exchange.asks and settle == "refuse":
            answers += exchange.refuse(503, "ServiceUnavailable", "no")
        for answer in map(m.read, answers):
            picks += m.metadata_pick(answer) is not None
            refusals += answer.WhichOneof("response") == "immediate_response"
    assert picks + refusals <= 1
