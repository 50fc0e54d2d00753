"""`sonde-agent run` on an API server: it measures what the server lists, and goes on while the server is away."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apiserver import serving
from tests.kernel.conversation import Bench
from tests.kernel.live import Node, post, read_answer, running_node
from tests.kernel.pods import Agent, Ground, ground
from tests.kube import kubeconfig


@pytest.fixture(scope="module")
def node(bench: Bench) -> Iterator[Node]:
    with running_node("api") as node:
        yield node


@pytest.fixture
def here(node: Node, tmp_path: Path) -> Iterator[Ground]:
    with ground(node, tmp_path) as made:
        yield made


def test_pods_come_and_go_with_the_api_server_and_stay_without_it(here: Ground, tmp_path: Path) -> None:
    with serving(token="t") as server:
        command = here.command("--kubeconfig", str(kubeconfig(tmp_path, server.url, "t")))
        at = command.index("--manifests")
        del command[at : at + 2]
        agent = Agent(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        here.agents.append(agent)
        agent.wait_until_running()
        with agent.watch() as watch:
            assert watch.frame().full  # nobody is there, and that is known
            first, second = here.pod("first"), here.pod("second")
            for pod in (first, second):
                pod.serve()
                server.put(pod.manifest())
                server.put(pod.pool())
            watch.until(lambda pods: all(pods.get(n) and pods[n].HasField("kernel") for n in ("first", "second")))
            server.delete(second.manifest())
            watch.until(lambda pods: set(pods) == {"first"})
            server.stop()
            with first.connect() as connection:
                connection.sendall(post("/v1/plain"))
                assert read_answer(connection).endswith(b"xx")
            watch.until(lambda pods: "first" in pods and pods["first"].kernel.completed == 1)
        assert agent.terminate() == 0
        assert "Traceback" not in agent.said
