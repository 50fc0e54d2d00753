"""What an agent does for its node besides counting: containers found at once, queues, and a bound on its own cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conversation import Bench
from tests.kernel.live import Node, post, read_answer, running_node
from tests.kernel.pods import Agent, Ground, Pod, ground, wait_until

PLAIN = post("/v1/plain")


@pytest.fixture(scope="module")
def node(bench: Bench) -> Iterator[Node]:
    with running_node("node") as node:
        yield node


@pytest.fixture
def here(node: Node, tmp_path: Path) -> Iterator[Ground]:
    with ground(node, tmp_path) as made:
        yield made


def ask(pod: Pod, times: int) -> None:
    for _ in range(times):
        with pod.connect() as connection:
            connection.sendall(PLAIN)
            read_answer(connection)


def started(agent: Agent, name: str) -> float | None:
    return agent.metrics().get(("sonde_pod_requests_started_total", "default", name))


def test_a_container_started_again_is_measured_from_its_first_request(here: Ground) -> None:
    """Its cgroup is new. Made after the agent last looked, and asked before it would look again."""
    pod = here.serving_pod("again")
    agent = here.agent()
    wait_until(lambda: started(agent, "again") == 0)
    assert pod.process is not None
    for n in range(1, 6):
        pod.process.kill()
        pod.process.wait()
        assert pod.process.stdout is not None
        pod.process.stdout.close()
        pod.cgroup = pod.cgroup.with_name(f"cri-containerd-{n:064x}.scope")
        pod.serve()
        with pod.connect() as connection:
            connection.sendall(PLAIN)
            read_answer(connection)
    wait_until(lambda: started(agent, "again") == 5)


def test_what_a_pod_answered_before_its_manifest_came_is_its_own(here: Ground) -> None:
    agent = here.agent()
    pod = here.pod("early")
    pod.serve()
    other = here.pod("never")
    other.serve()
    wait_until(lambda: agent.metrics()["sonde_agent_map_entries", "slots", "used"] == 2)
    for asked, times in ((pod, 7), (other, 3)):
        ask(asked, times)
    assert started(agent, "early") is None
    here.list(pod)
    wait_until(lambda: started(agent, "early") == 7)
    ask(pod, 1)
    wait_until(lambda: started(agent, "early") == 8)


def test_what_a_static_pod_answered_before_its_mirror_came_is_its_own(here: Ground) -> None:
    agent = here.agent()
    pod = here.pod("static", static=True)
    pod.serve()
    wait_until(lambda: agent.metrics()["sonde_agent_map_entries", "slots", "used"] == 1)
    ask(pod, 6)
    here.list(pod)
    wait_until(lambda: started(agent, "static") == 6)
    ask(pod, 1)
    wait_until(lambda: started(agent, "static") == 7)


def test_connections_that_wait_to_be_accepted_are_shown(here: Ground) -> None:
    pod = here.serving_pod("full")
    agent = here.agent()
    wait_until(lambda: started(agent, "full") == 0)
    key = ("sonde_pod_accept_queue_length", "default", "full")
    wait_until(lambda: agent.metrics().get(key) == 0)
    assert pod.process is not None
    pod.process.send_signal(19)  # SIGSTOP: it accepts no more
    clients = [pod.connect() for _ in range(5)]
    wait_until(lambda: agent.metrics()[key] >= 5)  # the agent's own reader of engine pages may wait there too
    pod.process.send_signal(18)
    wait_until(lambda: agent.metrics()[key] == 0)
    found = agent.metrics()
    assert (
        found["sonde_pod_accept_queue_limit", "default", "full"]
        > found["sonde_pod_accept_queue_longest", "default", "full"]
    )
    assert found["sonde_pod_accept_queue_longest", "default", "full"] >= 5
    for client in clients:
        client.close()


def test_an_agent_that_starts_late_knows_the_idle_connections(here: Ground) -> None:
    pod = here.serving_pod("late")
    silent = [pod.connect() for _ in range(3)]
    agent = here.agent()
    key = ("sonde_pod_connections_open", "default", "late")
    # the agent's own reader of engine pages may have one open too
    wait_until(lambda: agent.metrics().get(key) in (3, 4))
    for connection in silent[:2]:
        connection.sendall(PLAIN)
        read_answer(connection)
    wait_until(lambda: agent.metrics()[key] in (3, 4))
    for connection in silent:
        connection.close()
    wait_until(lambda: agent.metrics()[key] in (0, 1))


def test_programs_that_cost_more_than_they_may_leave_something_out(here: Ground) -> None:
    pod = here.serving_pod("dear")
    agent = here.agent("--kernel-share", "0.0000001")
    wait_until(lambda: started(agent, "dear") is not None)
    deadline = time.monotonic() + 60
    with pod.connect() as connection:
        while agent.metrics()["sonde_agent_shed", "http2"] != 1:
            assert time.monotonic() < deadline
            connection.sendall(PLAIN)
            read_answer(connection)
    found = agent.metrics()
    assert found["sonde_agent_kernel_share_ratio",] > 0.0000001
    assert found["sonde_agent_shed", "calls"] == 0
    assert agent.terminate() == 0
    assert agent.said.count("left out is now http2") == 1
    here.agent("--kernel-share", "0")  # no bound: what was left out comes back
    wait_until(lambda: here.node.shed() == 0)
