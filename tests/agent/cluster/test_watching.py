"""One collection followed through everything that a server may do to its client."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from agent.cluster import access
from agent.cluster.mirror import Key
from agent.cluster.objects import Object
from agent.cluster.watching import Collection, Pace, Watching
from tests.apiserver import ApiServer, Fault, serving
from tests.kube import kubeconfig, pod, until

PODS = Collection("v1", "Pod", "pods")
PACE = Pace(read_s=0.5, list_read_s=1.0, watch_s=60, first_s=0.01, most_s=0.05, steady_s=0.3, absent_s=0.2, page=2)


class Seen:
    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.told = 0
        self._lock = threading.Lock()

    def take(self, changes: dict[Key, Object | None], whole: bool) -> None:
        with self._lock:
            objects = {} if whole else dict(self.objects)
            for key, value in changes.items():
                if value is None:
                    objects.pop(key, None)
                else:
                    objects[key] = value
            self.objects = objects
            self.told += 1

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.objects}


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with serving() as running:
        yield running


@contextmanager
def watching(
    server: ApiServer, folder: Path, collection: Collection = PODS, pace: Pace = PACE
) -> Iterator[tuple[Seen, Watching]]:
    seen = Seen()
    door = access.find(kubeconfig(folder, server.url, server.token))
    one = Watching(door, collection, seen.take, pace, Random(1))
    one.start()
    try:
        yield seen, one
    finally:
        one.stop()
        one.join(5)


def test_a_list_in_pages_then_changes_as_they_come(server: ApiServer, tmp_path: Path) -> None:
    for number in range(5):
        server.put(pod(f"p{number}"))
    with watching(server, tmp_path) as (seen, one):
        until(lambda: len(seen.names) == 5)
        server.put(pod("new"))
        until(lambda: "new" in seen.names)
        server.delete(pod("p0"))
        until(lambda: "p0" not in seen.names)
        assert (one.health.lists, one.health.problem) == (1, "")
    assert sum("continue=" in request for request in server.requests) == 2


def test_a_first_list_may_come_from_the_cache_a_later_one_may_not(server: ApiServer, tmp_path: Path) -> None:
    server.put(pod("a"))
    with watching(server, tmp_path, Collection("v1", "Pod", "pods", cached=True)) as (_, one):
        until(lambda: one.health.watches)
        server.store.compact()
        server.faults.append(Fault(fits="watch=1", status=410))
        server.faults.append(Fault(fits="watch=1", end=True))
        until(lambda: one.health.lists == 2)
    lists = [request for request in server.requests if "watch" not in request]
    assert "resourceVersion=0" in lists[0]
    assert "resourceVersion" not in lists[1]


def test_a_selector_decides_who_is_there(server: ApiServer, tmp_path: Path) -> None:
    server.put(pod("here", node="n1"))
    server.put(pod("there", node="n2"))
    with watching(server, tmp_path, Collection("v1", "Pod", "pods", "default", fields="spec.nodeName=n1")) as (seen, _):
        until(lambda: seen.names == {"here"})
        server.put(pod("there", node="n1"))
        until(lambda: seen.names == {"here", "there"})
        server.put(pod("here", node="n2"))
        until(lambda: seen.names == {"there"})


@pytest.mark.parametrize(
    "fault",
    [
        Fault(fits="watch=1", status=500),
        Fault(fits="watch=1", status=429, headers={"Retry-After": "0"}),
        Fault(fits="watch=1", status=410),
        Fault(fits="watch=1", end=True),
        Fault(fits="watch=1", cut=True),
        Fault(fits="watch=1", silent=True),
        Fault(fits="watch=1", hang=True),
        Fault(fits="watch=1", rubbish=b"no json\n"),
        Fault(fits="watch=1", rubbish=b"[]\n"),
        Fault(fits="watch=1", rubbish=b'{"type": "ERROR", "object": {"code": 500, "message": "etcd"}}\n'),
        Fault(fits="watch=1", swap=True),
        Fault(fits="limit=", status=500),
        Fault(fits="limit=", hang=True),
        Fault(fits="limit=", rubbish=b"{"),
        Fault(fits="limit=", rubbish=b'{"items": 5}'),
        Fault(fits="limit=", slow_s=0.002),
        Fault(fits="continue=", status=410),
    ],
    ids=lambda fault: f"{fault.fits}{ {k: v for k, v in vars(fault).items() if v and k not in ('fits', 'once')} }",
)
def test_it_is_right_again_after_any_fault(server: ApiServer, tmp_path: Path, fault: Fault) -> None:
    for name in ("a", "b", "c"):
        server.put(pod(name))
    server.faults.append(fault)
    with watching(server, tmp_path) as (seen, _):
        until(lambda: seen.names == {"a", "b", "c"})
        server.put(pod("d"))
        server.put(pod("e"))
        server.delete(pod("a"))
        until(lambda: seen.names == {"b", "c", "d", "e"})
        assert not server.faults


def test_what_was_known_stays_while_the_server_is_away(
    server: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.put(pod("a"))
    with watching(server, tmp_path) as (seen, one):
        until(lambda: one.health.watches)
        server.stop()
        until(lambda: one.health.problem)
        assert seen.names == {"a"}
        server.delete(pod("a"))
        with serving(port=server.port, store=server.store) as again:
            again.put(pod("b"))
            until(lambda: seen.names == {"b"})
            lines = [record.getMessage() for record in caplog.records if "pods.v1" in record.getMessage()]
    assert sum("with the last known state" in line for line in lines) == 1
    assert sum("served again" in line for line in lines) == 1


def test_a_version_that_is_forgotten_leads_to_a_new_list(server: ApiServer, tmp_path: Path) -> None:
    server.put(pod("a"))
    with watching(server, tmp_path) as (seen, one):
        until(lambda: one.health.watches)
        server.faults.append(Fault(fits="watch=1", end=True))
        server.put(pod("b"))
        until(lambda: seen.names == {"a", "b"})
        server.store.delete(pod("a"))
        server.store.compact()
        until(lambda: seen.names == {"b"})


def test_bookmarks_keep_the_version_fresh(server: ApiServer, tmp_path: Path) -> None:
    server.put(pod("a"))
    with watching(server, tmp_path) as (seen, one):
        until(lambda: one.health.watches)
        server.store.bookmark()
        until(lambda: one.health.events)
        server.store.compact()
        server.store.oldest = server.store.version - 1
        until(lambda: one.health.watches > 1)
        server.put(pod("b"))
        until(lambda: seen.names == {"a", "b"})
        assert one.health.lists == 1


def test_a_kind_that_is_not_there_is_empty_until_it_is_installed(
    server: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.absent.add("/api/v1/pods")
    with watching(server, tmp_path) as (seen, one):
        until(lambda: seen.told)
        until(lambda: len(server.requests) > 3)
        assert (one.health.absent, seen.names) == (True, set())
        server.absent.clear()
        server.put(pod("a"))
        until(lambda: seen.names == {"a"})
        assert not one.health.absent
    assert sum("its CRD is not installed" in record.getMessage() for record in caplog.records) == 1


def test_a_kind_that_is_removed_is_empty_only_after_a_while(server: ApiServer, tmp_path: Path) -> None:
    server.put(pod("a"))
    with watching(server, tmp_path) as (seen, one):
        until(lambda: seen.names == {"a"})
        server.absent.add("/api/v1/pods")
        server.store.compact()
        server.faults.append(Fault(fits="watch=1", end=True))
        until(lambda: one.health.problem)
        assert seen.names == {"a"}
        until(lambda: seen.names == set())


def test_what_is_needed_is_not_empty_because_it_is_forbidden(
    server: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.forbidden.add("/api/v1/pods")
    with watching(server, tmp_path, Collection("v1", "Pod", "pods", needed=True)) as (seen, _):
        until(lambda: len(server.requests) > 3)
        assert seen.told == 0
        server.forbidden.clear()
        until(lambda: seen.told)
    assert sum("by RBAC" in record.getMessage() for record in caplog.records) == 1


def test_a_token_that_changed_is_read_again(tmp_path: Path) -> None:
    with serving(token="old") as server:
        server.put(pod("a"))
        with watching(server, tmp_path) as (seen, one):
            until(lambda: one.health.watches)
            server.token = "new"
            server.faults.append(Fault(fits="watch=1", end=True))
            server.store.compact()
            until(lambda: "401" in one.health.problem)
            kubeconfig(tmp_path, server.url, "new")
            server.put(pod("b"))
            until(lambda: seen.names == {"a", "b"})


def test_credentials_that_stay_away_are_said_once(
    server: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(pod("a"))
    with watching(server, tmp_path) as (seen, one):
        until(lambda: one.health.watches)
        config = (tmp_path / "kubeconfig").read_text()
        (tmp_path / "kubeconfig").unlink()
        server.faults += [Fault(fits="watch=1", end=True), Fault(fits="/pods", status=401, once=False)]
        server.store.compact()
        server.put(pod("b"))
        asked = len(server.requests)
        until(lambda: len(server.requests) > asked + 5)
        (tmp_path / "kubeconfig").write_text(config)
        server.faults.clear()
        until(lambda: seen.names == {"a", "b"})
    assert sum("no access to an API server" in record.getMessage() for record in caplog.records) == 1


def test_a_server_that_closes_each_watch_is_not_asked_without_pause(server: ApiServer, tmp_path: Path) -> None:
    server.faults.append(Fault(fits="watch=1", end=True, once=False))
    pace = Pace(first_s=0.2, most_s=30, steady_s=5)
    with watching(server, tmp_path, pace=pace) as (_, one):
        until(lambda: one.health.watches >= 3)
        assert one._failures >= 2
        assert one._delay_s() >= 0.1


def test_a_server_that_asks_for_no_pause_or_an_endless_one_is_asked_again_at_our_own_pace(
    server: ApiServer, tmp_path: Path
) -> None:
    refused = [Fault(fits="limit=", status=429, headers={"Retry-After": "0"}) for _ in range(6)]
    server.faults += [*refused, Fault(fits="limit=", status=503, headers={"Retry-After": "99999"})]
    server.put(pod("a"))
    pace = Pace(first_s=0.05, most_s=0.4, steady_s=5)
    began_s = time.monotonic()
    with watching(server, tmp_path, pace=pace) as (seen, _):
        until(lambda: seen.names == {"a"})
    assert time.monotonic() - began_s >= 0.5 * (0.05 + 0.1 + 0.2 + 4 * 0.4)


def test_ten_thousand_pods_are_listed_a_page_at_a_time(server: ApiServer, tmp_path: Path) -> None:
    for number in range(10_000):
        server.store.put(pod(f"p{number}", ip=f"10.0.{number // 250}.{number % 250 + 1}"))
    pace = Pace(list_read_s=20)
    with watching(server, tmp_path, pace=pace) as (seen, _):
        until(lambda: len(seen.names) == 10_000, limit_s=60)
        server.put(pod("one-more"))
        until(lambda: "one-more" in seen.names)
    assert sum("limit=500" in request for request in server.requests) == 20


def test_stopping_ends_a_watch_that_waits(server: ApiServer, tmp_path: Path) -> None:
    with watching(server, tmp_path, pace=Pace()) as (_, one):
        until(lambda: one.health.watches)
        one.stop()
        one.join(10)
        assert not one._thread.is_alive()
