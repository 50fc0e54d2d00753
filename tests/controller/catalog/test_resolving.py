"""A request is looked up in what pool and engines say now."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from agent.cluster.objects import Model, Target, cluster_of
from controller.catalog.models import NAME_MOST
from controller.catalog.resolving import KEPT, SERVED_FOR_S, Resolver
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


def test_the_same_question_has_the_same_answer_and_another_has_its_own() -> None:
    resolver = Resolver(table(pod("a")), Random(1))
    first = resolver.resolve(ASKED, 0.0)

    assert resolver.resolve(replace(ASKED, path="/v1/chat/completions"), 0.1) is first
    assert resolver.resolve(replace(ASKED, target="other"), 0.1).target == "other"
    assert resolver.resolve(replace(ASKED, objective="batch"), 0.1).objective == "batch"
    assert resolver.resolve(replace(ASKED, model=None), 0.1).model is None


def test_chance_is_asked_anew_for_each_request() -> None:
    held = table(pod("a"))
    before = cluster(pod("a"))
    halves = (Target("one", 1), Target("two", 1))
    split = Model("default", "m", "p", "lora", "Standard", halves, "")
    held.apply(ClusterChanged(cluster_of([*before.pools.values(), *before.pods.values(), split])), 0.0)
    resolver = Resolver(held, Random(1))

    assert {resolver.resolve(ASKED, 0.0).target for _ in range(50)} == {"one", "two"}


def test_names_that_clients_make_up_are_not_kept_for_long() -> None:
    resolver = Resolver(table(pod("a")), Random(1))
    for at in range(2 * KEPT):
        assert resolver.resolve(replace(ASKED, model=f"m{at}"), 0.0).model == f"m{at}"
    assert len(resolver._kept) == KEPT

    resolver.resolve(replace(ASKED, model="m" * (NAME_MOST + 1)), SERVED_FOR_S)
    assert not resolver._kept


def test_a_name_that_no_object_could_have_is_no_adapter() -> None:
    held = table(pod("a"))
    held.apply(EngineScraped("10.0.0.1:8000", replace(engine(0, 0), models=("base",))), 0.0)
    resolver = Resolver(held, Random(1))

    assert resolver.resolve(replace(ASKED, model="x" * NAME_MOST), 0.0).adapter is not None
    assert resolver.resolve(replace(ASKED, model="x" * (NAME_MOST + 1)), 0.0).adapter is None
