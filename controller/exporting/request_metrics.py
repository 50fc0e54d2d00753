"""The metrics of requests and decisions: names, meanings, and samples of what counts.py counted. Pure.

`inference_objective_*` are the field's names since its v1, `inference_model_*` the same numbers under the names of its
v0.3, summed over priorities. What only a reader of answers could know (tokens, first tokens by model) is not here:
the agents' `sonde_pod_*` tell it by pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from agent.exporting.exposition import (
    Distribution,
    Family,
    counter,
    cumulative,
    gauge,
    histogram,
    written,
    written_histogram,
)
from controller.exporting.counts import (
    DECISION_BOUNDS_S,
    DURATION_BOUNDS_S,
    MODEL_LIMIT,
    SIZE_BOUNDS_BYTES,
    Requests,
    Spread,
    Tally,
)

_V1 = ("model_name", "target_model_name", "priority")
_V03 = _V1[:2]
_MODELS = f"Labels: the {MODEL_LIMIT} most requested models have series of their own, the rest is model_name=other."
_REQUESTS = f"Requests that asked this controller for an endpoint. {_MODELS}"
_ERRORS = (
    "Requests that failed, by status: answered by the picker itself (400 bad request, 429 declined, 503 no "
    "endpoint), or by the endpoint where the gateway shows answers to the picker."
)
_DURATION = (
    "Time from a request's arrival at the picker to the end of its answer. Only where the gateway keeps the stream "
    "open so long (body mode BUFFERED, or response phases on); sonde_pod_request_duration_seconds knows all."
)
_SIZE = "Size of request bodies."

OBJECTIVE_REQUESTS = counter("inference_objective_request_total", _REQUESTS, *_V1)
OBJECTIVE_ERRORS = counter("inference_objective_request_error_total", _ERRORS, *_V1, "error_code")
OBJECTIVE_DURATION = histogram("inference_objective_request_duration_seconds", _DURATION, DURATION_BOUNDS_S, *_V1)
OBJECTIVE_SIZES = histogram("inference_objective_request_sizes", f"{_SIZE} Unit: bytes.", SIZE_BOUNDS_BYTES, *_V1)
OBJECTIVE_RUNNING = gauge(
    "inference_objective_running_requests",
    "Requests that have an endpoint and whose answer has not ended, by model. Only where the gateway keeps the "
    "stream open so long; inference_pool_average_running_requests and sonde_pod_requests_in_flight know all.",
    "model_name",
)
MODEL_REQUESTS = counter(
    "inference_model_request_total", f"As inference_objective_request_total; the name of v0.3. {_MODELS}", *_V03
)
MODEL_ERRORS = counter(
    "inference_model_request_error_total",
    "As inference_objective_request_error_total; the name of v0.3.",
    *_V03,
    "error_code",
)
MODEL_DURATION = histogram(
    "inference_model_request_duration_seconds",
    "As inference_objective_request_duration_seconds; the name of v0.3.",
    DURATION_BOUNDS_S,
    *_V03,
)
MODEL_SIZES = histogram(
    "inference_model_request_sizes",
    "As inference_objective_request_sizes; the name of v0.3. Unit: bytes.",
    SIZE_BOUNDS_BYTES,
    *_V03,
)
MODEL_RUNNING = gauge(
    "inference_model_running_requests", "As inference_objective_running_requests; the name of v0.3.", "model_name"
)
DECISION = histogram(
    "inference_extension_scheduler_e2e_duration_seconds",
    "Time it took to choose an endpoint for a request that had arrived: what the picker adds to a request.",
    DECISION_BOUNDS_S,
)
DECLINED = counter(
    "sonde_controller_declined_total",
    "Requests turned away to protect the others, by reason, by the InferenceObjective they named (empty: none) and "
    "its priority.",
    "reason",
    "objective",
    "priority",
)
REWRITES = counter(
    "inference_extension_model_rewrite_decisions_total",
    "Requests whose model an InferenceModelRewrite decided, by the object, the model asked for and the one it gave.",
    "model_rewrite_name",
    "model_name",
    "target_model",
)
FAULTS = counter(
    "sonde_controller_faults_total",
    "Requests that met a fault of the controller itself and were answered by the pool's failureMode. The log tells.",
)
INFO = gauge(
    "inference_extension_info", "Constant 1; the labels say which build of the picker runs.", "commit", "build_ref"
)

FAMILIES: tuple[Family, ...] = (
    OBJECTIVE_REQUESTS, OBJECTIVE_ERRORS, OBJECTIVE_DURATION, OBJECTIVE_SIZES, OBJECTIVE_RUNNING, MODEL_REQUESTS,
    MODEL_ERRORS, MODEL_DURATION, MODEL_SIZES, MODEL_RUNNING, DECISION, DECLINED, REWRITES, FAULTS, INFO,
)  # fmt: skip

_Tallies = Mapping[tuple[str, ...], Tally]


def request_metrics(requests: Requests, commit: str, build: str) -> Iterator[str]:
    v1: _Tallies = {tuple(series): tally for series, tally in requests.tallies.items()}
    v03 = _summed(requests.tallies.items())
    yield written(OBJECTIVE_REQUESTS, _requests(v1))
    yield written(OBJECTIVE_ERRORS, _errors(v1))
    yield written_histogram(OBJECTIVE_DURATION, _durations(v1))
    yield written_histogram(OBJECTIVE_SIZES, _sizes(v1))
    yield written(OBJECTIVE_RUNNING, _running(v1))
    yield written(MODEL_REQUESTS, _requests(v03))
    yield written(MODEL_ERRORS, _errors(v03))
    yield written_histogram(MODEL_DURATION, _durations(v03))
    yield written_histogram(MODEL_SIZES, _sizes(v03))
    yield written(MODEL_RUNNING, _running(v1))
    yield written_histogram(DECISION, [((), distribution(requests.decisions_s))])
    yield written(DECLINED, requests.declined.items())
    yield written(REWRITES, requests.rewritten.items())
    yield written(FAULTS, [((), requests.faults)])
    yield written(INFO, [((commit, build), 1)])


def distribution(spread: Spread) -> Distribution:
    return Distribution(cumulative(spread.counts), spread.sum)


def _requests(tallies: _Tallies) -> Iterator[tuple[Sequence[str], float]]:
    return ((labels, tally.requests) for labels, tally in tallies.items())


def _errors(tallies: _Tallies) -> Iterator[tuple[Sequence[str], float]]:
    return (((*labels, status), count) for labels, tally in tallies.items() for status, count in tally.errors.items())


def _durations(tallies: _Tallies) -> Iterator[tuple[Sequence[str], Distribution]]:
    """Without those of which no duration is known: an empty histogram would say that nothing took any time."""
    spreads = ((labels, distribution(tally.durations_s)) for labels, tally in tallies.items())
    return ((labels, spread) for labels, spread in spreads if spread.counts[-1])


def _sizes(tallies: _Tallies) -> Iterator[tuple[Sequence[str], Distribution]]:
    spreads = ((labels, distribution(tally.sizes_bytes)) for labels, tally in tallies.items())
    return ((labels, spread) for labels, spread in spreads if spread.counts[-1])


def _running(tallies: _Tallies) -> Iterator[tuple[Sequence[str], float]]:
    by_model: dict[str, tuple[int, bool]] = {}
    for (model, *_), tally in tallies.items():
        running, unfollowed = by_model.get(model, (0, False))
        by_model[model] = running + tally.running, unfollowed or tally.unfollowed
    return (((model,), running) for model, (running, unfollowed) in by_model.items() if not unfollowed)


def _summed(tallies: Iterable[tuple[Sequence[str], Tally]]) -> _Tallies:
    sums: dict[tuple[str, ...], Tally] = {}
    for labels, tally in tallies:
        held = sums.setdefault(tuple(labels[:2]), Tally())
        held.requests += tally.requests
        held.errors.update(tally.errors)
        for spread, more in ((held.durations_s, tally.durations_s), (held.sizes_bytes, tally.sizes_bytes)):
            spread.counts = [count + added for count, added in zip(spread.counts, more.counts, strict=True)]
            spread.sum += more.sum
    return sums
