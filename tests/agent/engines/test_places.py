"""Where an engine's page is looked for."""

from __future__ import annotations

import pytest

from agent.engines.places import Page, hint_of, in_order

ENGINE = "llm-d.ai/engine-type"
LEGACY = "inference.networking.k8s.io/engine-type"
PORT, PATH, SCHEME = "prometheus.io/port", "prometheus.io/path", "prometheus.io/scheme"


@pytest.mark.parametrize(
    ("labels", "annotations", "engine", "pages"),
    [
        pytest.param({}, {}, None, [Page(8000), Page(8000, "/prometheus/metrics"), Page(8002)], id="nothing is known"),
        pytest.param({ENGINE: "vllm"}, {}, "vllm", [Page(8000)], id="a label"),
        pytest.param({LEGACY: "sglang"}, {}, "sglang", [Page(8000)], id="the older label"),
        pytest.param({LEGACY: "sglang", ENGINE: "tgi"}, {}, "tgi", [Page(8000)], id="the newer label counts"),
        pytest.param({ENGINE: "triton"}, {}, "triton", [Page(8002)], id="triton's own port"),
        pytest.param({ENGINE: "triton-tensorrt-llm"}, {}, "triton-tensorrt-llm", [Page(8002)], id="with TensorRT-LLM"),
        pytest.param({ENGINE: "trtllm-serve"}, {}, "trtllm-serve", [Page(8000, "/prometheus/metrics")], id="trtllm"),
        pytest.param({ENGINE: "llama.cpp"}, {}, "llamacpp", [Page(8000)], id="another name"),
        pytest.param({}, {PORT: "9000", PATH: "/m", SCHEME: "https"}, None, [Page(9000, "/m", True)], id="annotations"),
        pytest.param({ENGINE: "vllm"}, {PORT: "9000"}, "vllm", [Page(9000), Page(8000)], id="port, then the usual"),
        pytest.param({ENGINE: "vllm"}, {PATH: "/m"}, "vllm", [Page(8000, "/m"), Page(8000)], id="path alone"),
        pytest.param({ENGINE: "vllm"}, {PORT: "8001"}, "vllm", [Page(8000)], id="another rank's port is not ours"),
        pytest.param({ENGINE: "vllm"}, {PORT: "70000"}, "vllm", [Page(8000)], id="no port"),
        pytest.param({ENGINE: "vllm"}, {PORT: "http"}, "vllm", [Page(8000)], id="a name is no port"),
        pytest.param({ENGINE: "vllm"}, {PATH: "/a b\r\nX: y"}, "vllm", [Page(8000)], id="no path"),
    ],
)
def test_labels_and_annotations_say_where_a_page_is(
    labels: dict[str, str], annotations: dict[str, str], engine: str | None, pages: list[Page]
) -> None:
    hint = hint_of(labels, annotations, 8000, (8000, 8001))

    assert hint.engine == engine
    assert list(hint.pages[: len(pages)]) == pages


def test_mindie_serves_its_page_on_a_port_of_its_own_with_or_without_tls() -> None:
    assert hint_of({ENGINE: "mindie"}, {}, 1025, (1025,)).pages[:2] == (Page(1027, "/metrics", True), Page(1027))


def test_the_page_that_was_good_is_tried_first_and_all_others_after() -> None:
    hint = hint_of({}, {}, 8000, (8000,))
    first, second, third = hint.pages

    assert in_order(hint, None) == (first, second, third)
    assert in_order(hint, second) == (second, first, third)
    assert in_order(hint, Page(1)) == (first, second, third)
