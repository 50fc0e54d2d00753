"""What a table's weights are, and when they are told."""

from __future__ import annotations

import pytest

from agent.cluster.objects import Cluster, Pod, Pool, cluster_of
from agent.proto.weights_pb2 import EndpointWeights
from controller.endpoints.table import Table
from controller.model import ClusterChanged
from controller.policies.fleet import Job
from controller.policies.kept import Prices
from controller.policies.price import prices
from controller.weights.weighing import BEAT_S, LOOK_S, START_S, Weighing
from tests.controller.known import GROUP, LABELS, PORT, cluster, frame, kernel, pod, table


def pooled(*pods: Pod, service: str = "") -> Cluster:
    return cluster_of([Pool("default", "p", GROUP, "v1", LABELS, (PORT,), "FailClose", "", "http", service), *pods])


def beat(made: Table, now: float, **in_flight: int) -> None:
    signals = {
        name: kernel(count, at=now, usual_gap_s=0.01, low_gap_s=0.01, progress=round(now * 100), started=round(now * 2))
        for name, count in in_flight.items()
    }
    made.apply(frame(signals, full=True, at=now), now)


def over(weighing: Weighing, since: float, until: float, **in_flight: int) -> list[EndpointWeights]:
    """Frames of a time in which agents report these counts."""
    frames = []
    for step in range(round(since / LOOK_S), round(until / LOOK_S) + 1):
        now = step * LOOK_S
        beat(weighing.table, now, **in_flight)
        told = weighing.look(now, synced=True)
        if told is not None:
            frames.append(told)
    return frames


def weights(told: EndpointWeights) -> dict[str, float]:
    return {one.pod: one.weight for one in told.endpoints}


def test_the_first_frame_waits_until_more_than_chance_is_known_and_then_comes_whole() -> None:
    weighing = Weighing(table(pod("a"), pod("b"), pod("c")))
    weighing.table.fleet.mean_output_tokens = 10_000.0  # so that none of 60 answers has to end meanwhile
    assert over(weighing, 0, START_S - 2 * LOOK_S, a=2, b=60, c=2) == []
    (told,) = over(weighing, START_S, START_S, a=2, b=60, c=2)
    assert (told.namespace, told.pool, told.sequence) == ("default", "p", 0)
    assert [(one.address, one.port, one.node) for one in told.endpoints] == [
        (f"10.0.0.{at}", PORT, "node-1") for at in (1, 2, 3)
    ]
    assert weights(told)["b"] < weights(told)["a"] == pytest.approx(weights(told)["c"])


def test_its_prices_are_those_of_the_pick_rule() -> None:
    weighing = Weighing(table(pod("a"), pod("b")))
    (*_, told) = over(weighing, 0, 20, a=2, b=60)
    fleet = weighing.table.fleet
    by_rule = prices(fleet, Job(fleet.mean_prompt_tokens), Prices())
    assert [one.price_s for one in told.endpoints] == pytest.approx(by_rule.tolist(), rel=0.02)


def test_nobody_is_told_anything_before_the_cluster_was_read() -> None:
    weighing = Weighing(Table(GROUP, "default", "p"))
    assert all(weighing.look(now / 10, synced=False) is None for now in range(100))


def test_a_frame_comes_again_and_again_though_nothing_changes() -> None:
    frames = over(Weighing(table(pod("a"), pod("b"))), 0, 20, a=3, b=3)
    assert len(frames) == pytest.approx((20 - START_S) / BEAT_S, abs=2)
    assert all(weights(told) == weights(frames[0]) for told in frames)


def test_a_pod_that_stalls_drains_with_the_next_look() -> None:
    weighing = Weighing(table(pod("a"), pod("b"), pod("c")))
    over(weighing, 0, 6, a=3, b=3, c=3)
    stuck = kernel(3, at=6.0, progress=600, progress_at_s=5.0, usual_gap_s=0.01, started=12)
    weighing.table.apply(frame({"b": stuck}, at=6.05), 6.05)
    told = weighing.look(6.05, synced=True)
    assert told is not None
    assert {name: weight > 0 for name, weight in weights(told).items()} == {"a": True, "b": False, "c": True}


@pytest.mark.parametrize("change", [{"ready": False}, {"terminating": True}])
def test_a_pod_that_ends_drains_with_the_next_look(change: dict[str, bool]) -> None:
    weighing = Weighing(table(pod("a"), pod("b")))
    over(weighing, 0, 6, a=3, b=3)
    weighing.table.apply(ClusterChanged(cluster(pod("a"), pod("b", **change))), 6.05)
    told = weighing.look(6.05, synced=True)
    assert told is not None
    assert weights(told)["b"] == 0.0


def test_pods_that_come_and_go_are_told_at_once() -> None:
    weighing = Weighing(table(pod("a"), pod("b")))
    over(weighing, 0, 6, a=3, b=3)
    weighing.table.apply(ClusterChanged(cluster(pod("b"), pod("c"))), 6.05)
    told = weighing.look(6.05, synced=True)
    assert told is not None
    assert weights(told).keys() == {"b", "c"}
    assert 0.0 < weights(told)["c"] < weights(told)["b"]


def test_a_pool_that_goes_leaves_nothing_to_steer_to() -> None:
    weighing = Weighing(table(pod("a"), pod("b")))
    over(weighing, 0, 6, a=3, b=3)
    weighing.table.apply(ClusterChanged(Cluster()), 6.05)
    told = weighing.look(6.05 + BEAT_S, synced=True)
    assert told is not None
    assert weights(told) == {}


def test_prices_for_weights_leave_the_policys_own_state_alone() -> None:
    weighing = Weighing(table(pod("a"), pod("b")))
    weighing.table.fleet.touched = {1}
    weighing.look(0.0, synced=True)
    assert weighing.table.fleet.touched == {1}


def test_weights_are_shown_once_they_were_told_and_only_for_the_rows_they_are_of() -> None:
    weighing = Weighing(table(pod("a"), pod("b")))
    assert weighing.weights() is None
    over(weighing, 0, 6, a=3, b=3)
    told = weighing.weights()
    assert told is not None
    assert len(told) == 2
    weighing.table.apply(ClusterChanged(cluster(pod("b"))), 6.05)
    assert weighing.weights() is None


def test_two_controllers_that_see_the_same_say_much_the_same() -> None:
    one, other = Weighing(table(*map(pod, "abc"))), Weighing(table(*map(pod, "abc")))
    over(other, 0, 1, a=9, b=1, c=1)  # it was there a little longer
    (*_, first), (*_, second) = (over(weighing, 1.1, 40, a=2, b=8, c=2) for weighing in (one, other))
    for name, weight in weights(first).items():
        assert weights(second)[name] == pytest.approx(weight, rel=0.21)
