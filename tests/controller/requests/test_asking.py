"""Which bodies are read for a model, and which must name one."""

from __future__ import annotations

import pytest

from controller.gateway.reading import Head
from controller.requests.asking import KEPT_PATH, asked
from controller.requests.openai import BadRequest
from controller.requests.paths import route_of

NAMED = b' \n{"input": [1], "model": "m"}'


def head(path: str, content_type: str = "application/json") -> Head:
    return Head({"path": path, "content type": content_type})


@pytest.mark.parametrize(
    "path",
    ["/v1/rerank", "/rerank", "/v1/score", "/score", "/pooling", "/classify", "/tokenize", "/detokenize",
     "/v1/audio/speech", "/v1/images/generations", "/v1/messages", "/v1/messages/", "/v1/messages/count_tokens",
     "/v1/conversations", "/inference/v1/generate", "/invocations", "/v1/chat/completions/?x=1", "/", "/anything"],
)  # fmt: skip
def test_the_model_is_read_on_every_path_whose_body_is_json(path: str) -> None:
    request = asked(head(path), None, NAMED, cut=False)

    assert (request.model, request.in_body) == ("m", True)


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\xffRIFF", b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--', b"[1, 2]",
     b'"text"', b'{"model": 7}', b'{"model": ""}', b'{"model": null}', b'{"input": 1}', b'{"model": "m"', b"{" * 5000,
     b'{"\xff": 1}'],
)  # fmt: skip
def test_whatever_else_comes_on_a_path_that_is_not_known_passes_unread(body: bytes) -> None:
    request = asked(head("/v1/audio/transcriptions", ""), None, body, cut=False)

    assert (request.model, request.in_body) == (None, False)
    assert request.body == body


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages", "/v1/responses/", ""])
@pytest.mark.parametrize("body", [b'{"prompt": "x"}', b"no healthy upstream"])
def test_a_body_that_must_name_a_model_and_does_not_is_a_bad_request(path: str, body: bytes) -> None:
    with pytest.raises(BadRequest):
        asked(head(path), None, body, cut=False)

    assert asked(head(path), None, body, cut=True).model is None
    assert asked(head(path), None, body, cut=False, reads=False).model is None


def test_a_grpc_body_is_not_read_even_without_a_path() -> None:
    for path in ("", "/vllm.grpc.engine.VllmEngine/Generate"):
        request = asked(head(path, "application/grpc+proto"), None, NAMED, cut=False)
        assert (request.model, request.in_body) == (None, False)


def test_a_model_that_the_path_or_a_header_names_is_not_in_the_body() -> None:
    request = asked(head("/v2/models/llama/infer"), None, NAMED, cut=False)
    assert (request.model, request.in_body) == ("llama", False)

    request = asked(Head({"path": "/v1/audio/transcriptions", "model": "whisper"}), None, b"--x", cut=False)
    assert (request.model, request.in_body) == ("whisper", False)


def test_a_path_of_any_length_is_told_and_only_usual_ones_are_kept() -> None:
    kept = route_of.cache_info().currsize
    long = f"/{'x' * KEPT_PATH}/v2/models/llama/infer"
    assert asked(head(long), None, None, cut=False).model == "llama"
    assert route_of.cache_info().currsize == kept
