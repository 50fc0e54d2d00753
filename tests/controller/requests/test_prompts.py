from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.gateway.reading import Head
from controller.requests.asking import asked
from controller.requests.openai import read as decoded
from controller.requests.paths import Kind
from controller.requests.prompts import IMAGE_TOKENS, LONG_BYTES, read

TEXT = "word " * 400


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m"} | fields).encode()


@pytest.mark.parametrize(
    ("kind", "fields", "tokens"),
    [
        (Kind.COMPLETIONS, {"prompt": TEXT}, 500),
        (Kind.COMPLETIONS, {"prompt": list(range(700))}, 700),
        (Kind.CHAT, {"messages": [{"role": "user", "content": TEXT}]}, 508),
        (Kind.CHAT, {"messages": [{"role": "user", "content": TEXT}], "tools": [{"name": TEXT}]}, 1011),
        (Kind.RESPONSES, {"instructions": TEXT, "input": TEXT}, 1000),
        (Kind.MESSAGES, {"system": TEXT, "messages": []}, 500),
        (Kind.EMBEDDINGS, {"input": [TEXT, TEXT]}, 1000),
        (Kind.GENERATE, {"text_input": TEXT}, 500),
        (Kind.CHAT, {}, 0),
    ],
)
def test_tokens_are_a_quarter_of_the_bytes_or_counted(kind: Kind, fields: dict[str, object], tokens: float) -> None:
    prompt = read(kind, body(**fields))

    assert prompt is not None
    assert prompt.tokens == pytest.approx(tokens, abs=4)


def test_a_picture_is_not_read_as_text() -> None:
    url = "data:image/png;base64," + "A" * 1_000_000
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is it?"}]
    prompt = read(Kind.CHAT, body(messages=[{"role": "user", "content": content}]))

    assert prompt is not None
    assert IMAGE_TOKENS < prompt.tokens < IMAGE_TOKENS + 60


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 16}, 16.0),
        ({"max_tokens": 100, "max_completion_tokens": 50}, 50.0),
        ({"max_output_tokens": 7}, 7.0),
        ({"max_tokens": None}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 1.5}, None),
        ({"max_tokens": "12"}, None),
        ({"max_tokens": 10**30}, None),
        ({}, None),
    ],
)
def test_the_output_is_no_longer_than_the_client_says(fields: dict[str, object], expected: float | None) -> None:
    prompt = read(Kind.CHAT, body(messages=[], **fields))

    assert prompt is not None
    assert prompt.output_tokens == expected


def test_the_next_turn_of_a_talk_begins_as_the_last() -> None:
    turn = [{"role": "user", "content": "a"}]
    first, second = read(Kind.CHAT, body(messages=turn)), read(Kind.CHAT, body(stream=True, messages=[*turn, *turn]))

    assert first is not None
    assert second is not None
    assert second.text.startswith(first.text[:-1])


def test_what_cannot_be_read_counts_by_its_size() -> None:
    assert read(Kind.CHAT, b"{" * 400) == read(Kind.OTHER, b"x" * 400)
    assert read(Kind.CHAT, b"") is None
    assert read(Kind.CHAT, None) is None


def test_two_megabytes_are_read() -> None:
    prompt = read(Kind.COMPLETIONS, body(prompt="x" * (2 << 20)))

    assert prompt is not None
    assert prompt.tokens == pytest.approx(1 << 19, rel=0.01)


@given(st.sampled_from(list(Kind)), st.binary(max_size=300))
def test_no_bytes_raise(kind: Kind, raw: bytes) -> None:
    prompt = read(kind, raw)

    assert prompt is None or prompt.tokens >= 0


@pytest.mark.parametrize(("fields", "streams"), [({"stream": True}, True), ({"stream": False}, False), ({}, False)])
def test_a_request_tells_whether_its_answer_comes_by_and_by(fields: dict[str, object], streams: bool) -> None:
    prompt = read(Kind.CHAT, body(messages=[], **fields))

    assert prompt is not None
    assert prompt.streams is streams


MARKS = st.sampled_from(['"data:', '"data', "data:", 'a:"data:', "", '"dat:'])


@given(st.text(max_size=40), MARKS, st.text(max_size=9))
def test_a_picture_in_a_long_text_is_found_as_in_a_short_one(before: str, mark: str, after: str) -> None:
    text = before + mark + after
    short, long = (read(Kind.CHAT, body(messages=[text, " " * size])) for size in (0, LONG_BYTES))

    assert short is not None
    assert long is not None
    assert (short.tokens >= IMAGE_TOKENS) == ('"data:' in json.dumps(text))
    assert long.tokens == short.tokens + LONG_BYTES / 4


def test_a_body_is_not_decoded_twice() -> None:
    """What was decoded for the model tells the same, whatever else the body has."""
    body = b'{"model": "m", "messages": [{"content": "hi"}], "tools": [1], "max_tokens": 9, "stream": true, "x": 1}'

    assert read(Kind.CHAT, body, decoded(body)) == read(Kind.CHAT, body)
    assert asked(Head({"path": "/v1/chat/completions"}), None, body, cut=False).fields == decoded(body)
