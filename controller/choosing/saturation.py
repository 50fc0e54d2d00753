"""Whether endpoints have room for one more request, and whom a pool without room turns away. Pure.

Two judges. The reference's, for `gie-v0.3` and `gie-v1`: an endpoint has room while its queue and its KV cache are
below thresholds; a pool without any such endpoint sheds what may be shed. And ours: the pressure of a pool is that of
its least pressed endpoint, 1 where the first ones are shed; the less important a request, the lower its ceiling.
What is not known of an endpoint counts as room: missing data never sheds.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from agent.forms import duration_s
from controller.model import EngineSignal, KernelSignal


class Load(NamedTuple):
    """One endpoint; None is unknown."""

    queue: int | None
    kv_cache_usage: float | None


@dataclass(frozen=True, slots=True)
class Limits:
    queue: int = 5
    kv_cache_usage: float = 0.8
    engine_age_s: float | None = None  # what an older page says is unknown; None: as long as the table believes it
    low_queue: int = 128  # release 0.3 lets adapters count only below it
    adapter_affinity: float = 0.999  # release 0.3: the chance to stay with endpoints that have the adapter


SONDE = Limits(kv_cache_usage=0.95)  # a cache that is nearly full serves well as long as nobody queues

# A queue so many times the limit, on every endpoint, turns away requests without a priority. Critical ones never go.
STANDARD_CEILING = 4.0
LEVEL_STEP = 0.25  # between the ceilings of two negative priorities
# Of the requests without a first byte the kernel cannot tell which are queued and which are computed.
PREFILLS = 8


class LimitError(Exception):
    """A threshold in the environment is none; the text names the variable and what it must be."""


def limits(policy: str, environ: Mapping[str, str]) -> Limits:
    """The thresholds of a policy, by the reference's own environment variables. Raises LimitError."""
    if policy == "gie-v0.3":
        return Limits(
            queue=_whole(environ, "QUEUE_THRESHOLD_CRITICAL", 5),
            kv_cache_usage=_share(environ, "KV_CACHE_THRESHOLD", 0.8),
            low_queue=_whole(environ, "QUEUING_THRESHOLD_LORA", 128),
            adapter_affinity=_share(environ, "LORA_AFFINITY_THRESHOLD", 0.999),
        )
    if policy == "gie-v1":
        return Limits(
            queue=_whole(environ, "SD_QUEUE_DEPTH_THRESHOLD", 5),
            kv_cache_usage=_share(environ, "SD_KV_CACHE_UTIL_THRESHOLD", 0.8),
            engine_age_s=_duration_s(environ, "SD_METRICS_STALENESS_THRESHOLD", 0.2),
        )
    return SONDE


def _whole(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip() or str(default)
    if not text.isascii() or not text.isdigit():
        raise LimitError(f"environment variable {name}: expected a whole number from 0, got {text!r}")
    return int(text)


def _share(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip() or str(default)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise LimitError(f"environment variable {name}: expected a number from 0 to 1, got {text!r}")
    return value


def _duration_s(environ: Mapping[str, str], name: str, default_s: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default_s
    try:
        return duration_s(text)
    except ArgumentTypeError:
        raise LimitError(f"environment variable {name}: expected a duration such as 200ms, got {text!r}") from None


def at_pace(known: Limits, page_interval_s: float) -> Limits:
    """The same where pages come too rarely for the age that is asked of them: two of them must fit in."""
    if known.engine_age_s is None:
        return known
    return replace(known, engine_age_s=max(known.engine_age_s, 2 * page_interval_s))


def has_room(load: Load, known: Limits) -> bool:
    """The reference's test of one endpoint."""
    full = load.queue is not None and load.queue > known.queue
    return not full and not (load.kv_cache_usage is not None and load.kv_cache_usage > known.kv_cache_usage)


def is_saturated(loads: Iterable[Load], known: Limits) -> bool:
    """A pool with nobody in it has other problems."""
    met = False
    for load in loads:
        if has_room(load, known):
            return False
        met = True
    return met


def pressure(loads: Iterable[Load], known: Limits) -> float:
    """That of the least pressed endpoint, as a ratio to the limits; 0 for an empty pool.

    Below 1 nobody is shed, so the first endpoint below it ends the search: most often the first of all.
    """
    least = float("inf")
    for load in loads:
        least = min(least, _pressure(load, known))
        if least < 1.0:
            break
    return least if least < float("inf") else 0.0


def _pressure(load: Load, known: Limits) -> float:
    queue = 0.0 if load.queue is None else load.queue / max(1, known.queue)
    # what exceeds the limit of a share is at most a few hundredths: it can shed the first, not the others
    kv = 0.0 if load.kv_cache_usage is None else min(1.0, load.kv_cache_usage / max(1e-9, known.kv_cache_usage))
    return max(queue, kv)


def ceiling(priority: int, levels: Sequence[int]) -> float:
    """The pressure from which a priority is shed; `levels` are the negative ones in use, lowest first."""
    if priority > 0:
        return float("inf")
    if priority == 0:
        return STANDARD_CEILING
    return min(STANDARD_CEILING - LEVEL_STEP, 1.0 + LEVEL_STEP * sum(level < priority for level in levels))


def queue_of(kernel: KernelSignal | None, engine: EngineSignal | None, unshown: int) -> int | None:
    """Requests queued at an endpoint, by the freshest signal. `unshown`: our own that the kernel has not counted yet.

    A page says how many an engine runs at most once some wait; what the kernel counts beyond these now is its queue
    now. A page without waiting ones says that there is room. Without a page, requests without a first byte beyond
    a batch of prefills are a queue.
    """
    if engine is not None and engine.waiting is not None:
        if kernel is None or engine.running is None or not engine.waiting:
            return engine.waiting
        return max(0, kernel.in_flight + unshown - engine.running)
    return None if kernel is None else max(0, kernel.waiting + unshown - PREFILLS)
