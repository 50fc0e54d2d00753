from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cluster.objects import (
    Model,
    ModelRewrite,
    ObjectError,
    Objective,
    Pod,
    Pool,
    Service,
    Target,
    cluster_of,
    read_object,
    serving_ports,
)


def pod(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "ns", "uid": "u-1", "labels": {"app": "llm"}},
        "spec": {"nodeName": "node-1"},
        "status": {"podIP": "10.0.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    document.update(changes)
    return document


def pool(**spec: Any) -> dict[str, Any]:
    whole = {"selector": {"matchLabels": {"app": "llm"}}, "targetPorts": [{"number": 8000}, {"number": 8001}], **spec}
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": whole,
    }


def test_a_ready_pod_is_read_with_all_its_fields() -> None:
    assert read_object(pod()) == Pod("ns", "a", "u-1", {"app": "llm"}, {}, "10.0.0.1", "node-1", True, False)


def test_a_pod_that_says_little_is_unready_and_in_the_default_namespace() -> None:
    found = read_object({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})

    assert found == Pod("default", "a", None, {}, {}, None, None, False, False)


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Running"},
        {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]},
        {"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}]},
        {"phase": "Failed", "conditions": [{"type": "Ready", "status": "True"}]},
        None,
    ],
    ids=["no conditions", "not ready", "another condition", "failed", "no status"],
)
def test_a_pod_is_ready_only_by_its_condition_and_phase(status: object) -> None:
    found = read_object(pod(status=status))

    assert isinstance(found, Pod)
    assert not found.ready


@pytest.mark.parametrize(("phase", "ip"), [("Failed", None), ("Succeeded", None), ("Pending", "10.0.0.1")])
def test_a_pod_that_has_ended_has_no_address_whatever_it_says(phase: str, ip: str | None) -> None:
    found = read_object(pod(status={"phase": phase, "podIP": "10.0.0.1"}))

    assert isinstance(found, Pod)
    assert found.ip == ip


def test_a_deleted_pod_is_terminating() -> None:
    found = read_object(pod(metadata={"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}))

    assert isinstance(found, Pod)
    assert found.terminating


def test_an_ipv6_address_has_one_spelling() -> None:
    found = read_object(pod(status={"podIP": "FD00:0:0::1"}))

    assert isinstance(found, Pod)
    assert found.ip == "fd00::1"


@pytest.mark.parametrize(
    ("status", "ip"),
    [
        ({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}, "10.0.0.1"),
        ({"podIPs": [{"ip": "FD00::1"}, {"ip": "10.0.0.1"}]}, "fd00::1"),
        ({"podIPs": []}, None),
    ],
)
def test_of_several_addresses_the_first_is_the_pods(status: object, ip: str | None) -> None:
    found = read_object(pod(status=status))

    assert isinstance(found, Pod)
    assert found.ip == ip


@pytest.mark.parametrize("ports", ["9" * 5000, "\u00b2", "0", "65536", "-1", "8000;8001"])
def test_active_ports_that_are_none_are_a_fault(ports: str) -> None:
    with pytest.raises(ObjectError, match="expected ports such as 8000,8001"):
        read_object(pod(metadata={"name": "a", "annotations": {"llm-d.ai/active-ports": ports}}))


@pytest.mark.parametrize(("target", "read"), [("\u00b2", "\u00b2"), ("9" * 5000, "9" * 5000), ("80", 80), (81, 81)])
def test_a_services_target_is_a_number_or_a_name(target: object, read: object) -> None:
    ports = [{"port": 80, "targetPort": target}]
    found = read_object({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}})

    assert isinstance(found, Service)
    assert found.ports[0].target == read


def test_a_v1_pool_is_read_with_all_its_ports() -> None:
    assert read_object(pool(endpointPickerRef={"name": "epp", "failureMode": "FailOpen"})) == Pool(
        "ns", "p", "inference.networking.k8s.io", "v1", {"app": "llm"}, (8000, 8001), "FailOpen", ""
    )


def test_a_v1alpha2_pool_has_its_own_fields() -> None:
    document = {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferencePool",
        "metadata": {"name": "p"},
        "spec": {"selector": {"app": "llm"}, "targetPortNumber": 8000, "extensionRef": {"name": "epp"}},
    }

    assert read_object(document) == Pool(
        "default", "p", "inference.networking.x-k8s.io", "v1alpha2", {"app": "llm"}, (8000,), "FailClose", ""
    )


def x_k8s(kind: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": kind,
        "metadata": {"name": "m", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"poolRef": {"name": "p"}, **spec},
    }


def test_a_model_is_read_with_its_weights() -> None:
    found = read_object(
        x_k8s(
            "InferenceModel",
            modelName="chat",
            criticality="Critical",
            targetModels=[{"name": "a", "weight": 90}, {"name": "b", "weight": 10}],
        )
    )

    assert found == Model(
        "default", "m", "p", "chat", "Critical", (Target("a", 90), Target("b", 10)), "2026-01-01T00:00:00Z"
    )


def test_a_pool_reference_says_which_pool_and_perhaps_of_which_group() -> None:
    found = read_object(
        x_k8s("InferenceObjective", poolRef={"name": "q", "group": "g", "kind": "InferencePool"}, priority=-3)
    )

    assert found == Objective("default", "m", "q", -3, "2026-01-01T00:00:00Z", "g")


@pytest.mark.parametrize("kind", ["InferenceModel", "InferenceObjective", "InferenceModelRewrite"])
def test_an_object_that_is_being_deleted_says_so(kind: str) -> None:
    document = x_k8s(kind, modelName="c")
    document["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    found = read_object(document)

    assert isinstance(found, Model | Objective | ModelRewrite)
    assert found.terminating


@pytest.mark.parametrize(
    ("written", "sorts_as"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01 00:00:00", "2026-01-01T00:00:00Z"),
        (None, ""),
    ],
)
def test_times_of_creation_sort_by_age_however_they_are_written(written: str | None, sorts_as: str) -> None:
    document = x_k8s("InferenceObjective")
    document["metadata"]["creationTimestamp"] = written
    found = read_object(document)

    assert isinstance(found, Objective)
    assert found.created == sorts_as


@pytest.mark.parametrize("key", ["llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports"])
def test_a_pod_may_serve_some_of_its_pools_ports_only(key: str) -> None:
    ranks = read_object(pool(targetPorts=[{"number": number} for number in (8000, 8001, 8002)]))
    some = read_object(pod(metadata={"name": "a", "annotations": {key: "8002, 8000,9000"}}))
    every = read_object(pod())

    assert isinstance(ranks, Pool)
    assert isinstance(some, Pod)
    assert isinstance(every, Pod)
    assert serving_ports(ranks, some) == (8000, 8002)
    assert serving_ports(ranks, every) == (8000, 8001, 8002)


def test_a_rewrite_may_weigh_some_of_its_targets_only() -> None:
    targets = [{"modelRewrite": "a", "weight": 1}, {"modelRewrite": "b"}]
    found = read_object(x_k8s("InferenceModelRewrite", rules=[{"targets": targets}]))

    assert isinstance(found, ModelRewrite)
    assert found.rules[0].targets == (Target("a", 1), Target("b", None))


def test_an_objective_without_priority_has_priority_zero() -> None:
    assert read_object(x_k8s("InferenceObjective")) == Objective("default", "m", "p", 0, "2026-01-01T00:00:00Z")


def test_a_rewrite_rule_without_matches_is_for_every_model() -> None:
    found = read_object(x_k8s("InferenceModelRewrite", rules=[{"targets": [{"modelRewrite": "b"}]}]))

    assert isinstance(found, ModelRewrite)
    assert [(rule.models, rule.targets) for rule in found.rules] == [((), (Target("b", None),))]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("x", "document: expected an object with apiVersion and kind, got 'x'"),
        ({}, "document: kind: missing, expected text"),
        ({"kind": "Pod", "apiVersion": "v1"}, "Pod without a name: metadata: missing, expected a mapping"),
        ({"kind": "ConfigMap", "metadata": {"name": "s"}}, "ConfigMap default/s: kind: unknown, expected one of Pod, "),
        (pod(apiVersion="v2"), "Pod ns/a: apiVersion: expected v1, got 'v2'"),
        (pod(metadata={"name": "a", "labels": {"v": 1}}), "Pod default/a: metadata.labels.v: expected text, got 1 ("),
        (pod(metadata={"name": "a", "labels": ["v"]}), "Pod default/a: metadata.labels: expected a mapping, got ['v']"),
        (pod(status={"podIP": "10.0.0"}), "Pod ns/a: status.podIP: expected an IP address, got '10.0.0'"),
        (pod(status={"conditions": {}}), "Pod ns/a: status.conditions: expected a list, got {}"),
        (pool(targetPorts=[]), "InferencePool ns/p: spec.targetPorts: missing"),
        (pool(targetPorts=[{"number": 0}]), "InferencePool ns/p: spec.targetPorts[0].number: expected a whole number"),
        (pool(targetPorts=[{"number": True}]), "targetPorts[0].number: expected a whole number 1..65535, got True"),
        (pool(targetPorts=[{"number": 1}] * 2), "spec.targetPorts: expected each port once, got 1, 1"),
        (pool(targetPorts=[{"number": n} for n in range(1, 10)]), "targetPorts: expected at most 8 entries, got 9"),
        (pool(selector={}), "InferencePool ns/p: spec.selector.matchLabels: missing"),
        (pool(endpointPickerRef={"failureMode": "Fail"}), "failureMode: expected FailClose or FailOpen, got 'Fail'"),
        (pool(selector={"matchLabels": {f"l{n}": "x" for n in range(65)}}), "matchLabels: expected at most 64 labels"),
        (pool(endpointPickerRef={"port": {"number": 0}}), "endpointPickerRef.port.number: expected a whole number"),
        (pool(appProtocol="h3"), "spec.appProtocol: expected http or kubernetes.io/h2c, got 'h3'"),
        (
            pod(metadata={"name": "a", "annotations": {"llm-d.ai/active-ports": "8000,x"}}),
            "Pod default/a: metadata.annotations.llm-d.ai/active-ports: expected ports such as 8000,8001, got '8000,x'",
        ),
        (x_k8s("InferenceObjective", poolRef={"name": "p", "kind": "Service"}), "poolRef.kind: expected InferencePool"),
        (x_k8s("InferenceObjective", priority=2**31), "InferenceObjective default/m: spec.priority: expected a whole"),
        (x_k8s("InferenceModel", modelName="c" * 257), "spec.modelName: expected at most 256 characters, got 257"),
        (
            {**x_k8s("InferenceModel", modelName="c"), "metadata": {"name": "m", "creationTimestamp": "soon"}},
            "metadata.creationTimestamp: expected a time such as 2026-01-31T12:00:00Z, got 'soon'",
        ),
        (
            x_k8s("InferenceModel", modelName="c", targetModels=[{"name": "a", "weight": 0}]),
            "spec.targetModels[0].weight: expected a whole number 1..1000000, got 0",
        ),
        (
            x_k8s("InferenceModel", modelName="c", targetModels=[{"name": "a", "weight": 1}, {"name": "b"}]),
            "InferenceModel default/m: spec.targetModels: expected a weight on every entry or on none",
        ),
    ],
)  # fmt: skip
def test_a_fault_names_object_field_and_value(document: object, text: str) -> None:
    with pytest.raises(ObjectError) as caught:
        read_object(document)

    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
parts = st.sampled_from(["metadata", "spec", "status", "labels", "selector", "targetPorts", "name", "number", "rules"])
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(parts, scalars, max_size=3)
sections = scalars | st.lists(values, max_size=2) | st.dictionaries(parts, values, max_size=3)


@given(
    st.sampled_from(["Pod", "InferencePool", "InferenceModel", "InferenceModelRewrite"]),
    st.sampled_from(["v1", "inference.networking.k8s.io/v1", "inference.networking.x-k8s.io/v1alpha2"]),
    st.dictionaries(parts, sections, max_size=4),
)
def test_any_document_is_an_object_or_an_object_error(kind: str, api: str, rest: dict[str, Any]) -> None:
    with contextlib.suppress(ObjectError):
        read_object({"kind": kind, "apiVersion": api, **rest})


def test_the_pods_of_a_pool_match_every_label_in_its_namespace() -> None:
    wanted = {"app": "llm", "tier": "a"}
    named = {
        "b": ("ns", {"app": "llm", "tier": "a"}),
        "a": ("ns", {"app": "llm", "tier": "a", "more": "x"}),
        "other-tier": ("ns", {"app": "llm", "tier": "b"}),
        "elsewhere": ("other", {"app": "llm", "tier": "a"}),
    }
    pods = [Pod(space, name, None, labels, {}, None, None, True, False) for name, (space, labels) in named.items()]
    pool = Pool("ns", "p", "g", "v1", wanted, (1,), "FailClose", "")

    assert [found.name for found in cluster_of([*pods, pool]).pods_of(pool)] == ["a", "b"]


def test_agents_are_pods_with_the_agents_label_and_an_address() -> None:
    label = {"app.kubernetes.io/name": "sonde-agent"}
    pods = [
        Pod("s", "with", None, label, {}, "10.0.0.1", "n1", True, False),
        Pod("s", "without", None, label, {}, None, "n2", True, False),
        Pod("s", "going", None, label, {}, "10.0.0.3", "n3", True, True),
        Pod("s", "other", None, {}, {}, "10.0.0.4", "n4", True, False),
    ]

    assert [agent.name for agent in cluster_of(list(pods)).agents()] == ["with"]
