"""Which model serves a request, and how important it is, as the pool's objects say. Pure: chance is an argument.

Rules. Of several objects for one name the oldest counts; when it goes, the next oldest does. A model that an
InferenceModel names is served by one of its targets, by weight, or by itself. Any other model may be rewritten: by an
exact rule before one for every model, by the older InferenceModelRewrite before the younger, by the first rule in its
list. A pool with InferenceModels serves no model beyond these. A gateway may name the target itself in a header, which
counts for more than rewrites. The priority is that of the objective that a header names, else that of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from agent.cluster.objects import Cluster, Model, ModelRewrite, Objective, Pool, Target
from controller.catalog.classes import STANDARD, priority_of
from controller.model import Request, Resolved

NAME_MOST = 256  # characters of an InferenceModel's name; what is longer is nobody's adapter, and is not remembered


class UnknownModel(Exception):
    """The pool has InferenceModels, and none of them is for this model."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What one name is rewritten to, and the object that says so."""

    by: str
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the objects of one pool say of models and priorities; one of a name."""

    models: Mapping[str, Model] = field(default_factory=dict)
    objectives: Mapping[str, Objective] = field(default_factory=dict)
    exact: Mapping[str, Rewrite] = field(default_factory=dict)
    generic: Rewrite | None = None
    sheddable: tuple[int, ...] = ()  # the negative priorities in use, lowest first
    draws: bool = False  # some name has several targets, so that chance decides

    def rewrite(self, model: str) -> Rewrite | None:
        return self.exact.get(model, self.generic)


@dataclass(frozen=True, slots=True)
class Served:
    """What the pool's engines say they serve."""

    bases: frozenset[str] = frozenset()
    adapters: frozenset[str] = frozenset()  # loaded in one of them


NOTHING_KNOWN = Served()

OfPool = TypeVar("OfPool", Model, Objective, ModelRewrite)


def catalogue_of(cluster: Cluster, pool: Pool) -> Catalogue:
    models: dict[str, Model] = {}
    for model in _of(cluster.models.values(), pool):
        models.setdefault(model.model_name, model)
    exact: dict[str, Rewrite] = {}
    generic: Rewrite | None = None
    for rewrite in _of(cluster.rewrites.values(), pool):
        for rule in rewrite.rules:
            made = Rewrite(rewrite.name, rule.targets)
            for model_name in rule.models:
                exact.setdefault(model_name, made)
            if not rule.models:
                generic = generic or made
    objectives = {objective.name: objective for objective in _of(cluster.objectives.values(), pool)}
    targets = [model.targets for model in models.values()] + [one.targets for one in exact.values()]
    draws = any(len(of_one) > 1 for of_one in (*targets, generic.targets if generic else ()))
    return Catalogue(models, objectives, exact, generic, _sheddable(models.values(), objectives.values()), draws)


def _sheddable(models: Iterable[Model], objectives: Iterable[Objective]) -> tuple[int, ...]:
    priorities = {priority_of(model.criticality) for model in models} | {one.priority for one in objectives}
    return tuple(sorted(priority for priority in priorities if priority < STANDARD))


def _of(objects: Iterable[OfPool], pool: Pool) -> list[OfPool]:
    """Those for the pool that stay, oldest first. Equally old ones by name, so that all replicas agree."""
    found = [
        one
        for one in objects
        if (one.namespace, one.pool) == (pool.namespace, pool.name)
        and one.pool_group in ("", pool.group)
        and not one.terminating
    ]
    return sorted(found, key=lambda one: (one.created, one.name))


def resolve(request: Request, catalogue: Catalogue, served: Served, rng: Random) -> Resolved:
    """Raises UnknownModel."""
    model = request.model
    found = catalogue.models.get(model or "")
    target, by = (None, "") if model is None else _target(request, model, found, catalogue, rng)
    return Resolved(
        model=model,
        target=target,
        adapter=None if target is None else adapter_of(target, served),
        priority=_priority(catalogue.objectives.get(request.objective or ""), found),
        objective=request.objective or "",
        rewritten_by=by,
    )


def _priority(objective: Objective | None, found: Model | None) -> int:
    if objective:
        return objective.priority
    return priority_of(found.criticality) if found else STANDARD


def _target(request: Request, model: str, found: Model | None, catalogue: Catalogue, rng: Random) -> tuple[str, str]:
    """The target, and the InferenceModelRewrite that chose it."""
    if found:
        return draw(found.targets, rng) or model, ""
    rewrite = catalogue.rewrite(model)
    if catalogue.models and not rewrite:
        raise UnknownModel(model)
    if request.target or not rewrite:
        return request.target or model, ""
    return draw(rewrite.targets, rng) or model, rewrite.by


def draw(targets: Sequence[Target], rng: Random) -> str | None:
    """One of the targets by weight: all are equal where none has one, and those without one get nothing otherwise."""
    if len(targets) < 2:
        return targets[0].model if targets else None
    weights = [target.weight or 0 for target in targets]
    if not any(weights):
        return rng.choice(targets).model
    return rng.choices(targets, weights)[0].model


def adapter_of(target: str, served: Served) -> str | None:
    """The LoRA adapter that a target is, as far as the engines tell; None for a base model or where nothing is known.

    vLLM names adapters like models; SGLang also takes them as `base:adapter`.
    """
    if target in served.bases or len(target) > NAME_MOST:
        return None
    base, colon, adapter = target.partition(":")
    if colon and base in served.bases:
        return adapter or None
    return target if served.bases or target in served.adapters else None
