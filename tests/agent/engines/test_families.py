import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.families import NOTHING, EngineMetrics, read_page
from tests.conftest import DATA

PAGES = DATA / "engines"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("vllm.txt", EngineMetrics("vllm", 8, 24, 0.02352941176470591), id="vllm"),
        pytest.param("vllm_two_ranks.txt", EngineMetrics("vllm", 8, 8, 0.10256410256410253), id="ranks are summed"),
        pytest.param("triton.txt", EngineMetrics("triton", None, 22, None), id="triton has no running gauge"),
    ],
)
def test_a_recorded_page_is_read(name, expected):
    assert read_page((PAGES / name).read_bytes()) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        pytest.param(
            b'sglang:num_running_reqs{model_name="a"} 3.0\nsglang:num_queue_reqs 1\nsglang:token_usage 0.5\n',
            EngineMetrics("sglang", 3, 1, 0.5),
            id="sglang",
        ),
        pytest.param(
            b'nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 2\n'
            b'nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 4\n'
            b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="m"} 90\n'
            b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m"} 0.25\n',
            EngineMetrics("triton-tensorrt-llm", 4, 2, 0.25),
            id="meaning in a label",
        ),
        pytest.param(b"vllm:gpu_cache_usage_perc 0.75", EngineMetrics("vllm", None, None, 0.75), id="older vllm name"),
        pytest.param(
            b'vllm:kv_cache_usage_perc{engine="0"} 0.1\nvllm:kv_cache_usage_perc{engine="1"} 0.9\n',
            EngineMetrics("vllm", None, None, 0.9),
            id="fullest rank",
        ),
        pytest.param(
            b"vllm:num_requests_running 2 1700000000000\r\n", EngineMetrics("vllm", 2, None, None), id="time stamp"
        ),
        pytest.param(
            b'vllm:num_requests_running{model_name="a} 7"} 2\n',
            EngineMetrics("vllm", 2, None, None),
            id="brace in label",
        ),
        pytest.param(b"vllm:num_requests_waiting_by_reason 5\n", NOTHING, id="longer name"),
        pytest.param(b"# TYPE vllm:num_requests_running gauge\n", NOTHING, id="comment only"),
        pytest.param(b"", NOTHING, id="empty"),
    ],
)
def test_a_page_is_read(page, expected):
    assert read_page(page) == expected


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-1", b"1_0", b"x", b"", b"9e99"])
def test_a_count_that_is_none_is_unknown(value):
    assert read_page(b"vllm:num_requests_running " + value + b"\nvllm:num_requests_waiting 1\n") == EngineMetrics(
        "vllm", None, 1, None
    )


def test_one_unknown_rank_makes_the_sum_unknown():
    page = b'vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="1"} NaN\n'
    assert read_page(page).running is None


def test_every_truncation_of_a_page_is_survived():
    page = (PAGES / "vllm.txt").read_bytes()
    start = page.index(b"\nvllm:num_requests_running{")
    for end in range(start, start + 600):
        read_page(page[:end])


@given(st.lists(st.sampled_from([b"vllm:num_requests_running", b"{", b"}", b" ", b"\n", b'"', b"1", b"e", b"\xff"])))
def test_no_bytes_raise(parts):
    read_page(b"".join(parts))
