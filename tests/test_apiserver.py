"""The test API server, by the protocol alone: what the tests of the client lean on."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver import ApiServer, Fault, serving
from tests.kube import objective, pod, pool

Json = dict[str, Any]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with serving() as running:
        yield running


def get(server: ApiServer, path: str, **headers: str) -> tuple[int, Json]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def watch(server: ApiServer, path: str, count: int) -> list[Json]:
    """The first events of a watch."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return [json.loads(answer.readline()) for _ in range(count)]
    finally:
        connection.close()


def kinds(events: list[Json]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


def test_a_list_has_a_version_from_which_a_watch_goes_on(server: ApiServer) -> None:
    server.put(pod("a"))
    _, listed = get(server, "/api/v1/pods")
    server.put(pod("a", node="n2"))
    server.put(pod("b"))
    server.delete(pod("a"))
    version = listed["metadata"]["resourceVersion"]
    events = watch(server, f"/api/v1/pods?watch=1&resourceVersion={version}", 3)
    assert kinds(events) == [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))


def test_items_of_a_list_carry_no_kind_and_keep_uid_and_age(server: ApiServer) -> None:
    server.put(pod("a"))
    (first,) = get(server, "/api/v1/pods")[1]["items"]
    server.put(pod("a", node="n2"))
    (second,) = get(server, "/api/v1/pods")[1]["items"]
    assert "kind" not in first
    for name in ("uid", "creationTimestamp"):
        assert first["metadata"][name] == second["metadata"][name]


def test_pages_are_of_one_version_and_can_grow_too_old(server: ApiServer) -> None:
    for name in "abc":
        server.put(pod(name))
    _, first = get(server, "/api/v1/pods?limit=2")
    server.put(pod("d"))
    token = first["metadata"]["continue"]
    _, second = get(server, f"/api/v1/pods?limit=2&continue={token}")
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    server.store.compact()
    assert get(server, f"/api/v1/pods?limit=2&continue={token}")[0] == 410


def test_a_selector_makes_additions_and_deletions_of_changes(server: ApiServer) -> None:
    server.put(pod("a", node="n1"))
    server.put(pod("a", node="n2"))
    server.put(pod("a", node="n1", ip="10.9.9.9"))
    where = "fieldSelector=spec.nodeName%3Dn2"
    assert kinds(watch(server, f"/api/v1/pods?watch=1&resourceVersion=100&{where}", 2)) == [
        ("ADDED", "a"),
        ("DELETED", "a"),
    ]
    server.put(pod("b", app="other"))
    (found,) = get(server, "/api/v1/namespaces/default/pods?labelSelector=app%3Dother")[1]["items"]
    assert found["metadata"]["name"] == "b"
    assert get(server, "/api/v1/namespaces/elsewhere/pods")[1]["items"] == []


def test_custom_resources_live_in_their_groups(server: ApiServer) -> None:
    server.put(pool())
    server.put(objective("o", 3))
    path = "/apis/inference.networking.k8s.io/v1/namespaces/default/inferencepools"
    assert len(get(server, path)[1]["items"]) == 1
    server.absent.add("/apis/inference.networking.k8s.io/v1/inferencepools")
    assert get(server, path)[0] == 404


def test_bookmarks_go_to_those_who_asked(server: ApiServer) -> None:
    server.put(pod("a"))
    server.store.bookmark()
    server.put(pod("b"))
    asking = "/api/v1/pods?watch=1&resourceVersion=100"
    assert [kind for kind, _ in kinds(watch(server, asking, 2))] == ["ADDED", "ADDED"]
    told = kinds(watch(server, f"{asking}&allowWatchBookmarks=true", 3))
    assert [kind for kind, _ in told] == ["ADDED", "BOOKMARK", "ADDED"]


def test_a_version_before_the_log_is_gone(server: ApiServer) -> None:
    server.put(pod("a"))
    server.store.compact()
    (event,) = watch(server, "/api/v1/pods?watch=1&resourceVersion=100", 1)
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


def test_tokens_and_rights_are_asked_for() -> None:
    with serving(token="t") as server:
        assert get(server, "/api/v1/pods")[0] == 401
        assert get(server, "/api/v1/pods", Authorization="Bearer t")[0] == 200
        server.forbidden.add("/api/v1/pods")
        assert get(server, "/api/v1/pods", Authorization="Bearer t")[0] == 403


def test_a_fault_happens_to_the_next_request_it_fits(server: ApiServer) -> None:
    server.faults.append(Fault(fits="pods", status=503, headers={"Retry-After": "7"}))
    assert get(server, "/apis/inference.networking.k8s.io/v1/inferencepools")[0] == 200
    assert get(server, "/api/v1/pods")[0] == 503
    assert get(server, "/api/v1/pods")[0] == 200


def test_events_can_come_out_of_order(server: ApiServer) -> None:
    server.put(pod("a"))
    server.put(pod("b"))
    server.faults.append(Fault(fits="watch=1", swap=True))
    events = watch(server, "/api/v1/pods?watch=1&resourceVersion=100", 2)
    assert kinds(events) == [("ADDED", "b"), ("ADDED", "a")]


def test_a_watch_ends_by_its_time_limit(server: ApiServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", "/api/v1/pods?watch=1&resourceVersion=100&timeoutSeconds=1")
        assert connection.getresponse().read() == b""
    finally:
        connection.close()
