"""From prices to weights that agents may steer connections by. Pure: time is an argument.

A picked request goes to the cheapest endpoint of that moment. A weight stands for seconds, at many clients at once, so
it must not follow each moment: prices are smoothed, and a weight is told anew only when it is off by more than noise.
Whoever steers sees prices late; the slower the weights against that delay, the less they can chase it.

    weight = the pool's median price / own price, both smoothed, between 1/8 and 8, moving at most 4 % a second

So a pod that takes twice the time for the same work gets half the connections, and one that queues gets fewer until its
price is back. Where few kernels are heard, prices are guesses and weights go back to equal.

The two limits were found by simulation (tests/controller/weights/loop.py): near saturation a price answers a change of
its weight six times as strongly, and by smoothing alone weights then swing from one end to the other once prices are
seen 3 s late, whatever the time constant up to 12 s. A limit to their pace costs 23 s until a pod that has become 2.5
times slower has its share, and keeps the swing within 5 % of a share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from controller.policies.fleet import UNREADY, Array
from controller.policies.parts import ABSURD_S, STANDING_S

SMOOTH_S = 3.0  # time constant of a price
PACE = 0.04  # of a weight's logarithm, in a second
MOST = 8.0  # a weight is between this and its inverse: who is given nothing would never show that it is fast again
NOISE = 1.1  # told weights off by less stay as they are
BACK_SHARE = 0.25  # of its weight, for who comes back or is new: a price of before says little of it
BACK_S = 10.0  # in which it comes to all of it

Mask = npt.NDArray[np.bool_]


class Scale:
    """The weights of one pool's endpoints over time, in the order of `ids`."""

    __slots__ = ("_back_at_s", "_looked_at_s", "_looks", "_price", "_weight", "ids", "moves", "told", "usable")

    def __init__(self) -> None:
        self.ids: tuple[str, ...] = ()
        self.told: Array = np.zeros(0)  # the weights; 0 where nothing new should go
        self.usable: Mask = np.zeros(0, np.bool_)
        self.moves = 0  # how often told weights were replaced
        self._price: Array = np.zeros(0)  # logarithm, smoothed; NaN: never known
        self._weight: Array = np.zeros(0)  # logarithm; NaN: to be taken from the price
        self._back_at_s: Array = np.zeros(0)  # when it became usable again; -inf: long ago
        self._looks = 0  # with prices that were measured
        self._looked_at_s = -math.inf

    def look(self, ids: Sequence[str], price_s: Array, standing: Array, measured: bool, now: float) -> None:
        """Takes the prices of this moment, as `prices()` gives them; `measured`: at least half are a kernel's."""
        if tuple(ids) != self.ids:
            self._arrange(tuple(ids))
        passed_s, self._looked_at_s = now - self._looked_at_s, now
        usable = usable_of(standing)
        back = usable & ~self.usable
        # what was known of it before is of another time; at the start nobody comes back, all are there
        self._price[back] = self._weight[back] = np.nan
        self._back_at_s[back] = now if self.moves else -math.inf
        self.usable = usable
        self._looks += measured
        self._smooth(_log(price_s, usable), measured, passed_s)
        self._move(passed_s)

    def tell(self, now: float) -> bool:
        """Brings `told` up to date if that is more than noise; whether it did."""
        wanted = self._wanted(now)
        if not self._differs(wanted):
            return False
        self.told = wanted
        self.moves += 1
        return True

    def price_s(self) -> Array:
        """The smoothed prices; NaN: unknown."""
        return np.exp(self._price)

    @property
    def is_off(self) -> bool:
        """Whether an endpoint is told to be used that must not be, or the other way round: that should not wait."""
        return bool(((self.told > 0.0) != self.usable).any())

    def _arrange(self, ids: tuple[str, ...]) -> None:
        """What is known of an endpoint stays with it; who is new comes back from nowhere."""
        places = {name: at for at, name in enumerate(self.ids)}
        at = np.array([places.get(name, -1) for name in ids], np.intp)
        known = at >= 0
        self.told = _moved(self.told, at, known, 0.0)
        self.usable = _moved(self.usable.astype(np.float64), at, known, 0.0) > 0.0
        self._price = _moved(self._price, at, known, np.nan)
        self._weight = _moved(self._weight, at, known, np.nan)
        self._back_at_s = _moved(self._back_at_s, at, known, -math.inf)
        self.ids = ids

    def _smooth(self, price: Array, measured: bool, passed_s: float) -> None:
        """The first looks count alike, so that no chance of the first one stays for long."""
        if not measured:
            self._forget(passed_s)
            return
        share = max(1.0 - math.exp(-passed_s / SMOOTH_S), 1.0 / self._looks)
        known = ~np.isnan(price)
        first = known & np.isnan(self._price)
        self._price[first] = price[first]
        self._price[known] += share * (price[known] - self._price[known])

    def _forget(self, passed_s: float) -> None:
        """Nothing is measured: differences fade, and the prices are known no more once they are gone."""
        known = ~np.isnan(self._price)
        if not known.any() or not math.isfinite(passed_s):
            return
        middle = float(np.median(self._price[known]))
        self._price[known] += (1.0 - math.exp(-passed_s / SMOOTH_S)) * (middle - self._price[known])
        if float(np.abs(self._price[known] - middle).max()) < math.log(NOISE) / 4:
            self._price[:] = np.nan
            self._looks = 0

    def _move(self, passed_s: float) -> None:
        known = self.usable & ~np.isnan(self._price)
        middle = float(np.median(self._price[known])) if known.any() else 0.0
        aim = np.clip(middle - np.where(known, self._price, middle), -math.log(MOST), math.log(MOST))
        free = np.isnan(self._weight) | (self.moves == 0)  # until something was told nothing can swing
        most = np.where(free, math.inf, PACE * passed_s)
        before = np.where(free, aim, self._weight)
        self._weight = before + np.clip(aim - before, -most, most)

    def _wanted(self, now: float) -> Array:
        since = np.clip((now - self._back_at_s) / BACK_S, 0.0, 1.0)
        weight = np.exp(self._weight) * (BACK_SHARE + (1.0 - BACK_SHARE) * since)
        return np.where(self.usable, weight, 0.0)

    def _differs(self, wanted: Array) -> bool:
        if ((self.told > 0.0) != (wanted > 0.0)).any():
            return True
        used = wanted > 0.0
        if not used.any():
            return False
        # shares, not weights, are what is steered by: the median may move all of them and no share
        told, new = self.told[used] / self.told[used].sum(), wanted[used] / wanted[used].sum()
        return bool((np.abs(np.log(new / told)) > math.log(NOISE)).any())


def usable_of(standing: Array) -> Mask:
    """Who may get new connections: of those that are ready and stay, the ones least is said against.

    So nobody stalled, ejected or without its device, unless all are; then a bad endpoint is better than none.
    """
    there = standing < UNREADY
    if not there.any():
        return there
    usable: Mask = there & (standing == standing[there].min())
    return usable


def _log(price_s: Array, usable: Mask) -> Array:
    """Logarithms of prices that can be believed; none is let far from the others, a new pod's price has a cap's."""
    price = price_s % STANDING_S
    believed = usable & (price > 0.0) & (price < ABSURD_S)
    found = np.full(len(price), np.nan)
    if believed.any():
        logs = np.log(price[believed])
        middle, most = float(np.median(logs)), 2.0 * math.log(MOST)
        found[believed] = np.clip(logs, middle - most, middle + most)
    return found


def _moved(values: Array, at: npt.NDArray[np.intp], known: Mask, new: float) -> Array:
    moved = np.full(len(at), new)
    moved[known] = values[at[known]]
    return moved
