"""What is believed of one endpoint, and for how long."""

from __future__ import annotations

import pytest

from controller.endpoints.health import State
from controller.endpoints.row import CONTRADICTION_S, UNSEEN, WARM_CHUNKS
from controller.endpoints.table import Table
from controller.model import ClusterChanged, EngineScraped, Source
from controller.policies.parts import COUNT_LIMIT_S, SIGNAL_LIMIT_S
from controller.policies.speed import WARM_ANSWERS
from tests.controller.known import cluster, engine, frame, kernel, pod, table


def test_a_frame_without_news_keeps_a_count_fresh() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(3)}, full=True, at=0.0), 0.0)
    for step in range(1, 11):
        made.apply(frame({}, at=step * 0.1), step * 0.1)

    made.ranks(1.0)
    assert made.rows[0].source is Source.KERNEL
    assert made.fleet.kernel_at_s[0] == 1.0


def test_what_full_frames_no_longer_repeat_is_not_kept_fresh() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(3), "b": kernel(0)}, full=True, at=0.0), 0.0)
    made.apply(frame({"b": kernel(0, at=5.0)}, at=5.0), 5.0)

    made.ranks(5.0)
    assert [row.source for row in made.rows] == [Source.OWN, Source.KERNEL]


def stalled() -> Table:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(1), "b": kernel(0)}, full=True, at=0.0), 0.0)
    for step in range(1, 5):
        made.apply(frame({}, at=step * 0.1), step * 0.1)
        made.ranks(step * 0.1)
    assert made.rows[0].vigil.state is State.STALLED
    return made


def test_a_moment_without_news_does_not_forgive_a_stall_and_a_longer_one_does() -> None:
    made = stalled()
    made.ranks(0.4 + COUNT_LIMIT_S + 0.1)
    assert made.rows[0].vigil.state is State.STALLED

    made.ranks(0.4 + SIGNAL_LIMIT_S + 0.1)
    assert made.rows[0].vigil.state is State.FINE


def test_an_engine_that_says_busy_while_the_kernel_sees_it_idle_is_not_believed_for_long() -> None:
    made = table(pod("a"))
    for step in range(1, 80):
        now = step * 0.1
        made.apply(frame({"a": kernel(0, at=now)}, full=True, at=now), now)
        made.apply(EngineScraped("10.0.0.1:8000", engine(4, 0, at=now)), now)
        believed = made.rows[0].fresh_engine(now) is not None
        assert believed == (now < 0.1 + CONTRADICTION_S)

    made.apply(frame({"a": kernel(2, at=8.0)}, full=True, at=8.0), 8.0)
    assert made.rows[0].fresh_engine(8.0) is not None


def test_a_kernel_that_shows_none_of_our_requests_does_not_see_that_endpoint() -> None:
    made = table(pod("a"))
    row = made.rows[0]
    for step in range(60):
        now = step * 0.1
        made.apply(frame({"a": kernel(0, at=now, started=0)}, full=True, at=now), now)
        if step < UNSEEN:
            made.reserve(row, now)
        made.ranks(now)
    assert row.source is Source.OWN
    assert not row.ejected

    made.apply(frame({"a": kernel(1, at=6.0, started=1)}, full=True, at=6.0), 6.0)
    assert row.source is Source.KERNEL


def test_requests_that_never_come_where_others_came_are_failures_and_half_a_pool_stays() -> None:
    made = table(pod("a"), pod("b"), pod("c"))
    for step in range(40):
        now = step * 0.1
        made.apply(frame({name: kernel(0, at=now, started=9) for name in "abc"}, full=True, at=now), now)
        for row in made.rows:
            if step < 3:
                made.reserve(row, now)
        made.ranks(now)

    assert [row.failures.rate(4.0) > 0.3 for row in made.rows] == [True, True, True]
    assert sum(row.ejected for row in made.rows) == 1


@pytest.mark.parametrize(("failed", "completed", "ejected"), [(3, 3, True), (3, 4, False), (0, 9, False)])
def test_answers_of_5xx_eject_unless_one_succeeds(failed: int, completed: int, ejected: bool) -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(0, started=1), "b": kernel(0)}, full=True), 0.0)
    made.apply(frame({"a": kernel(0, at=0.1, started=9, completed=completed, failed=failed)}), 0.1)

    assert made.rows[0].ejected == ejected
    assert made.ranks(0.1)[0] == (5e8 if ejected else 0)


def test_a_pod_that_joins_is_cold_until_it_has_answered() -> None:
    made = table(pod("a"))
    assert made.rows[0].ready_at_s is None
    made.apply(ClusterChanged(cluster(pod("a"), pod("b", ready=False))), 1.0)
    made.apply(ClusterChanged(cluster(pod("a"), pod("b"))), 2.0)
    assert [row.ready_at_s for row in made.rows] == [None, 2.0]
    assert made.fleet.ready_at_s[1] == 2.0

    made.apply(frame({"b": kernel(1, at=3.0, progress=5)}, full=True, at=3.0), 3.0)
    made.apply(frame({"b": kernel(1, at=3.1, progress=5 + WARM_CHUNKS)}, at=3.1), 3.1)
    assert made.rows[1].ready_at_s is None


def test_so_many_whole_answers_warm_a_pod_too() -> None:
    made = table(pod("a"))
    made.apply(ClusterChanged(cluster(pod("a"), pod("b"))), 1.0)
    for answers in (0, 1, int(WARM_ANSWERS)):
        now = 2.0 + answers
        made.apply(frame({"b": kernel(1, at=now, started=answers, progress=answers)}, full=True, at=now), now)
        assert (made.rows[1].ready_at_s is None) == (answers == WARM_ANSWERS)


def test_tokens_go_with_their_requests() -> None:
    made = table(pod("a"))
    row = made.rows[0]
    made.apply(frame({"a": kernel(0, started=0)}, full=True, at=0.0), 0.0)
    first = made.reserve(row, 0.01, 1000.0, 400.0)
    made.reserve(row, 0.02, 500.0, 500.0)
    assert (row.ledger.own_tokens, row.ledger.queued_tokens, row.ledger.own_waiting) == (1500, 900, 2)

    made.apply(frame({"a": kernel(2, at=0.05, started=2, waiting=1)}), 0.05)
    assert (row.ledger.queued_tokens, row.ledger.own_waiting) == (500, 1)
    assert made.fleet.queued_tokens[0] == 500

    made.end(row, first, 0.1)
    assert row.ledger.own_tokens == 500


def test_what_was_learned_stays_with_its_endpoint_when_others_come_and_go() -> None:
    made = table(pod("a"), pod("b"))
    made.fleet.speed[:] = [1.0, 3.0]
    made.apply(ClusterChanged(cluster(pod("b"), pod("c"))), 1.0)
    assert made.fleet.speed.tolist() == [3.0, 1.0]

    made.apply(ClusterChanged(cluster(pod("b", uid="another"), pod("c"))), 2.0)
    assert made.fleet.speed.tolist() == [1.0, 1.0]


def test_the_mean_length_of_answers_is_followed() -> None:
    made = table(pod("a"))
    for step in range(400):
        now = step * 0.02
        made.apply(frame({"a": kernel(1, at=now, started=step, completed=step, chunks=50 * step)}, at=now), now)

    assert made.fleet.mean_output_tokens == pytest.approx(50, rel=0.1)
