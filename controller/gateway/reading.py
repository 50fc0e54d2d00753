"""What a gateway's messages say besides bodies: the headers that matter, the subset, the endpoint that served. Pure.

Envoy fills `raw_value` of a header, other gateways `value`; both are read. Refuses to know when a message may come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.gateway.answers import CONTROL_HEADERS, DESTINATION

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = f"{DESTINATION}-subset"
SERVED_NAMESPACE = "envoy.lb"
SERVED_KEY = f"{DESTINATION}-served"
# The conformance suite's way to steer a request; obeyed only behind --conformance-hooks.
SELECTION = "test-epp-endpoint-selection"

# What is read of the request's headers, by the names of the field.
READ_HEADERS = {
    ":path": "path",
    "content-type": "content type",
    SELECTION: "selection",
    "x-gateway-model-name": "model",  # from a filter before us that has read the body
    "x-gateway-model-name-rewrite": "target",
    "x-gateway-inference-objective": "objective",
    "x-gateway-inference-fairness-id": "flow",
}
# By the names llm-d gave some of them later; where a request has both, these count, empty ones too.
NEWER_HEADERS = {
    "x-llm-d-model-name-rewrite": "target",
    "x-llm-d-inference-objective": "objective",
    "x-llm-d-inference-fairness-id": "flow",
}


_MINDED = frozenset((*READ_HEADERS, *NEWER_HEADERS, *CONTROL_HEADERS, "transfer-encoding"))
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Head:
    """The request's headers as far as the picker minds them."""

    told: Mapping[str, str] = field(default_factory=dict)  # by the values of READ_HEADERS
    remove: frozenset[str] = frozenset()  # control headers that the client must not send
    chunked: bool = False  # framed by transfer-encoding, so that no content-length may be added

    @property
    def is_grpc(self) -> bool:
        return self.told.get("content type", "").lower().startswith("application/grpc")

    @property
    def path(self) -> str:
        return self.told.get("path", "")


def head(headers: Iterable[Any]) -> Head:
    """headers: the repeated HeaderValue of a HeaderMap; of several with one name the last counts."""
    chunked = False
    told: dict[str, str] = {}
    newer: dict[str, str] = {}
    remove: list[str] = []
    minded = _MINDED
    for header in [one for one in headers if one.key in minded or not one.key.islower()]:
        key = header.key.lower()
        if (name := READ_HEADERS.get(key)) is not None:
            told[name] = _text(header)
        elif (name := NEWER_HEADERS.get(key)) is not None:
            newer[name] = _text(header)
        elif key in CONTROL_HEADERS:
            remove.append(key)
        elif key == "transfer-encoding":
            chunked = True
    return Head(told | newer if newer else told, frozenset(remove) if remove else _NONE, chunked)


def _text(header: Any) -> str:
    raw = header.raw_value
    return raw.decode("utf-8", "replace") if raw else str(header.value)


def subset(metadata: Any) -> tuple[str, ...] | None:
    """The endpoints the gateway allows, from a metadata_context: a list of texts, or one text with commas.

    None: it has no such wish. An empty tuple: it allows none.
    """
    value = _field(metadata, SUBSET_NAMESPACE, SUBSET_KEY)
    if value is None:
        return None
    if value.WhichOneof("kind") == "list_value":
        return listed(text for entry in value.list_value.values for text in entry.string_value.split(","))
    return listed(value.string_value.split(","))


def served(metadata: Any) -> str | None:
    """The endpoint that answered, as the gateway tells after retries; None: it does not tell."""
    value = _field(metadata, SERVED_NAMESPACE, SERVED_KEY)
    return value.string_value.strip() or None if value is not None else None


def listed(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts if text.strip())


def _field(metadata: Any, namespace: str, key: str) -> Any | None:
    known = metadata.filter_metadata
    if not known or namespace not in known:
        return None
    fields = known[namespace].fields
    return fields.get(key, None)


def status(headers: Any) -> int | None:
    """Of a response; None: its headers do not say, or no status. Some gateways leave the colon out."""
    told = {header.key.lower(): header for header in headers}
    header = told.get(":status") or told.get("status")
    if header is None:
        return None
    text = (header.raw_value or header.value.encode()).decode("ascii", "replace")
    return int(text) if len(text) == 3 and text.isascii() and text.isdecimal() else None
