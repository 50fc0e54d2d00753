from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.requests.paths import GRPC, OTHER, Kind, Route, route_of, with_model


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/completions", Route(Kind.COMPLETIONS)),
        ("/v1/chat/completions?beta=1", Route(Kind.CHAT)),
        ("/v1/responses", Route(Kind.RESPONSES)),
        ("/v1/embeddings", Route(Kind.EMBEDDINGS)),
        ("/v1/messages", Route(Kind.MESSAGES)),
        ("/my/prefix/v1/completions", Route(Kind.COMPLETIONS)),
        ("/chat/completions", Route(Kind.CHAT)),
        ("/v2/models/llama/generate", Route(Kind.GENERATE, "llama")),
        ("/v2/models/llama/generate_stream", Route(Kind.GENERATE, "llama")),
        ("/v2/models/llama/versions/3/generate_stream?x=/infer", Route(Kind.GENERATE, "llama", "3")),
        ("/v2/models/llama/infer", Route(Kind.INFER, "llama")),
        ("/v2/models/llama/versions/3/infer", Route(Kind.INFER, "llama", "3")),
        ("/prefix/v2/models/a%20b%2Fc/infer", Route(Kind.INFER, "a b/c")),
        ("/v2/models/llama/ready", OTHER),
        ("/v2/models/llama", OTHER),
        ("/v2/models//infer", OTHER),
        ("/v2/models/a/b/infer", OTHER),
        ("/xv2/models/llama/infer", OTHER),
        ("/v1/models", OTHER),
        ("/v1/threads/t/messages", OTHER),
        ("/v1/responses/r1", OTHER),
        ("/vllm.grpc.engine.VllmEngine/Generate", OTHER),
        ("/completions.txt", OTHER),
        ("", OTHER),
    ],
)
def test_a_path_tells_the_kind_and_perhaps_the_model(path: str, route: Route) -> None:
    assert route_of(path, "application/json") == route


@pytest.mark.parametrize("content_type", ["application/grpc", "Application/gRPC+proto", "application/grpc-web"])
def test_grpc_is_told_by_its_content_type_whatever_the_path(content_type: str) -> None:
    assert route_of("/v1/completions", content_type) is GRPC
    assert not GRPC.reads_body


def test_only_kinds_whose_body_names_the_model_have_it_read() -> None:
    assert route_of("/v1/embeddings").reads_body
    assert not route_of("/v2/models/m/generate").reads_body
    assert not OTHER.reads_body


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/models/a/infer", "/v2/models/x%20%2F%C3%A9/infer"),
        ("/p/v2/models/a/versions/2/generate?a=/infer", "/p/v2/models/x%20%2F%C3%A9/versions/2/generate?a=/infer"),
        ("/v1/completions", "/v1/completions"),
    ],
)  # fmt: skip
def test_the_model_in_a_path_is_replaced_and_nothing_else(path: str, expected: str) -> None:
    assert with_model(path, "x /é") == expected


@given(st.text(min_size=1), st.sampled_from(["infer", "versions/1/generate"]))
def test_any_model_comes_back_out_of_its_path(model: str, rest: str) -> None:
    assert route_of(with_model(f"/v2/models/m/{rest}", model)).model == model


@given(st.text(), st.text())
def test_any_path_has_a_kind(path: str, content_type: str) -> None:
    assert route_of(path, content_type).kind in Kind
