"""NVML through the real nvidia-ml-py over a compiled library of our own; and over the real one where a GPU is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent.devices import fakenvml
from tests.conftest import skip_or_fail

ASK = """
import dataclasses, json, os, sys
from agent.devices.nvml import NoNvml, Nvml
try:
    nvml = Nvml()
except NoNvml as error:
    print(json.dumps({"none": str(error)}))
    sys.exit()
first = nvml.states()
open(os.environ["FAKE_NVML_XID"], "w").write("1 79") if "FAKE_NVML_XID" in os.environ else None
second = nvml.states()
open(os.environ["FAKE_NVML_XID"], "w").write("0 31") if "FAKE_NVML_XID" in os.environ else None
third = nvml.states()
rounds = [{name: dataclasses.asdict(state) for name, state in states.items()} for states in (first, second, third)]
print(json.dumps({"rounds": rounds, "indexes": nvml.indexes()}))
nvml.close()
"""


def ask(**environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if fakenvml.compiler() is None:
        skip_or_fail("kernel", "there is no C compiler to build the library with")
    return fakenvml.build(tmp_path_factory.mktemp("nvml"))


def test_gpus_and_slices_their_numbers_and_their_xids(library: Path, tmp_path: Path) -> None:
    told = ask(LD_LIBRARY_PATH=str(library.parent), FAKE_NVML_XID=str(tmp_path / "xid"))
    first, second, third = told["rounds"]
    gpu, part = first["GPU-zero"], first["MIG-one"]
    assert (gpu["utilization"], gpu["memory_used_bytes"], gpu["power_w"], gpu["temperature_c"]) == (0.4, 600, 250.5, 61)
    assert gpu["throttled"] == ["hardware thermal"]
    assert (part["utilization"], part["memory_total_bytes"], part["fault"]) == (None, 1000, None)
    lost = {name for name, state in second.items() if state["fault"] == "Xid 79"}
    assert lost == {"GPU-one", "MIG-one"}
    assert {name for name, state in third.items() if state["fault"]} == lost  # 31 is an application's
    assert told["indexes"] == {"GPU-zero": "nvidia0", "GPU-one": "nvidia1", "MIG-one": "nvidia1/gi3"}


def test_a_driver_that_is_not_loaded_is_one_line(library: Path) -> None:
    told = ask(LD_LIBRARY_PATH=str(library.parent), FAKE_NVML_BROKEN="1")
    assert told == {"none": "Driver Not Loaded"}


def test_without_a_library_or_with_a_real_gpu() -> None:
    """On a machine with GPUs each has an id and a size; on others it is said what is missing."""
    told = ask()
    if "none" in told:
        assert told["none"]
        return
    for uuid, state in told["rounds"][0].items():
        assert uuid.startswith(("GPU-", "MIG-"))
        assert state["memory_total_bytes"] > 0
        assert state["utilization"] is None or 0 <= state["utilization"] <= 1
