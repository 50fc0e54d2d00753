"""Another picker's configuration (EndpointPickerConfig of the inference extension and of llm-d), as far as it has a
meaning here. Pure: text in, what is taken over and a line for each thing that is not out.

Knows the plugins by type and their parameters by name; refuses to know what a threshold or a weight does.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from agent.cluster.fields import Fields, ObjectError, shown
from agent.engines.places import METRICS, Told, is_path
from agent.forms import duration_s
from controller.choosing.admission import Weights
from controller.choosing.saturation import Limits
from controller.config import MOST_ENDPOINTS

KIND = "EndpointPickerConfig"
# The place of each in the weights; older names beside those of now.
SCORERS = {
    "queue-scorer": 0, "kv-cache-utilization-scorer": 1, "kv-cache-scorer": 1, "prefix-cache-scorer": 2,
    "lora-affinity-scorer": 3,
}  # fmt: skip
_DETECTOR = ("queueDepthThreshold", "kvCacheUtilThreshold", "metricsStalenessThreshold")
# By type of plugin, the parameters that are thresholds here.
LIMITS = {
    "utilization-detector": _DETECTOR,
    "low-queue-filter": ("threshold",),
    "lora-affinity-filter": ("threshold",),
    "sheddable-capacity-filter": ("queueThreshold", "kvCacheThreshold"),
}
_SHARES = ("kvCacheUtilThreshold", "kvCacheThreshold")
_FIELD = {
    ("utilization-detector", "queueDepthThreshold"): "queue",
    ("utilization-detector", "kvCacheUtilThreshold"): "kv_cache_usage",
    ("utilization-detector", "metricsStalenessThreshold"): "engine_age_s",
    ("low-queue-filter", "threshold"): "low_queue",
    ("lora-affinity-filter", "threshold"): "adapter_affinity",
    ("sheddable-capacity-filter", "queueThreshold"): "queue",
    ("sheddable-capacity-filter", "kvCacheThreshold"): "kv_cache_usage",
}
PICKERS = ("max-score-picker", "random-picker", "weighted-random-picker")
HOOKS = ("header-based-testing-filter", "destination-endpoint-served-verifier")
PASSTHROUGH = "passthrough-parser"
SOURCE = "metrics-data-source"
_PLACE = ("scheme", "path", "port")
# What this picker does in any case.
NATURAL = frozenset(
    {
        *SCORERS, *LIMITS, *HOOKS, "max-score-picker", PASSTHROUGH, "openai-parser", "anthropic-parser",
        "vllmhttp-parser", "single-profile-handler", "single-profile", SOURCE, "core-metrics-extractor",
        "least-queue-filter", "least-kv-cache-filter", "approx-prefix-cache-producer", "token-producer",
    }
)  # fmt: skip
_ENDLESS = float("inf")
FIELDS = ("plugins", "schedulingProfiles", "saturationDetector", "parser", "requestHandler", "flowControl")


class PluginsError(Exception):
    """The text is no such configuration, or a value in it is wrong; says where and what is expected."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What holds here."""

    limits: Mapping[str, Any] = field(default_factory=dict)  # fields of saturation.Limits
    weights: Weights | None = None
    max_endpoints: int | None = None
    hooks: bool = False  # the conformance suite's
    reads: bool = True  # the model in bodies
    pages: Told | None = None  # where engines' pages are
    notes: tuple[str, ...] = ()  # of what has no effect, a line each

    def limited(self, known: Limits) -> Limits:
        return replace(known, **self.limits)


NOTHING = Taken()


def taken(text: str, policy: str) -> Taken:
    """Raises PluginsError."""
    try:
        return _Reading(_document(text), policy).taken()
    except ObjectError as error:
        raise PluginsError(str(error)) from None


def _document(text: str) -> Fields:
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PluginsError(f"no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        kind = document.get("kind") if isinstance(document, dict) else document
        raise PluginsError(f"kind: expected {KIND}, got {shown(kind)}")
    return Fields(document)


class _Reading:
    """One document on its way to what is taken from it."""

    def __init__(self, document: Fields, policy: str) -> None:
        self.document = document
        self.policy = policy
        self.plugins = {name: (kind, told) for name, kind, told in _plugins(document)}
        self.notes: list[str] = []

    def taken(self) -> Taken:
        limits = dict(self._limits())
        weights = self._weights()
        most = self._most()
        for name, (kind, told) in self.plugins.items():
            self._note(name, kind, told)
        for key in sorted(self.document.values.keys() - {*FIELDS, "apiVersion", "kind"}, key=str):
            self.notes.append(f"{key} has no effect")
        kinds = {kind for kind, _ in self.plugins.values()}
        hooks = bool(kinds & set(HOOKS))
        return Taken(limits, weights, most, hooks, self._reads(), self._pages(), tuple(self.notes))

    def _limits(self) -> Iterator[tuple[str, float]]:
        inline = self.document.fields("saturationDetector", optional=True)
        for key in _DETECTOR:
            if key in inline.values:
                yield _FIELD["utilization-detector", key], _limit(inline, key, key in _SHARES)
        for kind, told in self.plugins.values():
            for key in LIMITS.get(kind, ()):
                if key in told.values:
                    yield _FIELD[kind, key], _limit(told, key, key in _SHARES or kind == "lora-affinity-filter")
        flow = self.document.fields("flowControl", optional=True)
        inner = flow.fields("saturationDetector", optional=True)
        chosen = inline.values.get("pluginRef", inner.values.get("pluginRef"))
        if chosen is not None and self._kind(chosen, "saturationDetector.pluginRef") != "utilization-detector":
            self.notes.append(f"saturationDetector {chosen} has no effect: queues and KV caches are looked at")
        for key in sorted(flow.values.keys() - {"saturationDetector"}, key=str):
            self.notes.append(f"flowControl.{key} has no effect: with --policy sonde requests wait by --slo-ttft")

    def _weights(self) -> Weights | None:
        """Of the first profile; without profiles all scorers that are named count one."""
        profiles = self.document.items("schedulingProfiles")
        for number, profile in enumerate(profiles[1:], 1):
            self.notes.append(f"schedulingProfiles[{number}] ({profile.text('name', '')}) has no effect: one is used")
        weights = [0.0, 0.0, 0.0, 0.0]
        used = False
        for kind, weight in self._scored(profiles):
            if kind in SCORERS:
                weights[SCORERS[kind]] += weight
                used = True
        if used and self.policy != "gie-v1":
            self.notes.append(f"weights of scorers have no effect with --policy {self.policy}, only with gie-v1")
        return (weights[0], weights[1], weights[2], weights[3]) if used else None

    def _scored(self, profiles: Sequence[Fields]) -> Iterator[tuple[str, float]]:
        if not profiles:
            yield from ((kind, 1.0) for kind, _ in self.plugins.values())
        for plugin in profiles[0].items("plugins") if profiles else ():
            kind = self._kind(plugin.text("pluginRef"), f"{plugin.path}pluginRef")
            yield kind, _number(plugin, "weight", 1.0)

    def _most(self) -> int | None:
        found = [told for kind, told in self.plugins.values() if kind in PICKERS and "maxNumOfEndpoints" in told.values]
        return found[0].number("maxNumOfEndpoints", 1, MOST_ENDPOINTS) if found else None

    def _reads(self) -> bool:
        """Bodies pass unread where nothing but the parser that does not parse is asked for."""
        handler = self.document.fields("requestHandler", optional=True)
        told = [self.document.fields("parser", optional=True), *handler.items("parsers")]
        names = [section.text("pluginRef") for section in told if section.values]
        kinds = [self._kind(name, "pluginRef of a parser") for name in names]
        return not kinds or any(kind != PASSTHROUGH for kind in kinds)

    def _pages(self) -> Told | None:
        for kind, told in self.plugins.values():
            if kind == SOURCE and told.values.keys() & set(_PLACE):
                path = told.text("path", METRICS)
                if not is_path(path):
                    raise told.fault("path", f"expected a path such as {METRICS}, got {shown(path)}")
                tls = told.one_of("scheme", ("http", "https"), "http") == "https"
                return Told(told.number("port", 1, 65535, 0), path, tls)
        return None

    def _kind(self, name: object, where: str) -> str:
        if not isinstance(name, str) or name not in self.plugins:
            raise PluginsError(f"{where}: no plugin is called {shown(name)}")
        return self.plugins[name][0]

    def _note(self, name: str, kind: str, told: Fields) -> None:
        title = name if name == kind else f"{name} ({kind})"
        if kind in PICKERS and kind not in NATURAL:
            self.notes.append(f"plugin {title}: endpoints are chosen by --policy")
        elif kind not in NATURAL:
            self.notes.append(f"plugin {title} has no effect")
            return
        known = {*LIMITS.get(kind, ()), *(("maxNumOfEndpoints",) if kind in PICKERS else ())}
        if kind == SOURCE:
            known |= {*_PLACE, "insecureSkipVerify"}
        if unknown := sorted(told.values.keys() - known, key=str):
            self.notes.append(f"plugin {title}: {', '.join(map(str, unknown))} has no effect")


def _plugins(document: Fields) -> Iterator[tuple[str, str, Fields]]:
    seen = set()
    for plugin in document.items("plugins"):
        kind = plugin.text("type")
        name = plugin.text("name", "") or kind
        if name in seen:
            raise plugin.fault("name", f"two plugins are called {shown(name)}")
        seen.add(name)
        yield name, kind, plugin.fields("parameters", optional=True)


def _limit(fields: Fields, key: str, share: bool) -> float:
    if key != "metricsStalenessThreshold":
        return _number(fields, key, 0.0, 1.0 if share else _ENDLESS)
    try:
        return duration_s(fields.text(key))
    except ArgumentTypeError as error:
        raise fields.fault(key, str(error)) from None


def _number(fields: Fields, key: str, otherwise: float, most: float = _ENDLESS) -> float:
    value: Any = fields.values.get(key)
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or value == _ENDLESS:
        limit = "from 0" if most == _ENDLESS else f"from 0 to {most:g}"
        raise fields.fault(key, f"expected a number {limit}, got {shown(value)}")
    return value
