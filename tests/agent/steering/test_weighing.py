"""How new connections are shared out: a controller's frame, what a round trip is worth, equal shares."""

from __future__ import annotations

import pytest

from agent.proto.weights_pb2 import EndpointWeight, EndpointWeights
from agent.steering.maps import Frontend
from agent.steering.services import Front, Target
from agent.steering.weighing import Frame, FrameError, calm, newer, read, weigh

KEY = ("ns", "llm")
A, B, C = (Target(f"10.0.0.{n}", 8000, name) for n, name in enumerate("abc", 1))
FRONT = Front(Frontend("10.96.0.10", 80), KEY, frozenset({8000}), (A, B))
UNKNOWN = Front(Frontend("10.96.0.10", 80), KEY, frozenset({8000}), None)


def frame(*endpoints: EndpointWeight, age_us: int = 0) -> Frame:
    return read(EndpointWeights(namespace="ns", pool="llm", endpoints=endpoints, age_us=age_us), 100.0)


def one(target: Target, weight: float, price_s: float | None = None) -> EndpointWeight:
    return EndpointWeight(address=target.address, port=target.port, weight=weight, price_s=price_s, pod=target.pod)


def test_a_frame_shares_out_among_who_is_ready_and_who_it_does_not_know_waits() -> None:
    found = weigh(FRONT, frame(one(A, 2.0), one(C, 5.0)), {})
    assert (found.source, found.weights) == ("controller", {A: 2.0})
    drained = weigh(FRONT, frame(one(A, 0.0), one(B, 0.0)), {})
    assert (drained.source, drained.weights) == ("controller", {A: 0.0, B: 0.0})


def test_without_a_frame_that_knows_anybody_shares_are_equal() -> None:
    for nothing in (None, frame(), frame(one(C, 1.0))):
        found = weigh(FRONT, nothing, {})
        assert (found.source, found.weights) == ("equal", {A: 1.0, B: 1.0})
    assert weigh(UNKNOWN, None, {}).source == "none"


def test_where_nothing_says_who_is_ready_the_frame_does() -> None:
    other_port = EndpointWeight(address="10.0.0.1", port=9000, weight=1.0)
    other_family = EndpointWeight(address="fd00::1", port=8000, weight=1.0)
    found = weigh(UNKNOWN, frame(one(B, 1.0), one(A, 3.0), other_port, other_family), {})
    assert found.weights == {A: 3.0, B: 1.0}


def test_a_round_trip_counts_as_seconds_of_the_price() -> None:
    rtt_s = {A[:2]: 0.0001, B[:2]: 0.010}
    found = weigh(FRONT, frame(one(A, 1.0, 0.1), one(B, 1.0, 0.1)), rtt_s).weights
    assert found[A] == pytest.approx(0.1 / 0.1001)
    assert found[B] == pytest.approx(0.1 / 0.110)
    busy = weigh(FRONT, frame(one(A, 1.0, 10.0), one(B, 1.0, 1.0)), rtt_s).weights
    assert busy[B] == pytest.approx(1 / 1.01)  # near is a few percent, never a rule


def test_an_unknown_price_or_round_trip_changes_nothing() -> None:
    assert weigh(FRONT, frame(one(A, 1.0), one(B, 1.0, 0.1)), {}).weights == {A: 1.0, B: 1.0}
    third = Front(FRONT.frontend, KEY, FRONT.ports, (A, B, C))
    found = weigh(third, frame(one(A, 1.0, 0.1), one(B, 1.0), one(C, 1.0, 0.1)), {A[:2]: 0.02}).weights
    assert found == {A: pytest.approx(0.1 / 0.12), B: 1.0, C: pytest.approx(0.1 / 0.12)}  # as far as the others are
    for price_s in (0.0, -1.0, float("nan"), float("inf")):
        assert weigh(FRONT, frame(one(A, 1.0, price_s)), {A[:2]: 0.02}).weights == {A: 1.0}


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        ([one(A, -1.0)], "10.0.0.1:8000 has weight -1, expected 0..1e+09"),
        ([one(A, float("nan"))], "has weight nan"),
        ([one(A, float("inf"))], "has weight inf"),
        ([one(A, 1e12)], "has weight 1e+12"),
        ([one(A, 1.0), one(A, 2.0)], "10.0.0.1:8000 is there twice"),
        ([EndpointWeight(address="pod-a", port=1, weight=1.0)], "'pod-a' is no IP address"),
        ([EndpointWeight(address="10.0.0.1", port=0, weight=1.0)], "0 is no port"),
        ([EndpointWeight(address=f"10.1.{n >> 8}.{n & 255}", port=1) for n in range(5000)], "5000 endpoints"),
    ],
)
def test_a_frame_that_cannot_be_used_says_why_in_one_line(endpoints: list[EndpointWeight], said: str) -> None:
    with pytest.raises(FrameError) as error:
        frame(*endpoints)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_newest_prices_count_whichever_frame_came_last() -> None:
    old, new = frame(one(A, 1.0), age_us=5_000_000), frame(one(B, 1.0), age_us=1_000_000)
    assert (old.true_at_s, new.true_at_s) == (95.0, 99.0)
    assert newer(None, old) is old
    assert newer(old, new) is new
    assert newer(new, old) is new


def test_round_trips_move_only_by_more_than_noise() -> None:
    a, b, c = A[:2], B[:2], C[:2]
    assert calm({a: 0.001, b: 0.001}, {a: 0.00109, b: 0.002, c: 0.003}) == {a: 0.001, b: 0.002, c: 0.003}
