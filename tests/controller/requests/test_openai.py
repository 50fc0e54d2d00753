from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.requests.openai import BadRequest, model_of


def test_the_model_is_the_top_level_one() -> None:
    assert model_of(b'{"messages": [{"model": "inner"}], "model": "outer", "n": 1}') == "outer"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "error unmarshaling request body: Input data was truncated (byte 0)"),
        (b'{"model": "m"', "error unmarshaling request body: Input data was truncated (byte 13)"),
        (b'{"prompt": nope}', "error unmarshaling request body: JSON is malformed: invalid character (byte 12)"),
        (b'{"model": "m"} x', "error unmarshaling request body: JSON is malformed: trailing characters (byte 16)"),
        (b'{"model": "\xff"}', "error unmarshaling request body: invalid UTF-8 (byte 11)"),
        (b'{"model": 7}', "model not found in request body: Expected `str`, got `int` - at `$.model`"),
        (b'{"model": null}', "model not found in request body: Expected `str`, got `null` - at `$.model`"),
        (b'["model"]', "error unmarshaling request body: Expected `object`, got `array`"),
        (b'{"a": ' + b"[" * 100_000, "error unmarshaling request body: JSON is nested too deeply"),
        (b'{"prompt": "x"}', "model not found in request body"),
        (b'{"model": ""}', "model not found in request body"),
    ],
    ids=["empty", "cut", "malformed", "trailing", "bytes", "number", "null", "list", "deep", "no model", "empty model"],
)
def test_a_bad_body_says_where_it_is_wrong(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        model_of(body)

    assert str(caught.value) == text


@given(st.text(min_size=1), st.dictionaries(st.text().filter(lambda key: key != "model"), st.text() | st.integers()))
def test_any_name_is_read_as_json_has_it(model: str, rest: dict[str, object]) -> None:
    assert model_of(json.dumps({**rest, "model": model}).encode()) == model


@given(st.binary() | st.binary().map(lambda tail: b'{"model": "' + tail))
def test_any_bytes_are_a_model_or_a_bad_request(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert model_of(body)
