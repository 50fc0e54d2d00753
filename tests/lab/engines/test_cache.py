from __future__ import annotations

import asyncio

from lab.engines.batching import Model
from lab.engines.cache import BLOCK_TOKENS, PrefixCache, blocks_of
from lab.engines.engine import Engine
from lab.engines.knobs import Knobs

WORDS = tuple(f"w{number}" for number in range(5 * BLOCK_TOKENS + 7))


def test_only_whole_blocks_count_and_each_stands_for_all_before_it():
    names = blocks_of(WORDS)
    assert len(names) == 5
    other = blocks_of(("x", *WORDS[1:]))
    assert not set(names) & set(other)
    assert blocks_of(WORDS[: 3 * BLOCK_TOKENS]) == names[:3]


def test_what_was_taken_before_is_found_again():
    cache = PrefixCache(100 * BLOCK_TOKENS)
    assert cache.take(blocks_of(WORDS)) == 0
    assert cache.take(blocks_of(WORDS[: 2 * BLOCK_TOKENS] + ("other",) * 200)) == 2 * BLOCK_TOKENS


def test_the_end_of_the_oldest_prompt_goes_first():
    cache = PrefixCache(6 * BLOCK_TOKENS)
    cache.take(blocks_of(WORDS))
    cache.take(blocks_of(("y",) * 3 * BLOCK_TOKENS))
    assert cache.take(blocks_of(WORDS)) == 3 * BLOCK_TOKENS


class Listener:
    def __init__(self) -> None:
        self.done = asyncio.Event()

    def token(self, _index: int, last: bool) -> None:
        if last:
            self.done.set()


def test_an_engine_computes_only_what_it_does_not_have():
    async def computed(prefix_tokens: int) -> list[int]:
        """Tokens still to compute of two alike requests, one after the other."""
        engine = Engine("m", Model(step_s=1e-4, sequence_s=0, prefill_token_s=0), Knobs(), print, prefix_tokens)
        dues = []
        for _ in range(2):
            listener = Listener()
            engine.submit(len(WORDS), 1, listener, WORDS)
            dues.append(engine._batch.waiting[0].due)
            await asyncio.wait_for(listener.done.wait(), 10)
        engine.close()
        return dues

    assert asyncio.run(computed(0)) == [len(WORDS)] * 2
    assert asyncio.run(computed(10_000)) == [len(WORDS), 7]
