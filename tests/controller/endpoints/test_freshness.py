"""How long a kernel's count is used: as long as somebody says that it is still so."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.endpoints.row import REPEATED_S
from controller.model import AgentGone, Source
from controller.policies.parts import COUNT_LIMIT_S
from tests.controller.known import frame, kernel, pod, table


def test_what_was_not_mentioned_is_unchanged_while_the_agent_lives() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(3), "b": kernel(0)}, full=True), 0.0)
    made.apply(frame({"b": kernel(1, at=0.9, waiting=1)}, at=0.9), 0.9)

    assert made.rows[0].fresh_kernel(0.9) is not None


def test_a_silent_agents_counts_are_not_used() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(3)}, full=True), 0.0)

    made.ranks(COUNT_LIMIT_S + 0.01)

    assert made.rows[0].source is Source.OWN


def test_a_node_that_speaks_again_speaks_for_all_its_endpoints() -> None:
    made = table(pod("a"), pod("b"), pod("c", node="node-2"))
    made.apply(frame({"a": kernel(3), "b": kernel(1)}, full=True, at=0.0), 0.0)
    made.refresh(2 * COUNT_LIMIT_S)
    assert [row.source for row in made.rows] == [Source.OWN] * 3

    made.apply(frame({"b": kernel(2, at=0.6)}, at=0.6), 0.6)

    assert [row.source for row in made.rows] == [Source.KERNEL, Source.KERNEL, Source.OWN]


SPOKEN = st.tuples(
    st.floats(0.001, 0.8),
    st.sampled_from(["node-1", "node-2", "nobody"]),
    st.booleans(),
    st.booleans(),
    st.sets(st.sampled_from("abc")),
)


@given(st.lists(SPOKEN, max_size=30))
def test_a_count_is_used_exactly_as_long_as_it_is_fresh(spoken: list[Any]) -> None:
    """Whoever speaks when, of whom, and whether it says that the rest is unchanged."""
    made = table(pod("a"), pod("b"), pod("c", node="node-2"))
    homes, now = {"a": "node-1", "b": "node-1", "c": "node-2"}, 10.0
    for passes_s, node, tells, full, pods in spoken:
        now += passes_s
        signals = {name: kernel(1, at=now - 0.01, waiting=1) for name in pods if homes[name] == node}
        if node != "nobody":
            made.apply(frame(signals, full=full, node=node, at=now - 0.01 if tells else None), now)
        made.refresh(now)
        for row in made.rows:
            assert (row.source is Source.KERNEL) == (row.fresh_kernel(now) is not None)


def test_a_reading_that_was_old_when_it_came_is_not_used_for_longer() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(3, at=9.9 - COUNT_LIMIT_S)}, full=True), 10.0)

    assert made.rows[0].source is Source.OWN


def test_a_broken_stream_ages_its_counts_out_fast() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(3)}, full=True), 0.0)
    made.apply(AgentGone("node-1"), 0.1)
    made.ranks(COUNT_LIMIT_S - 0.01)
    assert made.rows[0].source is Source.KERNEL

    made.ranks(COUNT_LIMIT_S + 0.01)

    assert made.rows[0].source is Source.OWN


def test_a_count_that_full_frames_no_longer_repeat_goes_with_the_next_word_of_its_node() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(1)}, full=True, at=0.0), 0.0)
    for now in (0.5, 1.0, REPEATED_S + 0.005):  # the last tells of a moment just before
        made.apply(frame({}, at=now - 0.01), now)
        made.refresh(now)
    assert made.rows[0].source is Source.KERNEL

    made.apply(frame({}, at=REPEATED_S + 0.01), REPEATED_S + 0.02)
    made.refresh(REPEATED_S + 0.02)
    assert made.rows[0].source is Source.OWN

    made.apply(frame({}, at=REPEATED_S + 0.05), REPEATED_S + 0.06)
    assert made.fleet.kernel_at_s[0] == 0.0  # and rules see it as old as it is
