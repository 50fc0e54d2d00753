"""A request is looked up in what pool and engines say now."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from agent.cluster.objects import Model, cluster_of
from controller.catalog.resolving import SERVED_FOR_S, Resolver
from controller.model import ClusterChanged, EngineScraped, Request
from tests.controller.known import cluster, engine, pod, table

ASKED = Request("/v1/completions", "lora", None)


def test_a_change_of_objects_counts_for_the_next_request() -> None:
    held = table(pod("a"))
    resolver = Resolver(held, Random(1))
    assert resolver.resolve(ASKED, 0.0).priority == 0

    before = cluster(pod("a"))
    critical = Model("default", "m", "p", "lora", "Critical", (), "")
    held.apply(ClusterChanged(cluster_of([*before.pools.values(), *before.pods.values(), critical])), 0.1)
    assert resolver.resolve(ASKED, 0.1).priority == 1

    held.apply(ClusterChanged(cluster_of([])), 0.2)  # no pool: nothing is for it
    assert resolver.resolve(ASKED, 0.2).priority == 0


def test_engines_tell_what_is_an_adapter() -> None:
    held = table(pod("a"))
    resolver = Resolver(held, Random(1))
    assert resolver.resolve(ASKED, 0.0).adapter is None

    signal = replace(engine(0, 0), models=("base",))
    held.apply(EngineScraped("10.0.0.1:8000", signal), 0.0)
    assert resolver.resolve(ASKED, SERVED_FOR_S).adapter == "lora"
    assert resolver.resolve(replace(ASKED, model="base"), SERVED_FOR_S).adapter is None
