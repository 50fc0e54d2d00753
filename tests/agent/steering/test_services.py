"""Which addresses are steered to whom, as Kubernetes' objects say it, and what is wrong with them in one line."""

from __future__ import annotations

import pytest

from agent.cluster.containers import is_meshed
from agent.cluster.objects import Cluster, ObjectError, read_object
from agent.steering.clients import BY_LABEL, BY_MESH, left_alone, skips
from agent.steering.maps import Frontend
from agent.steering.services import Front, Target, find, still_ready, wanted_services
from tests.agent.steering.objects import VIP, behind, cluster, endpoint_slice, pod, pool, service

KEY = ("ns", "llm")
A, B = Target("10.0.0.1", 8000, "a"), Target("10.0.0.2", 8000, "b")


def fronts(objects: Cluster, complete: bool = True) -> tuple[Front, ...]:
    found = find(objects, {}, complete, {})
    assert found.faults == {}
    return found.fronts[KEY]


def fault(*documents: dict, **held: object) -> str:
    found = find(cluster(*documents), {}, True, {})
    assert "\n" not in found.faults[KEY]
    return found.faults[KEY]


def test_ready_pods_of_the_selector_answer_where_all_pods_are_known() -> None:
    objects = cluster(
        pool(), service(), pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3", ready=False),
        pod("d", "10.0.0.4", deletionTimestamp="2026-01-01T00:00:00Z"), pod("e", "10.0.0.5", labels={"app": "other"}),
    )  # fmt: skip
    (front,) = fronts(objects)
    assert front == Front(Frontend(VIP, 80), KEY, frozenset({8000}), (A, B))
    assert fronts(objects, complete=False)[0].ready is None  # a node's own pods are not all
    assert wanted_services(objects, {("x", "p"): "y"}) == {("ns", "direct"), ("x", "y")}


def test_slices_say_who_is_ready_and_a_pod_that_is_heard_of_sooner_counts() -> None:
    first = endpoint_slice([behind("10.0.0.1", "a"), behind("10.0.0.2", "b", None), behind("10.0.0.3", "c", False)])
    second = endpoint_slice([behind("10.0.0.4", "d")], "direct-y")
    objects = cluster(pool(), service(), first, second, pod("d", "10.0.0.4", ready=False))
    assert fronts(objects, complete=False)[0].ready == (A, B)


def test_a_dual_stack_service_has_a_front_for_each_family() -> None:
    six = endpoint_slice([behind("fd00::1", "a")], "direct-6", "IPv6")
    objects = cluster(pool(), service(addresses=(VIP, "fd00:96::a")), endpoint_slice([behind("10.0.0.1", "a")]), six)
    found = {front.frontend: front.ready for front in fronts(objects)}
    assert found == {Frontend(VIP, 80): (A,), Frontend("fd00:96::a", 80): (Target("fd00::1", 8000, "a"),)}


def test_a_port_by_name_is_looked_up_in_pods_or_slices() -> None:
    assert fronts(cluster(pool(), service(target="http"), pod("a", "10.0.0.1")))[0].ready == (A,)
    objects = cluster(pool(), service(target="http"), endpoint_slice([behind("10.0.0.1", "a")]))
    assert fronts(objects, complete=False)[0].ready == (A,)


def test_the_command_line_names_services_too_and_counts_more() -> None:
    objects = cluster(pool(service=""), service("mine"), pod("a", "10.0.0.1"))
    assert find(objects, {}, True, {}).fronts == {}
    assert find(objects, {KEY: "mine"}, True, {}).fronts[KEY][0].ready == (A,)
    both = cluster(pool(), service("mine", ("10.96.0.11",)), service(), pod("a", "10.0.0.1"))
    assert find(both, {KEY: "mine"}, True, {}).fronts[KEY][0].frontend == Frontend("10.96.0.11", 80)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (service(addresses=("None",)), "has no clusterIP"),
        (service(type="ExternalName"), "has no clusterIP"),
        (service(addresses=("10.0.0.1",)), "its address 10.0.0.1 is that of pod ns/a"),
        (service(target=9000), "no TCP port of it leads to a target port of the pool (8000)"),
        (service(target="grpc"), "no TCP port of it leads"),
        (service(sessionAffinity="ClientIP"), "its sessionAffinity says who may answer whom"),
        (service(internalTrafficPolicy="Local"), "its internalTrafficPolicy"),
        (service("else"), "there is no such Service"),
    ],
)
def test_a_service_that_cannot_be_steered_is_one_line(made: dict, said: str) -> None:
    assert said in fault(pool(), made, pod("a", "10.0.0.1"))


def test_an_address_that_is_a_remote_pods_is_known_by_the_slices() -> None:
    assert "is that of pod ns/z" in fault(
        pool(), service(addresses=("10.0.9.9",)), endpoint_slice([behind("10.0.9.9", "z")])
    )


def test_of_two_pools_with_one_address_who_holds_it_keeps_it() -> None:
    objects = cluster(pool(), pool("also", "alias"), service(), service("alias"), pod("a", "10.0.0.1"))
    found = find(objects, {}, True, {})
    assert set(found.fronts) == {("ns", "also")}
    assert "10.96.0.10 port 80 is steered for pool ns/also" in found.faults[KEY]
    found = find(objects, {}, True, {Frontend(VIP, 80): KEY})
    assert set(found.fronts) == {KEY}
    assert "is steered for pool ns/llm" in found.faults["ns", "also"]


def test_a_front_of_before_keeps_to_who_is_ready_now() -> None:
    front = Front(Frontend(VIP, 80), KEY, frozenset({8000}), (A, B))
    faulty = cluster(pool(), service(addresses=("None",)), pod("a", "10.0.0.1"), pod("b", "10.0.0.2", ready=False))
    assert still_ready(faulty, "direct", front, True).ready == (A,)
    assert still_ready(cluster(pool()), "direct", front, True).ready == (A, B)


@pytest.mark.parametrize(
    ("spec", "annotations", "meshed"),
    [
        ({"containers": [{"name": "app"}, {"name": "istio-proxy"}]}, {}, True),
        ({"initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}]}, {}, True),
        ({"containers": [{"name": "linkerd-proxy"}]}, {}, True),
        ({}, {"sidecar.istio.io/status": "{}"}, True),
        ({}, {"ambient.istio.io/redirection": "enabled"}, True),
        ({}, {"ambient.istio.io/redirection": "disabled"}, False),
        ({"containers": [{"name": "app"}, 7], "initContainers": None}, {"x": "y"}, False),
    ],
)
def test_sidecars_are_known_by_their_names_and_annotations(spec: dict, annotations: dict, meshed: bool) -> None:
    assert is_meshed(spec, annotations) is meshed


def test_clients_are_left_alone_by_label_and_by_sidecar() -> None:
    objects = cluster(
        pod("off", "10.0.0.1", labels={"sonde.dev/balance": "off"}),
        pod("on", "10.0.0.2", labels={"sonde.dev/balance": "on"}),
        pod("mesh", "10.0.0.3", annotations={"linkerd.io/proxy-version": "2"}),
    )
    why = left_alone(objects)
    assert why == {"uid-off": BY_LABEL, "uid-mesh": BY_MESH}
    cgroups = {"uid-off": frozenset({11, 12}), "uid-on": frozenset({21}), "uid-mesh": frozenset({31})}
    assert skips(why, cgroups) == {11: BY_LABEL, 12: BY_LABEL, 31: BY_MESH}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (service(addresses=("ten",)), "Service ns/direct: spec.clusterIP: expected an IP address, got 'ten'"),
        (service(ports=[{"port": 0}]), "spec.ports[0].port"),
        (service(target=70000), "expected a port's number or name, got 70000"),
        (endpoint_slice([{"addresses": []}]), "EndpointSlice ns/direct-x: endpoints[0].addresses"),
        (endpoint_slice([behind("x")]), "expected an IP address, got 'x'"),
    ],
)
def test_objects_that_are_wrong_name_the_field(document: dict, said: str) -> None:
    with pytest.raises(ObjectError) as error:
        read_object(document)
    assert said in str(error.value)
