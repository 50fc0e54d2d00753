"""Which endpoint has which LoRA adapter loaded, as far as own requests tell, and what another costs there in seconds.

An engine's page tells which adapters it computed of late, not which it holds, so residency is followed from what was
sent. An engine runs so many adapters at once; where all of them have requests, one more has to wait until one has
none. So each is remembered with the time at which the last of our requests for it should be over. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.policies.fleet import Array

LOAD_S = 0.25  # from disk to GPU; a guess until a first use was measured
EVICTION_SHARE = 0.5  # of a load: who is evicted will have to be loaded again
DEFAULT_ROOM = 4
LEARNING = 0.2
LONGEST_LOAD_S = 60.0
LASTS = 8.0  # times a usual answer, until an adapter has no request: the longest of several ends last


class Adapters:
    def __init__(self) -> None:
        self.load_s = LOAD_S
        self._ids: tuple[str, ...] = ()
        self._held: dict[str, dict[str, float]] = {}  # and when its last request should be over
        self._room: dict[str, int] = {}

    def place(self, ids: Sequence[str]) -> None:
        """Sets who is there."""
        self._ids = tuple(ids)
        self._held = {name: self._held.get(name) or {} for name in ids}
        self._room = {name: room for name, room in self._room.items() if name in self._held}

    def set_room(self, name: str, adapters: int) -> None:
        """How many an endpoint can hold at once, where its engine tells."""
        if adapters > 0:
            self._room[name] = adapters

    def forget(self, name: str) -> None:
        """The endpoint is another pod."""
        if name in self._held:
            self._held[name] = {}

    def wait_s(self, adapter: str, now_s: float) -> Array:
        """What each endpoint would lose by this adapter, in the order of place()."""
        return np.array([self._wait_s(name, adapter, now_s) for name in self._ids])

    def _wait_s(self, name: str, adapter: str, now_s: float) -> float:
        held = self._held[name]
        if adapter in held:
            return 0.0
        if len(held) < self._room.get(name, DEFAULT_ROOM):
            return self.load_s
        return max(0.0, min(held.values()) - now_s) + self.load_s * (1.0 + EVICTION_SHARE)

    def use(self, name: str, adapter: str, now_s: float, whole_s: float = 0.0) -> bool:
        """A request for the adapter was sent to the endpoint, where one usually takes so long.

        True if it has to load it, and need not wait for a place.
        """
        held = self._held.get(name)
        if held is None:
            return False
        loads = adapter not in held
        waits = False
        while loads and len(held) >= self._room.get(name, DEFAULT_ROOM):
            soonest = min(held, key=held.__getitem__)
            waits = waits or held[soonest] > now_s
            del held[soonest]
        held[adapter] = max(held.get(adapter, now_s), now_s + LASTS * whole_s)
        return loads and not waits

    def learn(self, surplus_s: float) -> None:
        """The time to first token of a first use, less what was expected without loading."""
        if 0.0 <= surplus_s <= LONGEST_LOAD_S:
            self.load_s += LEARNING * (surplus_s - self.load_s)
