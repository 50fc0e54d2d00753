"""Classes of requests: what a criticality and a priority mean, and the answers of a picker that does not pick. Pure.

A priority is a whole number, the higher the more important; a negative one may be shed. The three criticalities of
InferenceModel are priorities as well, so that everything behind this module knows numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Class(StrEnum):
    CRITICAL = "Critical"
    STANDARD = "Standard"
    SHEDDABLE = "Sheddable"


CRITICAL = 1
STANDARD = 0
SHEDDABLE = -1
_PRIORITIES = {Class.CRITICAL.value: CRITICAL, Class.STANDARD.value: STANDARD, Class.SHEDDABLE.value: SHEDDABLE}


def priority_of(criticality: str | None) -> int:
    """A model that names none is Standard."""
    return STANDARD if criticality is None else _PRIORITIES[criticality]


def class_of(priority: int) -> Class:
    if priority > STANDARD:
        return Class.CRITICAL
    return Class.STANDARD if priority == STANDARD else Class.SHEDDABLE


DROPPED_REASON = "x-llm-d-request-dropped-reason"
RETRY_AFTER = "retry-after"
RETRY_AFTER_S = 1

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that gets no endpoint."""

    status: int
    code: str
    text: str
    headers: Headers = ()
    declined: str = ""  # the word it is counted under, if the request was turned away for others' sake


NO_ENDPOINT = Refusal(
    503,
    "ServiceUnavailable",
    "failed to find endpoint candidates for serving the request",
    ((DROPPED_REASON, "rejected-no-endpoints"),),
)
# What the reference answers there: any failure to schedule was a 429 in its release 0.3, where it says no more; since
# 1.0 a request without a body goes to a pod by chance, and without pods that is a fault.
NO_ENDPOINT_03 = Refusal(429, "ResourceExhausted", NO_ENDPOINT.text, NO_ENDPOINT.headers)
NO_POD = Refusal(500, "Internal", "no pods available in datastore")
SHED = Refusal(
    429,
    "ResourceExhausted",
    "system saturated, sheddable request dropped",
    ((DROPPED_REASON, "rejected-saturated"), (RETRY_AFTER, str(RETRY_AFTER_S))),
    "saturated",
)
LATE = Refusal(
    429,
    "ResourceExhausted",
    "no endpoint could answer in time, request dropped",
    ((DROPPED_REASON, "rejected-saturated"), (RETRY_AFTER, str(RETRY_AFTER_S))),
    "late",
)


# For bodies. One that alone exceeds what may be held of all will never fit.
CROWDED = Refusal(
    503,
    "ServiceUnavailable",
    "the endpoint picker holds too many unfinished request bodies, this one had to go",
    ((DROPPED_REASON, "evicted-queue-pressure"), (RETRY_AFTER, str(RETRY_AFTER_S))),
)
TOO_LARGE = Refusal(413, "RequestEntityTooLarge", "request body is larger than all bodies together may be")


NAMED = 256  # characters of a name that are said again: clients make names up, of any length


def unknown_model(model: str) -> Refusal:
    named = model if len(model) <= NAMED else f"{model[:NAMED]}..."
    return Refusal(404, "NotFound", f"no InferenceModel of this pool is for model {named!r}")
