"""The names that inference engines give their numbers. Data only: what they are for is in families.py.

Names are as in the engines' own sources and documents. An engine is recognised by the first of its families that a
page has, so names without a prefix of their own (MindIE's) come last.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.engines.samples import Family


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that is a sample's value, or one of its labels."""

    family: Family
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Adapters:
    """A family whose labels list LoRA adapters."""

    family: Family
    running: str
    waiting: str
    most: str


@dataclass(frozen=True, slots=True)
class Engine:
    name: str  # as the pods' engine-type label has it
    running: tuple[Family, ...]  # summed
    waiting: tuple[Family, ...]  # summed
    kv_cache_usage: tuple[Family, ...] = ()  # the first one on the page counts
    kv_used: Family | None = None  # blocks in use, where the share is not told
    kv_blocks: tuple[Figure, ...] = ()  # the first one on the page counts, as below
    kv_block_tokens: tuple[Figure, ...] = ()
    adapters: Adapters | None = None
    max_adapters: tuple[Figure, ...] = ()
    copies: tuple[str, ...] = ()  # labels of ranks that hold the same requests
    parts: tuple[str, ...] = ()  # labels that, unless empty, mark a part of what another sample counts whole
    percent: bool = False  # a usage above 1 is in per cent


_VLLM_CACHE = Family(b"vllm:cache_config_info")
_SGLANG_CACHE = Family(b"sglang:cache_config_info")  # up to 0.5.10; gauges of their own after
_TRT_REQUESTS = b"nv_trt_llm_request_metrics"
_TRT_BLOCKS = b"nv_trt_llm_kv_cache_block_metrics"

VLLM = Engine(
    "vllm",
    running=(Family(b"vllm:num_requests_running"),),
    waiting=(Family(b"vllm:num_requests_waiting"), Family(b"vllm:num_requests_swapped")),  # swapped: V0 only
    # V1 renamed gpu_cache_usage_perc; builds for Ascend say npu
    kv_cache_usage=(
        Family(b"vllm:kv_cache_usage_perc"),
        Family(b"vllm:gpu_cache_usage_perc"),
        Family(b"vllm:npu_cache_usage_perc"),
    ),
    kv_blocks=(Figure(_VLLM_CACHE, "num_gpu_blocks"),),
    kv_block_tokens=(Figure(_VLLM_CACHE, "block_size"),),
    adapters=Adapters(Family(b"vllm:lora_requests_info"), "running_lora_adapters", "waiting_lora_adapters", "max_lora"),
)
SGLANG = Engine(
    "sglang",
    running=(Family(b"sglang:num_running_reqs"),),
    waiting=(Family(b"sglang:num_queue_reqs"),),
    kv_cache_usage=(Family(b"sglang:token_usage"),),
    kv_blocks=(Figure(Family(b"sglang:num_pages")), Figure(_SGLANG_CACHE, "num_pages")),
    kv_block_tokens=(Figure(Family(b"sglang:page_size")), Figure(_SGLANG_CACHE, "page_size")),
    max_adapters=(Figure(Family(b"sglang:lora_pool_slots_total")),),
    copies=("tp_rank", "pp_rank", "moe_ep_rank"),
    parts=("priority",),  # with priority scheduling the total has an empty one
)
TRTLLM_SERVE = Engine(
    "trtllm-serve",
    running=(Family(b"trtllm_num_requests_running"),),
    waiting=(Family(b"trtllm_num_requests_waiting"),),
    kv_cache_usage=(Family(b"trtllm_kv_cache_utilization"),),
    kv_blocks=(Figure(Family(b"trtllm_kv_cache_max_blocks")),),
    kv_block_tokens=(Figure(Family(b"trtllm_kv_cache_tokens_per_block")),),
)
TRITON_TRTLLM = Engine(
    "triton-tensorrt-llm",
    running=(Family(_TRT_REQUESTS, b'request_type="scheduled"'),),
    waiting=(Family(_TRT_REQUESTS, b'request_type="waiting"'),),
    kv_cache_usage=(Family(_TRT_BLOCKS, b'kv_cache_block_type="fraction"'),),
    kv_used=Family(_TRT_BLOCKS, b'kv_cache_block_type="used"'),  # before there was a fraction
    kv_blocks=(Figure(Family(_TRT_BLOCKS, b'kv_cache_block_type="max"')),),
    kv_block_tokens=(Figure(Family(_TRT_BLOCKS, b'kv_cache_block_type="tokens_per"')),),
)
# plain Triton has no gauge of running requests
TRITON = Engine("triton", running=(), waiting=(Family(b"nv_inference_pending_request_count"),))
LMDEPLOY = Engine(
    "lmdeploy",
    running=(Family(b"lmdeploy:num_requests_running"),),
    # the second: those for which its API has no free handle yet
    waiting=(Family(b"lmdeploy:num_requests_waiting"), Family(b"lmdeploy:num_api_requests_waiting")),
    kv_cache_usage=(Family(b"lmdeploy:gpu_cache_usage_perc"),),
)
TGI = Engine("tgi", running=(Family(b"tgi_batch_current_size"),), waiting=(Family(b"tgi_queue_size"),))
LLAMACPP = Engine(
    "llamacpp",
    running=(Family(b"llamacpp:requests_processing"),),
    waiting=(Family(b"llamacpp:requests_deferred"),),
    kv_cache_usage=(Family(b"llamacpp:kv_cache_usage_ratio"),),  # gone since 2025
)
MINDIE = Engine(
    "mindie",
    running=(Family(b"num_requests_running"),),
    waiting=(Family(b"num_requests_waiting"), Family(b"num_requests_swapped")),
    kv_cache_usage=(Family(b"npu_cache_usage_perc"),),
    percent=True,  # documented as a share, seen as 30
)

ENGINES = (VLLM, SGLANG, TRTLLM_SERVE, TRITON_TRTLLM, TRITON, LMDEPLOY, TGI, LLAMACPP, MINDIE)
