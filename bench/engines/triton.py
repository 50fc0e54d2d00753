"""Triton's own server with two models in Python: how it is installed, started, asked and what its page says."""

from __future__ import annotations

import filecmp
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

from agent.engines.samples import Family, Page, Sample, label
from bench.engines.environment import HERE, Environment, build
from bench.engines.histograms import Times
from bench.engines.load import Ask

STREAM = "stream"  # generates: one answer in pieces, two at a time
BATCH = "batch"  # whole answers, four at a time in one step
INSTANCES = 2

_TENSOR = '{{ name: "{name}" data_type: TYPE_{kind} dims: [1]{more} }}'
_IN, _OUT = (_TENSOR.format(name=f"text_{way}", kind="STRING", more="") for way in ("input", "output"))
_WANTED = _TENSOR.format(name="max_tokens", kind="INT32", more=" optional: true")
_CONFIGS = {
    STREAM: f"max_batch_size: 0 model_transaction_policy {{ decoupled: true }} input [{_IN}, {_WANTED}] output [{_OUT}]"
    f" instance_group [{{ kind: KIND_CPU count: {INSTANCES} }}]",
    BATCH: f"max_batch_size: 4 dynamic_batching {{ max_queue_delay_microseconds: 1000 }} input [{_IN}] output [{_OUT}]"
    " instance_group [{ kind: KIND_CPU count: 1 }]",
}


@dataclass(frozen=True, slots=True)
class Ports:
    http: int
    grpc: int
    metrics: int


def environment(cache: Path) -> Environment:
    return build(cache, "triton", (("-r", str(HERE / "triton.txt")),))


def repository(folder: Path) -> Path:
    """The models, written anew."""
    for name, config in _CONFIGS.items():
        (folder / name / "1").mkdir(parents=True, exist_ok=True)
        (folder / name / "config.pbtxt").write_text(f'name: "{name}" backend: "python" {config}\n')
        shutil.copy(HERE / f"triton_{name}.py", folder / name / "1" / "model.py")
    return folder


def command(made: Environment, models: Path, ports: Ports) -> list[str]:
    server = made.packages / "pytriton" / "tritonserver"
    stub = "triton_python_backend_stub"  # it must be of the Python that the environment has
    wanted = server / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}" / stub
    present = server / "backends" / "python" / stub
    if not present.exists() or not filecmp.cmp(wanted, present, shallow=False):
        shutil.copy(wanted, present)
    path = f"{made.folder / 'bin'}:/usr/bin:/bin"
    settings = (
        f"LD_LIBRARY_PATH={made.packages / 'nvidia_pytriton.libs'}",
        f"PATH={path}",
        f"VIRTUAL_ENV={made.folder}",
    )
    where = [
        flag
        for name, port in (("http", ports.http), ("grpc", ports.grpc), ("metrics", ports.metrics))
        for flag in (f"--{name}-address=127.0.0.1", f"--{name}-port={port}")
    ]
    page = ("--allow-gpu-metrics=false", "--metrics-config=summary_latencies=true")
    binary = (str(server / "bin" / "tritonserver"), f"--model-repository={models}")
    return ["env", *settings, *binary, f"--backend-directory={server / 'backends'}", *where, *page]


def ask_stream(rng: Random, tokens: int | None = None) -> Ask:
    body = {"text_input": "x" * rng.randint(1, 400), "max_tokens": tokens or rng.randint(4, 16)}
    return Ask(f"/v2/models/{STREAM}/generate_stream", json.dumps(body).encode())


def ask_batch(rng: Random) -> Ask:
    text = {"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": ["x" * rng.randint(1, 400)]}
    return Ask(f"/v2/models/{BATCH}/infer", json.dumps({"inputs": [text]}).encode())


def finished(page: Page, model: str) -> int:
    return int(_sum(page, b"nv_inference_request_success", model))


def durations(page: Page, model: str) -> Times:
    """Since the server started; the quantiles are those of its own summary."""
    count = finished(page, model)
    if not count:
        return Times(0)
    of = {label(one, "quantile"): one.value for one in _of(page, b"nv_inference_request_summary_us", model)}
    median_s, p99_s = (None if of.get(q) is None else (of[q] or 0.0) / 1e6 for q in ("0.5", "0.99"))
    return Times(count, _sum(page, b"nv_inference_request_duration_us", model) / count / 1e6, median_s, p99_s)


def _of(page: Page, name: bytes, model: str) -> list[Sample]:
    return [one for one in page.samples(Family(name)) if label(one, "model") == model]


def _sum(page: Page, name: bytes, model: str) -> float:
    return sum(one.value or 0.0 for one in _of(page, name, model))
