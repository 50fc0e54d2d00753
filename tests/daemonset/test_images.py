"""The Dockerfiles, the Vagrant machine and the manifests name the same programs, ports, users and versions."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from agent.config import RunConfig
from agent.config import parse as parse_agent
from controller.config import parse as parse_controller
from tests.daemonset.rendered import container, pod_spec, volume

ROOT = Path(__file__).parents[2]
STEPS = sorted(path for path in (ROOT / ".ci" / "vagrant").iterdir() if path.is_file() and os.access(path, os.X_OK))


def told(name: str, word: str) -> str:
    lines = (ROOT / f"Dockerfile.{name}").read_text().splitlines()
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{word} ")][-1]


def test_an_image_runs_what_the_manifests_give_arguments_to() -> None:
    agent = container(pod_spec("base", "DaemonSet", "sonde-agent"), "agent")
    (entry,) = json.loads(told("agent", "ENTRYPOINT"))
    assert agent["lifecycle"]["preStop"]["exec"]["command"][0] == entry
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {entry, *json.loads(told("controller", "ENTRYPOINT"))} <= set(scripts)


def test_exposed_ports_are_the_programs_own() -> None:
    agent = parse_agent(["run"])
    assert isinstance(agent, RunConfig)
    assert told("agent", "EXPOSE").split() == [str(p) for p in (agent.port, agent.metrics_port, agent.health_port)]
    controller = parse_controller(["--pool-name", "p"])
    ports = (controller.grpc_port, controller.grpc_health_port, controller.metrics_port)
    assert told("controller", "EXPOSE").split() == [str(port) for port in ports]


def test_users_are_those_of_the_manifests() -> None:
    user = pod_spec("base", "Deployment", "sonde-controller")["securityContext"]["runAsUser"]
    assert told("controller", "USER") == f"{user}:{user}"
    agent = container(pod_spec("base", "DaemonSet", "sonde-agent"), "agent")
    assert told("agent", "USER") == str(agent["securityContext"]["runAsUser"])


@pytest.mark.parametrize("name", ["agent", "controller"])
def test_what_is_copied_is_there_and_the_base_is_pinned(name: str) -> None:
    text = (ROOT / f"Dockerfile.{name}").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        assert all((ROOT / source).exists() for source in sources.split()), sources
    assert re.search(r"^ARG BASE=\S+:\d+\.\d+-slim$", text, re.M)


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = yaml.safe_load((ROOT / "daemonset/base/kustomization.yaml").read_text())["images"]
    assert {image["newTag"] for image in images} == {version}
    assert f"TAG={version}" in (ROOT / ".ci/vagrant/versions").read_text()
    for name in ("agent", "controller"):
        assert f"ARG VERSION={version}" in (ROOT / f"Dockerfile.{name}").read_text()


def test_the_machine_is_provisioned_by_scripts_that_are_there_and_parse() -> None:
    steps = re.search(r"%w\[(.*?)\]", (ROOT / "Vagrantfile").read_text())
    assert steps is not None
    assert [*steps[1].split(), "e2e"] == [path.name for path in STEPS]
    for path in STEPS:
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_machines_agent_asks_the_made_up_kubelet() -> None:
    spec = pod_spec("../.ci/vagrant/overlay", "DaemonSet", "sonde-agent")
    folder = volume(spec, "pod-resources")["hostPath"]["path"]
    assert f"lab.machine.kubelet --socket {folder}/kubelet.sock" in (ROOT / ".ci/vagrant/40-cluster").read_text()
    (socket,) = (arg for arg in container(spec, "agent")["args"] if arg.startswith("--pod-resources="))
    (mount,) = (each for each in container(spec, "agent")["volumeMounts"] if each["name"] == "pod-resources")
    assert socket == f"--pod-resources={mount['mountPath']}/kubelet.sock"
