"""Which part of a prompt each endpoint has in its cache, as far as own requests tell. Pure: no clock, no chance.

A prompt is cut into blocks, each named by a hash of itself and of all before it. An endpoint that was sent a prompt is
taken to hold its blocks until so much other was sent to it that its KV cache cannot hold them all: the least recently
used go first, of one prompt the last ones. Short blocks come first, where prompts part; later ones are longer, so that
a prompt of megabytes is some hundred blocks and what is not seen of it stays a small part. Beyond LIMIT_BYTES nothing
is looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import xxhash

from controller.policies.fleet import Array

BLOCK_BYTES = 512  # about 128 tokens
BLOCKS_SHORT = 64
LONG_BLOCK_BYTES = 4096
LIMIT_BYTES = 4 << 20
TOKEN_BYTES = 4.0  # of English text; a guess that only scales what is saved
DEFAULT_TOKENS = 400_000.0  # KV cache of an engine that does not tell: an 8B model on 80 GB
MOST_BLOCKS = 2_000_000  # of all endpoints together, about 300 MB


_SHORT_BYTES = BLOCK_BYTES * BLOCKS_SHORT
_ENDS = [
    *range(BLOCK_BYTES, _SHORT_BYTES + 1, BLOCK_BYTES),
    *range(_SHORT_BYTES + LONG_BLOCK_BYTES, LIMIT_BYTES + 1, LONG_BLOCK_BYTES),
]
_PARTS = [slice(begin, end) for begin, end in pairwise([0, *_ENDS])]


def block_ends(size: int) -> list[int]:
    """Where the whole blocks of a prompt of so many bytes end."""
    return _ENDS[: bisect_right(_ENDS, size)]


def block_hashes(prompt: bytes | memoryview, salt: str = "") -> list[int]:
    """The chained names of the whole blocks of a prompt; `salt` keeps models and adapters apart."""
    if len(prompt) < BLOCK_BYTES:
        return []
    view, digest = memoryview(prompt), xxhash.xxh3_64_intdigest
    before = digest(salt.encode())
    return [before := digest(view[part], before) for part in _PARTS[: bisect_right(_ENDS, len(view))]]


def tokens_until(blocks: int) -> float:
    """Tokens of so many first blocks."""
    short = min(blocks, BLOCKS_SHORT)
    return (short * BLOCK_BYTES + (blocks - short) * LONG_BLOCK_BYTES) / TOKEN_BYTES


class PrefixIndex:
    """What is cached where. Endpoints are known by their ids and asked for in the order of the last place()."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._holders: dict[int, int] = {}  # block -> bits of the slots that hold it
        self._held: dict[int, OrderedDict[int, None]] = {}  # slot -> its blocks, the least recently used first
        self._limits: dict[int, int] = {}
        self._order = np.zeros(0, np.intp)

    def place(self, ids: Sequence[str], kv_tokens: Array | None = None) -> None:
        """Sets who is there, and how much each can hold; NaN: it does not tell."""
        for gone in self._slots.keys() - set(ids):
            self.forget(gone)
            self._free.append(self._slots.pop(gone))
        most = MOST_BLOCKS // max(1, len(ids))
        for at, name in enumerate(ids):
            slot = self._slots.setdefault(name, -1)
            if slot < 0:
                slot = self._slots[name] = self._free.pop() if self._free else len(self._slots) - 1
                self._held[slot] = OrderedDict()
            tokens = float(kv_tokens[at]) if kv_tokens is not None else DEFAULT_TOKENS
            tokens = tokens if 0.0 < tokens < 1e9 else DEFAULT_TOKENS
            self._limits[slot] = min(most, int(tokens * TOKEN_BYTES) // BLOCK_BYTES)
        self._order = np.array([self._slots[name] for name in ids], np.intp)

    def forget(self, name: str) -> None:
        """The endpoint lost its cache: another pod, or a restart."""
        slot = self._slots.get(name)
        held = self._held.get(slot) if slot is not None else None
        if slot is None or held is None:
            return
        for block in held:
            self._release(slot, block)
        held.clear()

    def add(self, name: str, blocks: Sequence[int]) -> None:
        """A prompt of these blocks was sent to the endpoint."""
        slot = self._slots.get(name)
        if slot is None:
            return
        held, bit = self._held[slot], 1 << slot
        holders, move_to_end = self._holders, held.move_to_end
        for block in reversed(blocks):  # so that of one prompt the last blocks are the first to go
            if block in held:
                move_to_end(block)
            else:
                held[block] = None
                holders[block] = holders.get(block, 0) | bit
        while len(held) > self._limits[slot]:
            block, _ = held.popitem(last=False)
            self._release(slot, block)

    def _release(self, slot: int, block: int) -> None:
        left = self._holders[block] & ~(1 << slot)
        if left:
            self._holders[block] = left
        else:
            del self._holders[block]

    def cached_tokens(self, blocks: Sequence[int]) -> Array | None:
        """Tokens of the longest common beginning with what each endpoint holds; None if nobody holds any.

        Who holds a block holds all before it, for the last blocks of a prompt are the first to go. So where a
        beginning ends is found by halving, and a prompt that is held whole by the look at its last block.
        """
        holders = self._holders
        alive = holders.get(blocks[0], 0) if blocks else 0
        if not alive:
            return None
        cached = np.zeros(self._width())
        at = 1
        while alive and at <= len(blocks):
            at = self._held_until(blocks, alive, at)
            still = holders.get(blocks[at], 0) & alive if at < len(blocks) else 0
            cached[self._bits(alive & ~still)] = tokens_until(at)
            alive, at = still, at + 1
        tokens: Array = cached[self._order]
        return tokens

    def _held_until(self, blocks: Sequence[int], alive: int, least: int) -> int:
        """How many blocks all of these hold; it is known that they hold so many at least."""
        get, most = self._holders.get, len(blocks)
        if get(blocks[-1], 0) & alive == alive:
            return most
        while most - least > 1:
            half = (least + most) // 2
            if get(blocks[half - 1], 0) & alive == alive:
                least = half
            else:
                most = half
        return least

    def _width(self) -> int:
        return 8 * (len(self._held) // 8 + 1)

    def _bits(self, mask: int) -> np.typing.NDArray[np.bool_]:
        raw = np.frombuffer(mask.to_bytes(self._width() // 8, "little"), np.uint8)
        return np.unpackbits(raw, bitorder="little").astype(bool)

    @property
    def blocks(self) -> int:
        """Blocks held, each counted once for each endpoint that holds it."""
        return sum(len(held) for held in self._held.values())
