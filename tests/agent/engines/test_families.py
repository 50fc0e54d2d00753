import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.families import NOTHING, EngineMetrics, read_page
from tests.conftest import DATA

PAGES = DATA / "engines"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "vllm",
            EngineMetrics("vllm", 8, 24, 0.02352941176470591, ("tiny",), ("c",), ("c",), 2, 341, 128),
            id="vllm",
        ),
        pytest.param(
            "vllm_two_ranks",
            EngineMetrics("vllm", 8, 8, 0.10256410256410253, ("tiny",), kv_blocks=160, kv_block_tokens=128),
            id="ranks are summed",
        ),
        pytest.param(
            "vllm_v0",
            EngineMetrics("vllm", 3, 3, 0.4, ("llama",), ("chat", "sql"), ("sql",), 4, None, 16),
            id="vllm's old names",
        ),
        pytest.param(
            "sglang",
            EngineMetrics("sglang", 7, 3, 0.62, ("qwen",), max_adapters=8, kv_blocks=8192, kv_block_tokens=16),
            id="sglang: data-parallel ranks are summed, tensor-parallel ones are not",
        ),
        pytest.param(
            "sglang_priorities",
            EngineMetrics("sglang", 7, 2, 0.5, ("qwen",), kv_blocks=2048, kv_block_tokens=1),
            id="sglang: the total is not counted again by priority",
        ),
        pytest.param(
            "triton",
            EngineMetrics("triton", None, 22, None, ("slow", "stream")),
            id="triton has no running gauge",
        ),
        pytest.param(
            "triton_trtllm",
            EngineMetrics("triton-tensorrt-llm", 4, 2, 0.25, ("tensorrt_llm",), kv_blocks=6239, kv_block_tokens=64),
            id="triton with TensorRT-LLM",
        ),
        pytest.param(
            "triton_trtllm_no_fraction",
            EngineMetrics(
                "triton-tensorrt-llm", 4, 2, 1559 / 6239, ("tensorrt_llm",), kv_blocks=6239, kv_block_tokens=64
            ),
            id="a share that is not told is that of the blocks",
        ),
        pytest.param(
            "trtllm_serve",
            EngineMetrics("trtllm-serve", 6, 1, 0.62, ("llama-8b",), kv_blocks=8192, kv_block_tokens=32),
            id="trtllm-serve",
        ),
        pytest.param("mindie", EngineMetrics("mindie", 10, 4, 0.3, ("Qwen3-8B",)), id="mindie: per cent"),
        pytest.param("lmdeploy", EngineMetrics("lmdeploy", 8, 9, 0.71, ("internlm",)), id="lmdeploy"),
        pytest.param("tgi", EngineMetrics("tgi", 4, 7, None), id="tgi"),
        pytest.param("llamacpp", EngineMetrics("llamacpp", 4, 46, None), id="llama.cpp"),
    ],
)
def test_a_recorded_page_is_read(name, expected):
    assert read_page((PAGES / f"{name}.txt").read_bytes()) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        pytest.param(
            b'sglang:num_running_reqs{model_name="a"} 3.0\nsglang:num_queue_reqs 1\nsglang:token_usage 0.5\n',
            EngineMetrics("sglang", 3, 1, 0.5, ("a",)),
            id="sglang",
        ),
        pytest.param(
            b'nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 2\n'
            b'nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 4\n'
            b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="m"} 90\n'
            b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m"} 0.25\n',
            EngineMetrics("triton-tensorrt-llm", 4, 2, 0.25, ("m",)),
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
            EngineMetrics("vllm", 2, None, None, ("a} 7",)),
            id="brace in label",
        ),
        pytest.param(b"vllm:num_requests_waiting_by_reason 5\n", NOTHING, id="longer name"),
        pytest.param(b"# TYPE vllm:num_requests_running gauge\n", NOTHING, id="comment only"),
        pytest.param(b"", NOTHING, id="empty"),
    ],
)
def test_a_page_is_read(page, expected):
    assert read_page(page) == expected


def test_a_name_that_somebody_gives_the_engine_is_looked_for_first_and_others_after() -> None:
    both = b"tgi_queue_size 7\nllamacpp:requests_deferred 2\n"
    assert read_page(both).engine == "tgi"
    assert read_page(both, "llamacpp").engine == "llamacpp"
    assert read_page(both, "vllm").engine == "tgi"
    assert read_page(both, "no such engine").engine == "tgi"


def test_the_adapters_are_those_of_the_sample_with_the_largest_value() -> None:
    def sample(adapters: str, value: str) -> str:
        labels = f'max_lora="2",running_lora_adapters="{adapters}",waiting_lora_adapters=""'
        return f"vllm:lora_requests_info{{{labels}}} {value}"

    lines = [sample("old", "1.7e+09"), sample("b,a", "1.7000000001e+09"), sample("older", "NaN")]
    page = "vllm:num_requests_running 1\n" + "\n".join(lines)
    assert read_page(page.encode()).running_adapters == ("a", "b")


@pytest.mark.parametrize(
    ("most", "read"), [("4", 4), ("4294967295", 4294967295), ("4294967296", None), ("9" * 5000, None)]
)
def test_a_number_that_no_frame_can_carry_is_unknown(most: str, read: int | None) -> None:
    page = f'vllm:num_requests_running 1\nvllm:lora_requests_info{{max_lora="{most}",running_lora_adapters="a"}} 1\n'
    assert read_page(page.encode()).max_adapters == read
    ranks = "".join(f'vllm:cache_config_info{{engine="{rank}",num_gpu_blocks="{most}"}} 1\n' for rank in range(2))
    assert read_page(f"{page}{ranks}".encode()).kv_blocks == (8 if most == "4" else None)


def test_a_page_full_of_names_leaves_room_for_the_pages_of_others() -> None:
    adapters = ",".join(f"adapter-{number}" for number in range(100_000))
    line = f'vllm:lora_requests_info{{running_lora_adapters="{adapters}",waiting_lora_adapters="{"x" * 257},y"}} 1'
    found = read_page(f'vllm:num_requests_running{{model_name="{"m" * 300}"}} 1\n{line}\n'.encode())
    assert (len(found.running_adapters), found.waiting_adapters, found.models) == (1000, ("y",), ())


def test_a_label_is_read_with_its_escapes() -> None:
    page = b'vllm:num_requests_running{model_name="a\\\\b\\"c\\nd",xmodel_name="x"} 1\n'
    assert read_page(page).models == ('a\\b"c\nd',)


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
