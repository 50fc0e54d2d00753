"""Which endpoint has which LoRA adapter loaded, as far as own requests tell, and what loading one costs in seconds.

An engine's page tells which adapters it computed of late, not which it holds, so residency is followed from what was
sent: the least recently used adapter goes when one more comes than the engine has room for. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from controller.policies.fleet import Array

LOAD_S = 0.25  # from disk to GPU; a guess until a first use was measured
EVICTION_SHARE = 0.5  # of a load: who is evicted will have to be loaded again
DEFAULT_ROOM = 4
LEARNING = 0.2
LONGEST_LOAD_S = 60.0


class Adapters:
    def __init__(self) -> None:
        self.load_s = LOAD_S
        self._ids: tuple[str, ...] = ()
        self._held: dict[str, OrderedDict[str, None]] = {}
        self._room: dict[str, int] = {}

    def place(self, ids: Sequence[str]) -> None:
        """Sets who is there."""
        self._ids = tuple(ids)
        self._held = {name: self._held.get(name) or OrderedDict() for name in ids}
        self._room = {name: room for name, room in self._room.items() if name in self._held}

    def set_room(self, name: str, adapters: int) -> None:
        """How many an endpoint can hold at once, where its engine tells."""
        if adapters > 0:
            self._room[name] = adapters

    def forget(self, name: str) -> None:
        """The endpoint is another pod."""
        if name in self._held:
            self._held[name] = OrderedDict()

    def wait_s(self, adapter: str) -> Array:
        """What each endpoint would lose by this adapter, in the order of place()."""
        return np.array([self._wait_s(name, adapter) for name in self._ids])

    def _wait_s(self, name: str, adapter: str) -> float:
        held = self._held[name]
        if adapter in held:
            return 0.0
        full = len(held) >= self._room.get(name, DEFAULT_ROOM)
        return self.load_s * (1.0 + EVICTION_SHARE) if full else self.load_s

    def use(self, name: str, adapter: str) -> bool:
        """A request for the adapter was sent to the endpoint; True if it has to load it."""
        held = self._held.get(name)
        if held is None:
            return False
        loads = adapter not in held
        held[adapter] = None
        held.move_to_end(adapter)
        while len(held) > self._room.get(name, DEFAULT_ROOM):
            held.popitem(last=False)
        return loads

    def learn(self, surplus_s: float) -> None:
        """The time to first token of a first use, less what was expected without loading."""
        if 0.0 <= surplus_s <= LONGEST_LOAD_S:
            self.load_s += LEARNING * (surplus_s - self.load_s)
