"""A picker's guess of what each engine has cached: the blocks of what it sent there, the oldest first to go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.policy.cache import BLOCK_TOKENS
from controller.policies.fleet import Array


class PrefixIndex:
    """Each pod's blocks within its KV capacity; for every block a set of pods as bits."""

    def __init__(self, kv_tokens: Sequence[int]) -> None:
        self._most = [tokens // BLOCK_TOKENS for tokens in kv_tokens]
        self._blocks: list[dict[int, None]] = [{} for _ in kv_tokens]
        self._pods: dict[int, int] = {}

    def uncached(self, blocks: Sequence[int], prompt_tokens: int) -> Array:
        """Prompt tokens that each pod would have to compute."""
        result = np.full(len(self._most), float(prompt_tokens))
        left = (1 << len(self._most)) - 1
        for depth, block in enumerate(blocks):
            here = left & self._pods.get(block, 0)
            self._write(result, left & ~here, prompt_tokens - depth * BLOCK_TOKENS)
            left = here
            if not left:
                return result
        self._write(result, left, prompt_tokens - len(blocks) * BLOCK_TOKENS)
        return result

    @staticmethod
    def _write(result: Array, pods: int, tokens: float) -> None:
        while pods:
            lowest = pods & -pods
            result[lowest.bit_length() - 1] = max(1.0, tokens)
            pods ^= lowest

    def insert(self, pod: int, blocks: Sequence[int]) -> None:
        """The pod was sent these, or answered them."""
        held, bit = self._blocks[pod], 1 << pod
        for block in reversed(blocks):  # so that the end of a chain goes first
            held.pop(block, None)
            held[block] = None
            self._pods[block] = self._pods.get(block, 0) | bit
        while len(held) > self._most[pod]:
            oldest = next(iter(held))
            del held[oldest]
            self._pods[oldest] &= ~bit
            if not self._pods[oldest]:
                del self._pods[oldest]
