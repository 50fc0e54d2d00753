"""What an inference engine's metrics page says that a pick needs; knows no network and no clock.

A vLLM page is 50 to 80 KB, of which five lines matter: looking for those lines costs some 0.1 ms, parsing
the page several. What is missing, not a number or out of range is None: unknown, never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.engines.known import ENGINES, Engine, Figure
from agent.engines.samples import Family, Page, Sample, label, without


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    engine: str | None  # None: the page has none of the families of known.py
    running: int | None  # requests being generated, summed over the engine's ranks
    waiting: int | None  # requests queued in the engine, summed over the engine's ranks
    kv_cache_usage: float | None  # 0..1, of the fullest rank
    models: tuple[str, ...] = ()  # base models, by the names they are asked for
    running_adapters: tuple[str, ...] = ()  # LoRA adapters
    waiting_adapters: tuple[str, ...] = ()
    max_adapters: int | None = None  # in one batch; None: it does not say
    kv_blocks: int | None = None  # summed over the engine's ranks
    kv_block_tokens: int | None = None


NOTHING = EngineMetrics(engine=None, running=None, waiting=None, kv_cache_usage=None)

_COUNT_LIMIT = float(1 << 32)  # counts travel as uint32
_LONGEST_NAME, _MOST_NAMES = 256, 1000  # as long as the API lets a model's be; adapters are some tens


def read_page(text: bytes, engine: str | None = None) -> EngineMetrics:
    """What one page says of its engine; `engine` is the one to look for first, where somebody says which it is."""
    page = Page(text)
    named = [one for one in ENGINES if one.name == engine]
    for one in (*named, *ENGINES):
        running = [_count(page, one, family) for family in one.running]
        waiting = [_count(page, one, family) for family in one.waiting]
        usage = _usage(page, one)
        if usage or any(found for found in running + waiting):
            return _metrics(page, one, running, waiting, usage)
    return NOTHING


def _metrics(
    page: Page, engine: Engine, running: list[list[Sample]], waiting: list[list[Sample]], usage: list[float | None]
) -> EngineMetrics:
    running_adapters, waiting_adapters, max_adapters = _adapters(page, engine)
    return EngineMetrics(
        engine=engine.name,
        running=_total(running),
        waiting=_total(waiting),
        kv_cache_usage=_fullest(usage, engine.percent),
        models=_models(running + waiting),
        running_adapters=running_adapters,
        waiting_adapters=waiting_adapters,
        max_adapters=max_adapters,
        kv_blocks=_whole(_figures(page, engine, engine.kv_blocks), sum),
        kv_block_tokens=_whole(_figures(page, engine, engine.kv_block_tokens), max),
    )


def _count(page: Page, engine: Engine, family: Family) -> list[Sample]:
    """One sample for each group of requests: copies that other ranks hold of the same ones are left out."""
    found = page.samples(family)
    if len(found) < 2:
        return found
    once: dict[bytes, Sample] = {}
    for sample in found:
        if any(label(sample, part) for part in engine.parts):
            continue
        key = without(sample.labels, engine.copies)
        held = once.get(key)
        if held is None or (sample.value or 0.0) > (held.value or 0.0):
            once[key] = sample
    return list(once.values())


def _total(families: list[list[Sample]]) -> int | None:
    """One rank that is not known makes the sum unknown; a family that is not there does not."""
    values = [sample.value for found in families for sample in found]
    total = 0.0
    for value in values:
        if value is None or not 0 <= value < _COUNT_LIMIT:
            return None
        total += value
    return int(total) if values and total < _COUNT_LIMIT else None


def _usage(page: Page, engine: Engine) -> list[float | None]:
    for family in engine.kv_cache_usage:
        if found := page.samples(family):
            return [sample.value for sample in found]
    if engine.kv_used is None:
        return []
    used, blocks = page.samples(engine.kv_used), _figures(page, engine, engine.kv_blocks)
    # an engine that has no block yet would divide by zero
    return [one.value / of if one.value is not None and of else None for one, of in zip(used, blocks, strict=False)]


def _fullest(values: list[float | None], percent: bool) -> float | None:
    known = [_share(value, percent) for value in values if value is not None]
    inside = [share for share in known if 0 <= share <= 1]
    return max(inside) if values and len(inside) == len(values) else None


def _share(value: float, percent: bool) -> float:
    return value / 100 if percent and value > 1 else value


def _models(families: list[list[Sample]]) -> tuple[str, ...]:
    names = {label(sample, "model_name") or label(sample, "model") for found in families for sample in found}
    return _told(names)


def _figures(page: Page, engine: Engine, figures: Sequence[Figure]) -> list[float | None]:
    """The values of the first figure that is there, one for each rank."""
    for figure in figures:
        if found := _count(page, engine, figure.family):
            return [_figure(sample, figure) for sample in found]
    return []


def _figure(sample: Sample, figure: Figure) -> float | None:
    if figure.label is None:
        return sample.value
    return _digits(label(sample, figure.label))


def _digits(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() else None


def _whole(values: list[float | None], join: Callable[[list[float]], float]) -> int | None:
    known = [value for value in values if value is not None and 0 < value < _COUNT_LIMIT]
    whole = join(known) if values and len(known) == len(values) else _COUNT_LIMIT
    return int(whole) if whole < _COUNT_LIMIT else None


def _adapters(page: Page, engine: Engine) -> tuple[tuple[str, ...], tuple[str, ...], int | None]:
    """Every combination of adapters that ever was has a sample; the one with the largest value, a time, is now."""
    found = page.samples(engine.adapters.family) if engine.adapters else []
    known = [sample for sample in found if sample.value is not None]
    if engine.adapters is None or not known:
        return (), (), _whole(_figures(page, engine, engine.max_adapters), max)
    now = max(known, key=lambda sample: sample.value or 0.0)
    return (
        _listed(label(now, engine.adapters.running)),
        _listed(label(now, engine.adapters.waiting)),
        _whole([_digits(label(now, engine.adapters.most))], max),
    )


def _listed(text: str | None) -> tuple[str, ...]:
    """Engines list in no order; sorted, the same adapters are the same value."""
    return _told({name.strip() for name in (text or "").split(",")})


def _told(names: set[str | None]) -> tuple[str, ...]:
    """Pages may say anything, and one frame carries the names of all engines of a node."""
    return tuple(sorted(name for name in names if name and len(name) <= _LONGEST_NAME)[:_MOST_NAMES])
