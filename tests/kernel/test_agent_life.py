"""How an agent begins and ends over real programs: in time, alone on its pins, and without losing a count."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from agent.kernel import loader, pins
from agent.kernel.pins import Pins
from tests.kernel.conversation import Bench
from tests.kernel.live import Node, post, read_answer, running_node
from tests.kernel.pods import Agent, Ground, Pod, ground, wait_until

PLAIN = post("/v1/plain")
HELD = post("/v1/held?chunks=3")
RELEASE = post("/v1/release")


@pytest.fixture(scope="module")
def node(bench: Bench) -> Iterator[Node]:
    with running_node("agent") as node:
        yield node


@pytest.fixture
def here(node: Node, tmp_path: Path) -> Iterator[Ground]:
    with ground(node, tmp_path) as made:
        yield made


def ask(pod: Pod, times: int, request: bytes = PLAIN) -> None:
    with pod.connect() as connection:
        for _ in range(times):
            connection.sendall(request)
            assert read_answer(connection).endswith(b"xx")


def completed(agent: Agent, name: str) -> float | None:
    return agent.metrics().get(("sonde_pod_requests_finished_total", "default", "complete", name))


def test_an_idle_node_is_heard_of_again_and_again(here: Ground) -> None:
    here.serving_pod("idle")
    agent = here.agent()
    with agent.watch() as watch:
        watch.until(lambda pods: pods["idle"].HasField("kernel"))
        for _ in range(3):
            watch.until(lambda pods: "idle" in pods)


def test_a_killed_agent_loses_no_count_and_the_next_attaches_nothing(here: Ground) -> None:
    pod = here.serving_pod("kept")
    first = here.agent()
    with first.watch() as watch:
        watch.until(lambda pods: pods["kept"].HasField("kernel"))
    ask(pod, 5)
    programs = here.node.hook_programs()
    with pod.connect() as connection:
        connection.sendall(HELD)
        first.kill()
        ask(pod, 4)  # while no agent runs
        second = here.agent()
        with second.watch() as watch:
            frame = watch.frame()
            assert (frame.endpoints[0].kernel.started, frame.endpoints[0].kernel.in_flight) == (10, 1)
            ask(pod, 1, RELEASE)
            assert read_answer(connection).count(b"data:") == 3
            watch.until(lambda pods: "kept" in pods and pods["kept"].kernel.completed == 11)
    assert completed(second, "kept") == 11
    assert here.node.hook_programs() == programs


def test_counts_outlive_a_restart_at_which_the_manifest_cannot_be_read(here: Ground) -> None:
    pod = here.serving_pod("broken")
    first = here.agent()
    with first.watch() as watch:
        watch.until(lambda pods: pods["broken"].HasField("kernel"))
    ask(pod, 3)
    first.kill()
    (here.manifests / "broken.json").write_text("{ this is no YAML")
    second = here.agent()
    with second.watch() as watch:
        assert list(watch.frame().endpoints) == []
        here.list(pod)
        watch.until(lambda pods: "broken" in pods and pods["broken"].kernel.completed == 3)


def test_sigterm_ends_streams_in_order_and_the_process(here: Ground) -> None:
    here.serving_pod("drained")
    agent = here.agent()
    with agent.watch() as watch:
        watch.frame()
        assert agent.terminate() == 0
        watch.rest()
        assert watch.call.code() is grpc.StatusCode.OK
    assert "Traceback" not in agent.said


def test_a_second_agent_on_the_same_pins_is_refused(here: Ground) -> None:
    here.agent()
    second = subprocess.run(here.command(), capture_output=True, text=True, timeout=10)
    assert second.returncode == 1
    assert "another 'sonde-agent run' uses" in second.stderr
    assert second.stderr.count("\n") == 1


def test_the_metrics_tell_what_is_attached(here: Ground) -> None:
    here.serving_pod("shown")
    agent = here.agent()
    wait_until(lambda: agent.metrics()["sonde_agent_endpoints", "kernel"] == 1)
    found = agent.metrics()
    assert [found["sonde_agent_program_attached", hook] for hook in sorted(pins.LINKS)] == [1, 1, 1]
    assert found["sonde_agent_map_entries", "owners", "used"] == 2  # the pod's cgroup and its container's
    assert found["sonde_agent_sample_age_seconds",] < 0.5


def test_unloading_under_a_running_agent_leaves_nothing_and_ends_it(bench: Bench, tmp_path: Path) -> None:
    with running_node("agent-gone") as node, ground(node, tmp_path) as here:
        here.serving_pod("gone")
        agent = here.agent()
        assert loader.unload(node.pins) == 0
        assert agent.wait_end() == 1
        assert "run 'sonde-agent load' first" in agent.said
        assert "Traceback" not in agent.said
        wait_until(lambda: node.hook_programs() == [])  # detached a moment after the last pin is gone
        assert not Pins(node.pins.root).root.exists()
