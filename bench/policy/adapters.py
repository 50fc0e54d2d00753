"""LoRA adapters of one engine: a few are loaded at once, another is loaded when none that is needed must go."""

from __future__ import annotations


class Adapters:
    """The least recently used adapter without running requests gives way; without one the request must wait."""

    __slots__ = ("_limit", "_load_s", "_pending_s", "_running")

    def __init__(self, limit: int, load_s: float) -> None:
        self._limit = limit
        self._load_s = load_s
        self._running: dict[int, int] = {}  # adapter: running requests; the least recently used first
        self._pending_s = 0.0

    def enter(self, adapter: int) -> bool:
        """Makes the adapter resident for one more request; False if there is no place for it now."""
        if adapter not in self._running:
            if len(self._running) >= self._limit and not self._evict():
                return False
            self._pending_s += self._load_s
            self._running[adapter] = 0
        self._running[adapter] = self._running.pop(adapter) + 1
        return True

    def leave(self, adapter: int) -> None:
        self._running[adapter] -= 1

    def take_load_s(self) -> float:
        """Time of loads since the last call; the step that needs them waits for it."""
        pending_s, self._pending_s = self._pending_s, 0.0
        return pending_s

    def resident(self) -> list[int]:
        return list(self._running)

    def _evict(self) -> bool:
        for adapter, running in self._running.items():
            if not running:
                del self._running[adapter]
                return True
        return False
