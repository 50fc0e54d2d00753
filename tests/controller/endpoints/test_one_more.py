"""One more reservation of an endpoint in good health is written without an evaluation, and comes to the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controller.endpoints import columns
from controller.endpoints.row import Row
from controller.endpoints.table import Table
from controller.model import EngineScraped
from controller.policies.parts import COUNT_LIMIT_S
from tests.controller.known import engine, frame, kernel, pod, table

SIGNALS = st.sampled_from(["kernel", "idle kernel", "stalled kernel", "busy engine", "page", "miss", "failed", "none"])
STEPS = st.lists(
    st.tuples(SIGNALS, st.floats(0.0, 3.0), st.floats(0.0, 5000.0), st.sampled_from(["keep", "end", "detach", "drop"])),
    min_size=1,
    max_size=12,
)


def hear(made: Table, what: str, now: float, turn: int) -> None:
    row = made.rows[0]
    signal = {
        "kernel": kernel(4, at=now, started=10 * turn, progress=turn, waiting=1),
        "idle kernel": kernel(0, at=now, started=10 * turn),
        "stalled kernel": kernel(4, at=now, started=10 * turn, progress_at_s=now - 9.0),
        "failed": kernel(2, at=now, started=10 * turn, failed=turn, progress=turn),
    }.get(what)
    if signal is not None:
        made.apply(frame({"a": signal}, at=now), now)
    elif what in ("busy engine", "page"):
        page = replace(engine(3 if what == "busy engine" else 0, 0, at=now), kv_cache_usage=0.99)
        made.apply(EngineScraped(row.endpoint.address, page), now)
    elif what == "miss":
        made.miss(row, made.reserve(row, now), now)


def seen(made: Table, row: Row) -> tuple[Any, ...]:
    state = (row.load, row.penalty, row.source, row.ejected, made.ranks(0.0)[row.index], made._measured_load)
    return (*state, made.fleet.matrix[: columns.LEARNED.start, row.index].tolist(), float(made.fleet.standing[0]))


@given(STEPS)
def test_a_reservation_that_is_only_counted_leaves_what_an_evaluation_would(steps: list[Any]) -> None:
    made = table(pod("a"), pod("b"))
    row, now, plain = made.rows[0], 1.0, 0
    for turn, (what, passes_s, tokens, end) in enumerate(steps, 1):
        now += passes_s
        hear(made, what, now, turn)
        made.refresh(now)
        before = row.load
        reservation = made.reserve(row, now, tokens, tokens / 2)
        counted = seen(made, row)
        plain += row.load == before + 1
        made._evaluate(row, now)
        evaluated = seen(made, row)
        assert counted[:6] == evaluated[:6]
        np.testing.assert_allclose(counted[6], evaluated[6], rtol=1e-9)
        assert row.queued_s <= row.due_s
        {"keep": lambda *_: None, "end": made.end, "detach": made.detach, "drop": made.drop}[end](row, reservation, now)


def test_an_endpoint_that_something_speaks_against_is_evaluated() -> None:
    """What changes with the number of its requests, or with time, is not guessed."""
    made = table(pod("a"))
    row = made.rows[0]
    made.apply(frame({"a": kernel(1, at=1.0)}, at=1.0), 1.0)
    assert row.take_one_more(1.0, 3.0)
    assert row.load == 2

    assert not row.take_one_more(1.0 + 2 * COUNT_LIMIT_S, 9.0)  # the count has grown old
    made.miss(row, made.reserve(row, 1.0), 1.0)
    assert not row.take_one_more(1.0, 3.0)  # it failed, and time makes that less
