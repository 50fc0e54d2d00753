"""`sonde-agent run` that steers: Services and pods from manifests, weights from a controller, clients in pods."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.kernel import loader
from agent.proto.weights_pb2 import EndpointWeight, EndpointWeights
from agent.proto.weights_pb2_grpc import WeightsServicer, add_WeightsServicer_to_server
from tests.kernel.conversation import Bench
from tests.kernel.pods import Agent, Ground, ground, wait_until
from tests.kernel.steered import VIP, Client, Steered, steered_node

PORT = 80
PODS = ("a", "b", "c")
Json = dict[str, Any]


@dataclass
class Site:
    """A pool `llm` of three servers behind Service `direct`, and who stands for kube-proxy at its address."""

    steered: Steered
    ground: Ground
    port: int
    vip_port: int
    uids: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, *documents: Json) -> None:
        part = self.ground.manifests / f"{name}.part"
        part.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))
        part.rename(self.ground.manifests / f"{name}.json")

    def pod(self, name: str, ready: bool = True, **metadata: Any) -> Json:
        at = PODS.index(name) + 1 if name in PODS else 9
        uid = self.uids.setdefault(name, str(uuid.uuid4()))
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": uid, "labels": {"app": "llm"}, **metadata},
            "spec": {"nodeName": "node-a"},
            "status": {
                "podIP": f"127.0.1.{at}",
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        }

    def pool(self, name: str = "llm", service: str = "direct") -> Json:
        return {
            "apiVersion": "inference.networking.k8s.io/v1",
            "kind": "InferencePool",
            "metadata": {
                "name": name,
                "namespace": "default",
                "annotations": {"sonde.dev/balance-service": service},
            },
            "spec": {
                "selector": {"matchLabels": {"app": "llm"}},
                "targetPorts": [{"number": self.port}],
                "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
            },
        }

    def service(self, name: str = "direct", address: str | None = VIP) -> Json:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "clusterIP": address or "None",
                "selector": {"app": "llm"},
                "ports": [{"port": self.vip_port, "targetPort": self.port}],
            },
        }

    def lay_out(self) -> None:
        self.put("pool", self.pool(), self.service())
        for name in PODS:
            self.put(name, self.pod(name))

    def answers(self, client: Client, times: int = 60) -> dict[str, int]:
        return client.answers(VIP, self.vip_port, times)

    def count(self, agent: Agent, reason: str) -> float:
        return agent.metrics().get(("sonde_steer_connections_total", "default", "llm", reason), 0.0)

    def source(self, agent: Agent) -> str:
        found = agent.metrics()
        sources = ("controller", "equal", "none")
        return "".join(one for one in sources if found.get(("sonde_steer_source", "default", "llm", one)) == 1)


class Controller(WeightsServicer):
    """Says to every agent what it was last told to say."""

    def __init__(self) -> None:
        self._frame = EndpointWeights()
        self._version = 0
        self._changed = threading.Condition()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        add_WeightsServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def say(self, port: int, weights: dict[str, float], age_s: float = 0.0) -> None:
        endpoints = [
            EndpointWeight(address=f"127.0.1.{PODS.index(pod) + 1}", port=port, weight=weight, pod=pod)
            for pod, weight in weights.items()
        ]
        self.say_frame(EndpointWeights(pool="llm", namespace="default", endpoints=endpoints, age_us=int(age_s * 1e6)))

    def say_frame(self, frame: EndpointWeights) -> None:
        with self._changed:
            self._frame, self._version = frame, self._version + 1
            self._changed.notify_all()

    def Watch(self, request, context):
        seen = 0
        while context.is_active():
            with self._changed:
                if self._version == seen:
                    self._changed.wait(0.2)
                    continue
                seen, frame = self._version, self._frame
            yield frame

    def stop(self) -> None:
        self._server.stop(0).wait()


@contextmanager
def controller() -> Iterator[Controller]:
    made = Controller()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def steered(bench: Bench) -> Iterator[Steered]:
    with steered_node("steer-agent") as made:
        yield made


@pytest.fixture(scope="module")
def ports(steered: Steered) -> tuple[int, int]:
    """The port of all pods, and that of the Service."""
    port = steered.servers.listen("a", "127.0.1.1")
    for at, name in enumerate(PODS[1:], 2):
        steered.servers.listen(name, f"127.0.1.{at}", port)
    return port, steered.servers.listen("proxy", VIP)


@pytest.fixture
def site(steered: Steered, ports: tuple[int, int], tmp_path: Path) -> Iterator[Site]:
    with ground(steered.node, tmp_path) as made:
        site = Site(steered, made, *ports)
        site.lay_out()
        yield site
        for client in steered.clients:
            client.close()
        steered.clients.clear()
    steered.clear()


def test_without_controllers_ready_pods_get_equal_shares_and_who_is_not_ready_none(site: Site) -> None:
    agent = site.ground.agent()
    client = site.steered.client()
    wait_until(lambda: "proxy" not in site.answers(client))
    answers = site.answers(client, 600)
    assert answers.keys() == {"a", "b", "c"}
    assert all(abs(count - 200) < 75 for count in answers.values())  # six deviations of 11.5
    assert site.source(agent) == "equal"
    found = agent.metrics()
    shares = [found["sonde_steer_endpoint_share_ratio", "default", pod, "llm"] for pod in PODS]
    assert shares == pytest.approx([1 / 3] * 3)
    assert sum(found["sonde_steer_endpoint_connections_total", "default", pod, "llm"] for pod in PODS) == site.count(
        agent, "steered"
    )
    intended = [found["sonde_steer_endpoint_intended_connections_total", "default", pod, "llm"] for pod in PODS]
    assert sum(intended) == pytest.approx(site.count(agent, "steered"))
    site.put("b", site.pod("b", ready=False))
    wait_until(lambda: agent.metrics().get(("sonde_steer_endpoint_share_ratio", "default", "a", "llm")) == 0.5)
    assert site.answers(client, 60).keys() == {"a", "c"}
    for name in ("a", "c"):
        (site.ground.manifests / f"{name}.json").unlink()
    wait_until(lambda: site.answers(client, 5) == {"proxy": 5})
    assert site.count(agent, "no_endpoint") >= 5


def test_a_controllers_weights_count_drain_and_run_out(site: Site) -> None:
    with controller() as first, controller() as second:
        places = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        first.say(site.port, {"a": 3.0, "b": 1.0, "c": 0.0})
        agent = site.ground.agent("--weights-from", places)
        client = site.steered.client()
        wait_until(lambda: site.source(agent) == "controller")
        answers = site.answers(client, 400)
        assert answers.keys() == {"a", "b"}
        assert abs(answers["a"] - 300) < 55
        second.say(site.port, {"c": 1.0}, age_s=5.0)  # older prices
        first.say(site.port, {"b": 1.0, "c": 0.0})
        wait_until(lambda: site.answers(client, 20) == {"b": 20})
        second.say(site.port, {"c": 1.0})  # the newest
        wait_until(lambda: site.answers(client, 20) == {"c": 20})
        bad = EndpointWeight(address="127.0.1.1", port=site.port, weight=float("nan"))
        second.say_frame(EndpointWeights(namespace="default", pool="llm", endpoints=[bad]))
        first.say(site.port, {"a": 1.0}, age_s=60.0)
        many = [EndpointWeight(address=f"10.0.{n >> 8}.{n & 255}", port=1, weight=1.0) for n in range(5000)]
        second.say_frame(EndpointWeights(namespace="default", pool="llm", endpoints=many))
        time.sleep(0.3)
        assert site.answers(client, 20) == {"c": 20}
    wait_until(lambda: site.source(agent) == "equal")  # 15 s later
    assert site.answers(client, 90).keys() == {"a", "b", "c"}
    agent.terminate()
    assert "5000 endpoints, a table holds 4096: the last good ones stay" in agent.said
    assert site.answers(client, 5) == {"proxy": 5}  # who ends in order hands over at once


def test_an_agent_that_is_killed_under_load_fails_no_connection(site: Site) -> None:
    agent = site.ground.agent()
    client = site.steered.client()
    wait_until(lambda: "proxy" not in site.answers(client))
    client.begin(family=4, address=VIP, port=site.vip_port, threads=8, until_s=time.monotonic() + 6.0, timed=True)
    time.sleep(0.5)
    agent.kill()
    killed_s = time.monotonic()
    timed = client.result()["timed"]
    assert {answer for _, _, answer in timed} <= {"a", "b", "c", "proxy"}
    late = {answer for began_s, _, answer in timed if began_s > killed_s + 3.6}
    assert late == {"proxy"}
    before = int(site.steered.maps.pools["steered"].sum())
    second = site.ground.agent()  # takes the counts over
    wait_until(lambda: "proxy" not in site.answers(client))
    assert site.count(second, "steered") > before
    assert site.count(second, "stale") > 0


def test_clients_that_opted_out_or_have_a_sidecar_are_left_alone(site: Site) -> None:
    agent = site.ground.agent()
    plain, out, meshed = (site.ground.pod(name) for name in ("plain", "out", "meshed"))
    for pod, more in ((plain, {}), (out, {"labels": {"sonde.dev/balance": "off"}}), (meshed, {})):
        site.uids[pod.name] = pod.uid
        document = site.pod(pod.name, **{"labels": {}, **more})
        if pod is meshed:
            document["spec"]["containers"] = [{"name": "app"}, {"name": "istio-proxy"}]
        document["status"]["podIP"] = "127.0.2.1"
        site.put(pod.name, document)
        pod.cgroup.mkdir(parents=True)
    wait_until(lambda: agent.metrics()["sonde_steer_clients_left_alone",] == 4)  # each pod's and its container's
    clients = {pod.name: site.steered.client(pod.cgroup) for pod in (plain, out, meshed)}
    wait_until(lambda: "proxy" not in site.answers(clients["plain"]))
    assert site.answers(clients["out"], 7) == {"proxy": 7}
    assert site.answers(clients["meshed"], 5) == {"proxy": 5}
    assert (site.count(agent, "client_label"), site.count(agent, "client_mesh")) == (7, 5)
    document = site.pod("out", labels={})
    site.put("out", document)
    wait_until(lambda: "proxy" not in site.answers(clients["out"], 5))
    for client in clients.values():
        client.close()


def test_what_is_wrong_with_a_service_is_one_line_and_the_last_good_table_stays(site: Site) -> None:
    agent = site.ground.agent()
    client = site.steered.client()
    wait_until(lambda: "proxy" not in site.answers(client))
    site.put("pool", site.pool(), site.service(address=None))
    fault = ("sonde_steer_fault", "default", "llm")
    wait_until(lambda: agent.metrics().get(fault) == 1)
    assert "proxy" not in site.answers(client)
    site.put("b", site.pod("b", ready=False))  # stays, but without who is not Ready
    wait_until(lambda: "b" not in site.answers(client))
    site.put("b", site.pod("b"))
    site.put("pool", site.pool(), site.service(address="127.0.1.3"))
    shown = ("sonde_steer_endpoint_share_ratio", "default", "b", "llm")
    wait_until(lambda: agent.metrics().get(shown, 0) > 0 and agent.metrics().get(fault) == 1)
    site.put("pool", site.pool(), site.service(), site.pool("other", "alias"), site.service("alias"))
    wait_until(lambda: agent.metrics().get(("sonde_steer_fault", "default", "other")) == 1)
    assert agent.metrics()[fault] == 0
    assert "proxy" not in site.answers(client)
    site.put("pool", site.pool())
    wait_until(lambda: site.answers(client, 5) == {"proxy": 5})
    time.sleep(1.5)  # what is not there is said when it has not come for a second
    agent.terminate()
    for line in (
        "Service default/direct of pool llm: it has no clusterIP",
        "its address 127.0.1.3 is that of pod default/c",
        "Service default/alias of pool other: 127.96.0.10",
        "is steered for pool default/llm: one pool for each address",
        "Service default/direct of pool llm: there is no such Service",
    ):
        assert sum(line in said for said in agent.said.splitlines() if " WARNING " in said) == 1, agent.said
    assert "Traceback" not in agent.said


def test_programs_that_are_loaded_anew_under_the_agent_are_used(site: Site) -> None:
    node = site.steered.node
    agent = site.ground.agent()
    client = site.steered.client()
    wait_until(lambda: "proxy" not in site.answers(client))
    assert loader.load(node.pins, node.cgroup) == 0
    try:
        wait_until(lambda: agent.metrics()["sonde_steer_active",] == 0)
        assert site.answers(client, 5) == {"proxy": 5}
    finally:
        assert loader.load(node.pins, node.cgroup, steer=True) == 0
        assert site.steered.maps.reopen()
    wait_until(lambda: "proxy" not in site.answers(client))
    assert agent.metrics()["sonde_steer_active",] == 1
    agent.terminate()
    assert "the programs were taken away: run 'sonde-agent load --steer'" in agent.said


def test_flags_without_the_programs_are_refused(site: Site) -> None:
    command = site.ground.command("--pin-root", "/sys/fs/bpf/sonde-none", "--balance-services", "default/direct=llm")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "run 'sonde-agent load --steer'" in done.stderr
    assert done.stderr.count("\n") == 1
