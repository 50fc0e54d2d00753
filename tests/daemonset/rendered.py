"""The manifests as `kubectl apply -k` would send them, and what their containers run."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

Json = dict[str, Any]
ROOT = Path(__file__).parents[2] / "daemonset"
OVERLAYS = sorted(f"overlays/{path.name}" for path in (ROOT / "overlays").iterdir())
ALL = ["base", *OVERLAYS]
_VARIABLE = re.compile(r"\$\(([A-Z_]+)\)")


@functools.cache
def render(name: str) -> list[Json]:
    ours = Path(sys.executable).parent / "kubectl"
    kubectl = str(ours) if ours.exists() else shutil.which("kubectl")
    if kubectl is None:
        pytest.fail("kubectl is missing: install the development packages (make setup-dev)")
    command = [kubectl, "kustomize", str(ROOT / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower(), done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(name: str, kind: str, title: str) -> Json:
    (found,) = (each for each in render(name) if (each["kind"], each["metadata"]["name"]) == (kind, title))
    return found


def pod_spec(name: str, kind: str, title: str) -> Json:
    spec: Json = one(name, kind, title)["spec"]["template"]["spec"]
    return spec


def container(spec: Json, title: str) -> Json:
    (found,) = (each for each in (*spec.get("initContainers", []), *spec["containers"]) if each["name"] == title)
    return found


def volume(spec: Json, title: str) -> Json:
    (found,) = (each for each in spec["volumes"] if each["name"] == title)
    return found


def variables(name: str, held: Json) -> set[str]:
    """The names that a container's environment defines."""
    defined = {each["name"] for each in held.get("env", [])}
    for source in held.get("envFrom", []):
        maps = [each for each in render(name) if each["kind"] == "ConfigMap"]
        (found,) = (each for each in maps if each["metadata"]["name"] == source["configMapRef"]["name"])
        defined |= set(found["data"])
    return defined


def arguments(held: Json, values: Mapping[str, str], places: Mapping[str, str] | None = None) -> list[str]:
    """A container's arguments with variables replaced, and paths of mounts by where the same is here."""
    filled = [_VARIABLE.sub(lambda found: values[found[1]], text) for text in held["args"]]
    for inside, outside in (places or {}).items():
        filled = [re.sub(rf"(?<==){re.escape(inside)}(?=/|$)", outside, text) for text in filled]
    return filled


def capabilities(held: Json) -> list[str]:
    told: Json = held["securityContext"]["capabilities"]
    assert told["drop"] == ["ALL"]
    return [name.lower() for name in told.get("add", [])]
