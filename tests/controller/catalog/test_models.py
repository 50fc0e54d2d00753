"""Which model and which priority a request gets, by the objects of its pool."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from agent.cluster.objects import Model, ModelRewrite, Object, Objective, Pool, RewriteRule, Target, cluster_of
from controller.catalog.classes import CRITICAL, SHEDDABLE, STANDARD
from controller.catalog.models import (
    NOTHING_KNOWN,
    Catalogue,
    Served,
    UnknownModel,
    adapter_of,
    catalogue_of,
    draw,
    resolve,
)
from controller.model import Request, Resolved

GROUP = "inference.networking.x-k8s.io"
POOL = Pool("default", "p", GROUP, "v1alpha2", {"app": "llm"}, (8000,), "FailClose", "")


def model(name: str, created: str = "2026-01-01T00:00:00Z", **changes: Any) -> Model:
    values: dict[str, Any] = {"criticality": None, "targets": (), "model_name": "chat", "pool": "p"}
    return Model(namespace="default", name=name, created=created, **(values | changes))


def rewrite(name: str, *rules: RewriteRule, created: str = "2026-01-01T00:00:00Z", **changes: Any) -> ModelRewrite:
    values: dict[str, Any] = {"namespace": "default", "pool": "p"}
    return ModelRewrite(name=name, rules=rules, created=created, **(values | changes))


def exact(target: str, *models: str) -> RewriteRule:
    return RewriteRule(models, (Target(target, None),))


def catalogue(*objects: Object) -> Catalogue:
    return catalogue_of(cluster_of([POOL, *objects]), POOL)


def ask(model: str | None = "chat", **changes: Any) -> Request:
    return Request("/v1/completions", model, None, **changes)


def resolved(request: Request, known: Catalogue, served: Served = NOTHING_KNOWN) -> Resolved:
    return resolve(request, known, served, Random(1))


def target(known: Catalogue, **asked: Any) -> str | None:
    return resolved(ask(**asked), known).target


OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


@pytest.mark.parametrize(
    ("objects", "asked", "expected"),
    [
        pytest.param([], {}, ("chat", STANDARD), id="no objects: as asked"),
        pytest.param([model("m")], {}, ("chat", STANDARD), id="no targets: itself, no criticality: standard"),
        pytest.param([model("m", criticality="Critical")], {}, ("chat", CRITICAL), id="critical"),
        pytest.param([model("m", criticality="Sheddable")], {}, ("chat", SHEDDABLE), id="sheddable"),
        pytest.param([model("m", targets=(Target("chat-v2", 1),))], {}, ("chat-v2", STANDARD), id="one target"),
        pytest.param(
            [model("b", OLD, targets=(Target("old", 1),)), model("a", YOUNG, targets=(Target("young", 1),))],
            {},
            ("old", STANDARD),
            id="the oldest has the name",
        ),
        pytest.param(
            [model("b", targets=(Target("b", 1),)), model("a", targets=(Target("a", 1),))],
            {},
            ("a", STANDARD),
            id="equally old: by name",
        ),
        pytest.param(
            [model("a", OLD, targets=(Target("gone", 1),), terminating=True), model("b", YOUNG)],
            {},
            ("chat", STANDARD),
            id="one being deleted has lost the name",
        ),
        pytest.param([model("m", pool="other", criticality="Critical")], {}, ("chat", STANDARD), id="another pool's"),
        pytest.param(
            [model("m", pool_group="inference.networking.k8s.io", criticality="Critical")],
            {},
            ("chat", STANDARD),
            id="a pool of another group",
        ),
        pytest.param([model("m", pool_group=GROUP, criticality="Critical")], {}, ("chat", CRITICAL), id="our group"),
        pytest.param([Objective("default", "gold", "p", 7, OLD)], {"objective": "gold"}, ("chat", 7), id="objective"),
        pytest.param(
            [Objective("default", "gold", "p", -7, OLD), model("m", criticality="Critical")],
            {"objective": "gold"},
            ("chat", -7),
            id="the objective before the criticality",
        ),
        pytest.param(
            [Objective("default", "gold", "p", 7, OLD), model("m", criticality="Critical")],
            {"objective": "lead"},
            ("chat", CRITICAL),
            id="an objective that is not there says nothing",
        ),
        pytest.param([Objective("other", "gold", "p", 7, OLD)], {"objective": "gold"}, ("chat", 0), id="elsewhere"),
        pytest.param([rewrite("r", exact("b", "chat"))], {}, ("b", STANDARD), id="exact rewrite"),
        pytest.param([rewrite("r", exact("b", "x", "chat"))], {}, ("b", STANDARD), id="any of the matches"),
        pytest.param([rewrite("r", exact("b", "x"))], {}, ("chat", STANDARD), id="another model's rewrite"),
        pytest.param([rewrite("r", exact("b"))], {}, ("b", STANDARD), id="generic rewrite"),
        pytest.param([rewrite("r", exact("g"), exact("b", "chat"))], {}, ("b", STANDARD), id="exact before generic"),
        pytest.param(
            [rewrite("r", exact("g"), created=OLD), rewrite("s", exact("b", "chat"), created=YOUNG)],
            {},
            ("b", STANDARD),
            id="exact before an older generic",
        ),
        pytest.param(
            [rewrite("s", exact("s", "chat"), created=OLD), rewrite("r", exact("r", "chat"), created=YOUNG)],
            {},
            ("s", STANDARD),
            id="the oldest rewrite",
        ),
        pytest.param([rewrite("r", exact("1", "chat"), exact("2", "chat"))], {}, ("1", STANDARD), id="the first rule"),
        pytest.param([rewrite("r", RewriteRule(("chat",), ()))], {}, ("chat", STANDARD), id="a rule without targets"),
        pytest.param([], {"target": "t"}, ("t", STANDARD), id="the header names the target"),
        pytest.param([rewrite("r", exact("b"))], {"target": "t"}, ("t", STANDARD), id="the header before rewrites"),
        pytest.param(
            [model("m", targets=(Target("a", 1),))], {"target": "t"}, ("a", STANDARD), id="a model before the header"
        ),
        pytest.param([model("m")], {"model": None}, (None, STANDARD), id="no model to be read"),
        pytest.param(
            [model("m", model_name="x"), rewrite("r", exact("b", "chat"))],
            {},
            ("b", STANDARD),
            id="a rewrite makes a model known",
        ),
    ],
)
def test_a_request_gets_its_target_and_its_priority(
    objects: list[Object], asked: dict[str, Any], expected: tuple[str | None, int]
) -> None:
    found = resolved(ask(**asked), catalogue(*objects))

    assert (found.target, found.priority) == expected


def test_with_models_any_other_model_is_unknown() -> None:
    with pytest.raises(UnknownModel) as caught:
        resolved(ask("other"), catalogue(model("m")))

    assert caught.value.model == "other"


def test_only_a_name_that_changes_is_to_be_rewritten() -> None:
    assert resolved(ask(), catalogue()).rewrite is None
    assert resolved(ask(), catalogue(rewrite("r", exact("b")))).rewrite == "b"


def test_when_the_oldest_goes_the_next_oldest_has_the_name() -> None:
    old = model("a", OLD, targets=(Target("old", 1),))
    middle = model("c", "2026-01-15T00:00:00Z", targets=(Target("middle", 1),))
    young = model("b", YOUNG, targets=(Target("young", 1),))

    assert [target(catalogue(*left)) for left in ([young, middle, old], [young, middle], [young])] == [
        "old",
        "middle",
        "young",
    ]


def test_a_draw_follows_the_weights() -> None:
    rng = Random(7)
    drawn = Counter(draw([Target("a", 90), Target("b", 10)], rng) for _ in range(5000))

    # 5 standard deviations of a binomial: sqrt(5000 * 0.9 * 0.1) = 21
    assert abs(drawn["a"] - 4500) < 106


def test_targets_without_weights_are_drawn_alike_and_get_nothing_beside_weights() -> None:
    rng = Random(7)

    assert {draw([Target("a", None), Target("b", None)], rng) for _ in range(50)} == {"a", "b"}
    assert {draw([Target("a", None), Target("b", 1)], rng) for _ in range(50)} == {"b"}
    assert draw([], rng) is None


@pytest.mark.parametrize(
    ("name", "bases", "adapters", "expected"),
    [
        ("base", {"base"}, set(), None),
        ("lora", {"base"}, set(), "lora"),
        ("lora", set(), {"lora"}, "lora"),
        ("lora", set(), set(), None),
        ("base:lora", {"base"}, set(), "lora"),
        ("base:", {"base"}, set(), None),
        ("llama3:8b", {"llama3:8b"}, set(), None),
    ],
)
def test_a_target_is_an_adapter_if_the_engines_say_it_is_no_base_model(
    name: str, bases: set[str], adapters: set[str], expected: str | None
) -> None:
    assert adapter_of(name, Served(frozenset(bases), frozenset(adapters))) == expected
