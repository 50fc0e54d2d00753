"""An engine's prefix cache: named blocks, least recently used first to go, never one that a running request holds."""

from __future__ import annotations

from collections.abc import Sequence

BLOCK_TOKENS = 256  # of the simulation's named blocks; engines use 16, which only rounds finer


class Cache:
    """Counts in tokens. Blocks of a chain are named so that a name stands for the whole prefix up to its end."""

    __slots__ = ("_free", "_held", "held_tokens")

    def __init__(self) -> None:
        self._held: dict[int, int] = {}  # name: requests that hold it
        self._free: dict[int, None] = {}  # oldest first
        self.held_tokens = 0

    def matched(self, blocks: Sequence[int]) -> int:
        """How many leading blocks are here."""
        count = 0
        for block in blocks:
            if block not in self._held and block not in self._free:
                break
            count += 1
        return count

    def hold(self, blocks: Sequence[int]) -> int:
        """A request begins to use these blocks, present or to be computed. Returns the tokens newly held."""
        before = self.held_tokens
        for block in blocks:
            count = self._held.get(block, 0)
            if not count:
                self._free.pop(block, None)
                self.held_tokens += BLOCK_TOKENS
            self._held[block] = count + 1
        return self.held_tokens - before

    def new_tokens(self, blocks: Sequence[int]) -> int:
        """What hold() would add."""
        return BLOCK_TOKENS * sum(block not in self._held for block in blocks)

    def release(self, blocks: Sequence[int], extra: Sequence[int] = ()) -> int:
        """A request is over; `extra` blocks hold its answer. The end of a chain goes first. Returns tokens let go."""
        before = self.held_tokens
        for block in reversed(extra):
            if block not in self._held:
                self._free.pop(block, None)
                self._free[block] = None
        for block in reversed(blocks):
            self._held[block] -= 1
            if not self._held[block]:
                del self._held[block]
                self.held_tokens -= BLOCK_TOKENS
                self._free[block] = None
        return before - self.held_tokens

    def fit(self, free_tokens: float) -> None:
        """Forgets what no longer fits beside what requests hold."""
        while len(self._free) * BLOCK_TOKENS > free_tokens and self._free:
            del self._free[next(iter(self._free))]
