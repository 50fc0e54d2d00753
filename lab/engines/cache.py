"""What an engine still has of earlier prompts: blocks of words by chained names, the oldest first to go."""

from __future__ import annotations

from collections.abc import Sequence

BLOCK_TOKENS = 64


def blocks_of(words: Sequence[str]) -> tuple[int, ...]:
    """Names of the whole blocks of a prompt; each stands for all words up to its end. Valid in this process only."""
    names = []
    before = 0
    for end in range(BLOCK_TOKENS, len(words) + 1, BLOCK_TOKENS):
        before = hash((before, *words[end - BLOCK_TOKENS : end]))
        names.append(before)
    return tuple(names)


class PrefixCache:
    """Holds so many tokens; apart from the KV space of running sequences, which an engine of the lab has for itself."""

    def __init__(self, limit_tokens: int) -> None:
        self._limit = limit_tokens // BLOCK_TOKENS
        self._held: dict[int, None] = {}

    def take(self, blocks: Sequence[int]) -> int:
        """Tokens of the longest beginning that is here; all blocks are here afterwards."""
        found = 0
        for block in blocks:
            if block not in self._held:
                break
            found += 1
        for block in reversed(blocks):  # so that the end of a prompt goes first
            self._held.pop(block, None)
            self._held[block] = None
        while len(self._held) > self._limit:
            del self._held[next(iter(self._held))]
        return found * BLOCK_TOKENS
