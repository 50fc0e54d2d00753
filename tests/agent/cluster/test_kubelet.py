"""Pods from kubelet's own list: who is there, and what happens when it does not answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cluster import access, api
from agent.cluster.kubelet import Polling
from agent.cluster.watching import Pace
from tests.apiserver import ApiServer, Fault, serving
from tests.conftest import run
from tests.kube import kubeconfig, pod, pool, until


@pytest.fixture
def kubelet() -> Iterator[ApiServer]:
    with serving(token="t") as running:
        yield running


def lists(kubelet: ApiServer, *pods: dict[str, Any]) -> None:
    """What /pods answers from now on."""
    kubelet.faults[:] = [
        Fault(fits="/pods", rubbish=json.dumps({"kind": "PodList", "items": pods}).encode(), once=False)
    ]


@contextmanager
def polling(kubelet: ApiServer, folder: Path) -> Iterator[tuple[list[set[str]], Polling]]:
    told: list[set[str]] = []
    door = access.find(kubeconfig(folder, kubelet.url, "t"))
    one = Polling(door, lambda changes, whole: told.append({name for _, name in changes}), interval_s=0.01)
    one.start()
    try:
        yield told, one
    finally:
        one.stop()
        one.join(5)


def test_each_answer_says_who_is_there(kubelet: ApiServer, tmp_path: Path) -> None:
    lists(kubelet, pod("a"), pod("b"))
    with polling(kubelet, tmp_path) as (told, one):
        until(lambda: told)
        lists(kubelet, pod("b"))
        until(lambda: told[-1] == {"b"})
        count = one.health.lists
        until(lambda: one.health.lists > count + 2)
        assert told == [{"a", "b"}, {"b"}]  # the same again is no news


def test_a_kubelet_that_does_not_answer_leaves_the_last_pods(
    kubelet: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lists(kubelet, pod("a"))
    with polling(kubelet, tmp_path) as (told, one):
        until(lambda: told)
        kubelet.faults[:] = [Fault(fits="/pods", status=500, once=False)]
        until(lambda: one.health.problem)
        kubelet.faults[:] = [Fault(fits="/pods", rubbish=b'{"items": 7}', once=False)]
        until(lambda: "no list" in one.health.problem)
        lists(kubelet, pod("a"), pod("c"))
        until(lambda: told[-1] == {"a", "c"})
    assert len(told) == 2
    assert sum("with the last known pods" in record.getMessage() for record in caplog.records) == 1


def test_credentials_that_are_gone_for_a_moment_are_read_when_they_are_back(
    kubelet: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lists(kubelet, pod("a"))
    with polling(kubelet, tmp_path) as (told, _):
        until(lambda: told)
        (tmp_path / "kubeconfig").unlink()
        kubelet.faults[:] = [Fault(fits="/pods", status=401, once=False)]
        asked = len(kubelet.requests)
        until(lambda: len(kubelet.requests) > asked + 5)
        kubeconfig(tmp_path, kubelet.url, "t")
        lists(kubelet, pod("b"))
        until(lambda: told[-1] == {"b"})
    assert sum("no access to an API server" in record.getMessage() for record in caplog.records) == 1


def test_an_agent_takes_pods_from_kubelet_and_pools_from_the_api_server(kubelet: ApiServer, tmp_path: Path) -> None:
    async def body() -> None:
        lists(kubelet, pod("a"))
        with serving() as server:
            server.put(pool())
            (tmp_path / "k").mkdir()
            doors = [
                access.find(kubeconfig(tmp_path, server.url)), access.find(kubeconfig(tmp_path / "k", kubelet.url, "t"))
            ]  # fmt: skip
            async with aclosing(api.watch_node(doors[0], "n1", pace=Pace(), kubelet=doors[1])) as clusters:
                cluster = await anext(clusters)
                assert {name for _, name in cluster.pods} == {"a"}
                assert len(cluster.pools) == 1
            assert not any("/pods" in path for path in server.requests)

    run(body(), 40, debug=False)
