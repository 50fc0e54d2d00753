"""How new connections are shared out among endpoints: by a controller's frame, else equally. Pure.

Owns what a good frame is and what a round trip is worth; refuses to know where frames come from.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from agent.kernel.steer_layout import SLOTS
from agent.proto.weights_pb2 import EndpointWeight, EndpointWeights
from agent.steering.services import Front, Target
from agent.steering.state import PoolName

HEAVIEST = 1e9  # a weight; more is a mistake of who makes them
FRAME_LIMIT_S = 15.0  # controllers send one each five seconds or sooner; older prices are not used
RTT_NOISE, RTT_NOISE_S = 0.25, 100e-6
Place = tuple[str, int]  # address, port


class FrameError(Exception):
    """A frame that cannot be used; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Weight:
    weight: float
    price_s: float | None  # None: unknown
    pod: str


@dataclass(frozen=True, slots=True)
class Frame:
    pool: PoolName
    true_at_s: float  # on our clock
    weights: Mapping[Place, Weight]


@dataclass(frozen=True, slots=True)
class Weighed:
    source: str  # controller, equal, none
    weights: Mapping[Target, float]


def read(message: EndpointWeights, now_s: float) -> Frame:
    """Raises FrameError."""
    pool = (message.namespace, message.pool)
    if len(message.endpoints) > SLOTS:
        raise FrameError(f"{len(message.endpoints)} endpoints, a table holds {SLOTS}")
    weights: dict[Place, Weight] = {}
    for one in message.endpoints:
        place = _place(one)
        if place in weights:
            raise FrameError(f"{one.address}:{one.port} is there twice")
        weights[place] = _weight(one)
    return Frame(pool, now_s - message.age_us * 1e-6, weights)


def _place(one: EndpointWeight) -> Place:
    try:
        address = str(ipaddress.ip_address(one.address))
    except ValueError:
        raise FrameError(f"{one.address!r} is no IP address") from None
    if not 1 <= one.port <= 65535:
        raise FrameError(f"{one.address}: {one.port} is no port")
    return address, one.port


def _weight(one: EndpointWeight) -> Weight:
    if not 0.0 <= one.weight <= HEAVIEST:  # NaN fails too
        raise FrameError(f"{one.address}:{one.port} has weight {one.weight:g}, expected 0..{HEAVIEST:g}")
    priced = one.HasField("price_s") and math.isfinite(one.price_s) and one.price_s > 0.0
    return Weight(one.weight, one.price_s if priced else None, one.pod)


def newer(one: Frame | None, other: Frame) -> Frame:
    return other if one is None or other.true_at_s >= one.true_at_s else one


def weigh(front: Front, frame: Frame | None, rtt_s: Mapping[Place, float]) -> Weighed:
    """By the frame where it knows any of who is Ready; equally where not; nobody where nobody is known to be."""
    if frame is not None:
        told = _told(front, frame)
        if told:
            return Weighed("controller", _near(told, frame, rtt_s))
    if front.ready:
        return Weighed("equal", dict.fromkeys(front.ready, 1.0))
    return Weighed("none", {})


def calm(before: Mapping[Place, float], now: Mapping[Place, float]) -> dict[Place, float]:
    """Round trips as they were, but for those that moved by more than noise: a table is not put for that."""
    return {place: _calm(before.get(place), rtt_s) for place, rtt_s in now.items()}


def _calm(before_s: float | None, now_s: float) -> float:
    moved_s = abs(now_s - before_s) if before_s is not None else math.inf
    return now_s if before_s is None or moved_s > max(RTT_NOISE_S, RTT_NOISE * before_s) else before_s


def _told(front: Front, frame: Frame) -> dict[Target, float]:
    """What the frame says of those who may answer. Who is not in it is too new for its controller, and waits."""
    if front.ready is not None:
        return {one: frame.weights[one[:2]].weight for one in front.ready if one[:2] in frame.weights}
    family = ipaddress.ip_address(front.frontend.address).version
    return {
        Target(address, port, weight.pod): weight.weight
        for (address, port), weight in sorted(frame.weights.items())
        if port in front.ports and ipaddress.ip_address(address).version == family
    }


def _near(told: Mapping[Target, float], frame: Frame, rtt_s: Mapping[Place, float]) -> dict[Target, float]:
    """A round trip counts as seconds of the price. Who was never reached is as far as the others usually are."""
    known = [rtt_s[one[:2]] for one in told if one[:2] in rtt_s]
    usual_s = median(known) if known else 0.0
    found = {}
    for one, weight in told.items():
        price_s, trip_s = frame.weights[one[:2]].price_s, rtt_s.get((one.address, one.port), usual_s)
        found[one] = weight if price_s is None else weight * (price_s / (price_s + trip_s))
    return found
