"""Every manifest against Kubernetes' schemas, and against the programs that it starts."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from agent.cluster.objects import AGENT_LABEL, read_object
from agent.config import CertsConfig, LoadConfig, RunConfig, UnloadConfig
from agent.config import parse as parse_agent
from agent.identity import tls
from controller.config import parse as parse_controller
from tests.daemonset.rendered import (
    ALL,
    OVERLAYS,
    ROOT,
    arguments,
    capabilities,
    container,
    one,
    pod_spec,
    render,
    variables,
)
from tests.daemonset.schemas import SPECS

Json = dict[str, Any]
VERSIONS = ("1.30", "1.32", "1.34")
VALUES = {
    "NODE_NAME": "n1", "HOST_IP": "10.0.0.1", "POOL_NAME": "llm", "POOL_NAMESPACE": "default",
    "POOL_GROUP": "inference.networking.k8s.io",
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_object_is_what_its_schema_wants(name: str, version: str) -> None:
    for document in render(name):
        spec = SPECS.get((document["apiVersion"], document["kind"]))
        if spec is None:
            kubernetes_validate.validate(document, version, strict=True)
        else:
            jsonschema.validate(document["spec"], spec)


def test_the_schemas_refuse_what_is_wrong() -> None:
    broken = {**one("base", "Service", "sonde-controller"), "spec": {"ports": [{"port": "many"}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)
    pool = one("overlays/istio", "InferencePool", "llm")["spec"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**pool, "targetPort": 3}, SPECS["inference.networking.k8s.io/v1", "InferencePool"])


@pytest.mark.parametrize("name", ALL)
def test_what_sonde_reads_of_the_objects_it_understands(name: str) -> None:
    for document in render(name):
        if document["kind"].startswith("Inference"):
            read_object(document)


def agent_of(name: str) -> RunConfig:
    held = container(pod_spec(name, "DaemonSet", "sonde-agent"), "agent")
    config = parse_agent(arguments(held, VALUES))
    assert isinstance(config, RunConfig)
    return config


@pytest.mark.parametrize("name", ALL)
def test_the_agents_arguments_are_flags_it_has(name: str) -> None:
    spec = pod_spec(name, "DaemonSet", "sonde-agent")
    config = agent_of(name)
    held = container(spec, "agent")
    assert config.node_name == "n1"
    assert set(VALUES) & variables(name, held) >= {"NODE_NAME"}
    ports = {each["name"]: each["containerPort"] for each in held["ports"]}
    assert ports == {"grpc": config.port, "metrics": config.metrics_port, "health": config.health_port}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert held[probe]["httpGet"]["port"] == "health"
    assert config.tls_path is not None
    mounted = [each["mountPath"] for each in held["volumeMounts"]]
    for path in (config.tls_path, config.cgroup_root, config.pod_resources):
        assert path is None or any(fnmatch.fnmatch(str(path), f"{mount}*") for mount in mounted), path


@pytest.mark.parametrize("name", [name for name in ALL if name != "overlays/min-capability"])
def test_load_and_run_look_at_the_same_places(name: str) -> None:
    spec = pod_spec(name, "DaemonSet", "sonde-agent")
    load = parse_agent(arguments(container(spec, "load"), VALUES))
    assert isinstance(load, LoadConfig)
    config = agent_of(name)
    assert (load.attach_cgroup, load.pin_root) == (config.cgroup_root, config.pin_root)
    command = container(spec, "agent")["lifecycle"]["preStop"]["exec"]["command"]
    unload = parse_agent(command[1:])
    assert isinstance(unload, UnloadConfig)
    daemonset = one(name, "DaemonSet", "sonde-agent")["metadata"]
    assert (unload.pin_root, unload.when_deleted) == (config.pin_root, (daemonset["namespace"], daemonset["name"]))


@pytest.mark.parametrize("name", ALL)
def test_nobody_gets_more_rights_than_its_table_says(name: str) -> None:
    spec = pod_spec(name, "DaemonSet", "sonde-agent")
    allowed = {"load": ["bpf", "net_admin", "perfmon"], "agent": ["bpf"]}
    for document in render(name):
        if document["kind"] not in ("DaemonSet", "Deployment"):
            continue
        inside = document["spec"]["template"]["spec"]
        assert not inside.get("hostNetwork")
        assert not inside.get("hostPID")
        for held in (*inside.get("initContainers", []), *inside["containers"]):
            context = held["securityContext"]
            assert not context.get("privileged")
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert set(capabilities(held)) <= set(allowed.get(held["name"], []))
            assert held["resources"]["requests"]
            assert held["resources"]["limits"]["memory"]
        if document["kind"] == "Deployment":
            assert inside["securityContext"]["runAsNonRoot"] is True
    if name == "overlays/min-capability":
        assert capabilities(container(spec, "agent")) == []
        paths = [each["hostPath"]["path"] for each in spec["volumes"] if "hostPath" in each]
        assert paths == ["/var/lib/kubelet/pod-resources"]


@pytest.mark.parametrize("name", ALL)
def test_the_controllers_arguments_are_flags_it_has(name: str, tmp_path: Path) -> None:
    spec = pod_spec(name, "Deployment", "sonde-controller")
    held = container(spec, "controller")
    assert variables(name, held) >= {"POOL_NAME", "POOL_GROUP", "POOL_NAMESPACE"}
    config = parse_controller(arguments(held, VALUES))
    ports = {each["name"]: each["containerPort"] for each in held["ports"]}
    weights = {"weights": config.weights_port} if config.weights_port else {}
    assert ports == weights | {
        "grpc-ext-proc": config.grpc_port, "grpc-health": config.grpc_health_port, "metrics": config.metrics_port,
    }  # fmt: skip
    assert spec["terminationGracePeriodSeconds"] > config.drain_delay_s + config.drain_timeout_s
    assert config.agent_namespace == one(name, "DaemonSet", "sonde-agent")["metadata"]["namespace"]
    service = one(name, "Service", "sonde-controller")["spec"]
    assert {each["targetPort"] for each in service["ports"]} <= set(ports)
    (map_of_pool,) = (each for each in render(name) if each["metadata"]["name"].startswith("sonde-pool"))
    group = map_of_pool["data"]["POOL_GROUP"]
    pools = [each for each in render(name) if each["kind"] == "InferencePool"]
    assert all(each["apiVersion"].startswith(f"{group}/") for each in pools)


@pytest.mark.parametrize("name", ALL)
def test_the_keeper_of_certificates_fills_the_secrets_that_are_mounted(name: str) -> None:
    held = container(pod_spec(name, "Deployment", "sonde-certs"), "certs")
    config = parse_agent(arguments(held, VALUES))
    assert isinstance(config, CertsConfig)
    assert config.keep
    agent = pod_spec(name, "DaemonSet", "sonde-agent")
    controller = one(name, "Deployment", "sonde-controller")
    assert controller["metadata"]["namespace"] in config.controller_namespaces
    for spec, secret in ((agent, "sonde-agent-tls"), (controller["spec"]["template"]["spec"], "sonde-controller-tls")):
        (volume,) = (each["secret"] for each in spec["volumes"] if "secret" in each)
        assert volume["secretName"] == secret
        assert {each["key"] for each in volume["items"]} == {tls.CA, tls.CERTIFICATE, tls.KEY}
        assert one(name, "Secret", secret)["type"] == "Opaque"


def rules(name: str, kind: str, title: str) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in one(name, kind, title)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_rights_are_reading_and_no_more() -> None:
    """The keeper alone writes, and only Secrets that it is told by name."""
    for document in render("base"):
        for rule in document.get("rules", []):
            if "secrets" in rule["resources"]:
                assert set(rule["verbs"]) == {"get", "update"}
                assert rule["resourceNames"]
                assert document["metadata"]["name"] in ("sonde-certs", "sonde-controller-certs")
            else:
                assert set(rule["verbs"]) <= {"get", "list", "watch"}
    agent = rules("base", "ClusterRole", "sonde-agent")
    assert {("", "pods", "watch"), ("inference.networking.x-k8s.io", "inferencepools", "list")} <= agent
    controller = rules("base", "Role", "sonde-controller")
    for resource in ("inferencemodels", "inferenceobjectives", "inferencemodelrewrites"):
        assert ("inference.networking.x-k8s.io", resource, "watch") in controller


def test_agents_that_steer_reach_the_weights_and_may_read_what_it_takes() -> None:
    name = "overlays/steer"
    controller = parse_controller(
        arguments(container(pod_spec(name, "Deployment", "sonde-controller"), "controller"), VALUES)
    )
    (service,) = (each for each in render(name) if each["metadata"]["name"] == "sonde-controller-weights")
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    ((where, port),) = agent_of(name).weights_from
    assert (where, port) == (host, controller.weights_port)
    (told,) = service["spec"]["ports"]
    assert (told["port"], service["spec"]["clusterIP"]) == (port, "None")
    template = one(name, "Deployment", "sonde-controller")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= template.items()
    opened = [
        rule["from"]
        for rule in one(name, "NetworkPolicy", "sonde-controller")["spec"]["ingress"]
        if any(each["port"] == port for each in rule["ports"])
    ]
    (agents,) = (each for rule in opened for each in rule)
    daemonset = one(name, "DaemonSet", "sonde-agent")
    assert agents["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": daemonset["metadata"]["namespace"]
    }
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert agents["podSelector"]["matchLabels"].items() <= labels.items()
    load = parse_agent(arguments(container(pod_spec(name, "DaemonSet", "sonde-agent"), "load"), VALUES))
    assert isinstance(load, LoadConfig)
    assert load.steer
    base, steers = rules("base", "ClusterRole", "sonde-agent"), rules(name, "ClusterRole", "sonde-agent")
    assert steers - base == {
        (group, resource, verb)
        for group, resource in (("", "services"), ("discovery.k8s.io", "endpointslices"))
        for verb in ("get", "list", "watch")
    }


def test_agents_are_found_by_the_label_that_controllers_look_for() -> None:
    label, value = AGENT_LABEL
    template = one("base", "DaemonSet", "sonde-agent")["spec"]["template"]["metadata"]["labels"]
    assert template[label] == value


def test_each_overlay_is_the_base_and_one_component() -> None:
    for overlay in OVERLAYS:
        text = (ROOT / overlay / "kustomization.yaml").read_text()
        assert f"../../components/{Path(overlay).name}" in text
        titles = {(each["kind"], each["metadata"]["name"]) for each in render(overlay)}
        kinds = {kind for kind, _ in titles}
        assert {"DaemonSet", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Secret"} <= kinds
