"""Writes what a row knows into its column of the fleet that policies see. Pure; time is an argument.

Only here the two vocabularies meet: a row's None becomes NaN, steps of a rank become a standing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.choosing.pick import EJECTED_STEP, LOST_STEP, STALLED_STEP, TERMINATING_STEP, UNREADY_STEP
from controller.endpoints.row import FOREVER, Row
from controller.policies.fleet import EJECTED, FIELDS, LOST, SCALARS, STALLED, TERMINATING, UNREADY, Fleet

NAN = float("nan")
LEARNED = slice(FIELDS.index("pace"), FIELDS.index("failures"))  # what no row knows
_RESERVED, _UNPAGED, _OWN_WAITING, _QUEUED_TOKENS, _OWN_IN_FLIGHT, _OWN_OPEN, _OWN_TOKENS = (
    FIELDS.index(name)
    for name in ("reserved", "unpaged", "own_waiting", "queued_tokens", "own_in_flight", "own_open", "own_tokens")
)
_STANDINGS = (
    (TERMINATING_STEP, TERMINATING),
    (UNREADY_STEP, UNREADY),
    (LOST_STEP, LOST),
    (STALLED_STEP, STALLED),
    (EJECTED_STEP, EJECTED),
)
_NO_KERNEL = (NAN,) * 8
_NO_ENGINE = (NAN,) * 5


def write(fleet: Fleet, row: Row, now: float) -> None:
    column = fleet.matrix[:, row.index]
    column[: LEARNED.start] = [*_kernel(row), *_own(row), *_engine(row, now)]
    ready_at_s = NAN if row.ready_at_s is None else row.ready_at_s
    column[LEARNED.stop :] = [row.failures.rate(now), standing(row.penalty), ready_at_s]
    fleet.touch(row.index)


def write_one_more(fleet: Fleet, row: Row) -> None:
    """The same where since the last time nothing happened but that one more request of ours was sent there."""
    ledger, at, cells = row.ledger, row.index, fleet.cells
    cells[_RESERVED, at] = ledger.unshown
    cells[_UNPAGED, at] += 1.0
    cells[_OWN_WAITING, at] = ledger.own_waiting
    cells[_QUEUED_TOKENS, at] = ledger.queued_tokens
    cells[_OWN_IN_FLIGHT, at] = ledger.own
    cells[_OWN_OPEN, at] = ledger.open
    cells[_OWN_TOKENS, at] = ledger.own_tokens
    fleet.touch(at)


def _kernel(row: Row) -> Sequence[float]:
    kernel, at_s = row.kernel, row.kernel_at_s()
    if kernel is None or at_s == -FOREVER:
        return _NO_KERNEL
    return (
        kernel.in_flight,
        kernel.waiting,
        at_s,
        _known(kernel.usual_gap_s),
        _known(kernel.low_gap_s),
        _known(kernel.usual_ttft_s),
        _known(kernel.srtt_s),
        kernel.started - kernel.waiting,
    )


def _own(row: Row) -> Sequence[float]:
    ledger = row.ledger
    unpaged = ledger.since(row.engine.true_at_s) if row.engine else ledger.own
    return (
        ledger.unshown,
        unpaged,
        ledger.own_waiting,
        ledger.queued_tokens,
        ledger.own,
        ledger.open,
        ledger.own_tokens,
    )


def _engine(row: Row, now: float) -> Sequence[float]:
    engine = row.fresh_engine(now)
    if engine is None:
        return _NO_ENGINE
    requests = engine.requests
    queued = engine.waiting or 0
    return (
        NAN if requests is None else requests - queued,
        NAN if requests is None else queued,
        _known(engine.kv_cache_usage),
        engine.true_at_s,
        NAN if engine.kv_tokens is None else engine.kv_tokens,
    )


def standing(penalty: float) -> float:
    """The steps of a rank, as policies have them."""
    found = 0.0
    for step, unit in _STANDINGS:
        if penalty >= step:
            penalty -= step
            found += unit
    return found


def _known(value: float | None) -> float:
    return NAN if value is None else value


def rebuilt(before: Fleet, rows: Sequence[Row], now: float) -> Fleet:
    """A fleet of these rows. What was learned of an endpoint stays with it."""
    fleet = Fleet([identity(row) for row in rows], now)
    fleet.tracked = True
    for name in SCALARS:
        setattr(fleet, name, getattr(before, name))
    fleet.now_s = now
    places = {name: at for at, name in enumerate(before.ids)}
    kept = [(at, places[name]) for at, name in enumerate(fleet.ids) if name in places]
    if kept:
        here, there = np.array(kept).T
        fleet.matrix[LEARNED, here] = before.matrix[LEARNED, there]
    return fleet


def identity(row: Row) -> str:
    """Another pod at the same address is another endpoint: nothing is in its caches."""
    return f"{row.endpoint.address}/{row.endpoint.uid or ''}"
