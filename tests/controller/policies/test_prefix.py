from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.policies.prefix import (
    BLOCK_BYTES,
    LIMIT_BYTES,
    TOKEN_BYTES,
    PrefixIndex,
    block_ends,
    block_hashes,
    tokens_until,
)

BLOCK_TOKENS = BLOCK_BYTES / TOKEN_BYTES


def index(*names: str, kv_tokens: float = 1e5) -> PrefixIndex:
    made = PrefixIndex()
    made.place(names, np.full(len(names), kv_tokens))
    return made


def text(*seeds: int) -> bytes:
    """A prompt of one block for each seed."""
    return b"".join(bytes([seed]) * BLOCK_BYTES for seed in seeds)


def test_a_block_is_named_by_all_before_it() -> None:
    one, other = block_hashes(text(1, 2, 3)), block_hashes(text(1, 9, 3))

    assert one[0] == other[0]
    assert one[1] != other[1]
    assert one[2] != other[2]


def test_models_share_nothing() -> None:
    assert block_hashes(text(1), "a") != block_hashes(text(1), "b")


def test_names_are_the_same_in_every_process() -> None:
    assert block_hashes(text(1), "m") == [16812777069438724827]


def test_what_does_not_fill_a_block_has_no_name() -> None:
    assert block_hashes(b"x" * (BLOCK_BYTES - 1)) == []


def test_a_prompt_of_two_megabytes_is_some_hundred_blocks_and_a_larger_one_no_more() -> None:
    ends = block_ends(2 << 20)

    assert len(ends) < 600
    assert ends[-1] == 2 << 20
    assert block_ends(1 << 30) == block_ends(LIMIT_BYTES)


@given(st.integers(0, 3 << 20))
def test_blocks_leave_out_little_of_a_prompt(size: int) -> None:
    ends = block_ends(size)

    assert ends == sorted(set(ends))
    assert size - (ends[-1] if ends else 0) < max(BLOCK_BYTES, size / 7)
    assert [tokens_until(at + 1) for at in range(len(ends))] == [end / TOKEN_BYTES for end in ends]


def test_the_common_beginning_is_what_is_cached() -> None:
    held = index("a", "b", "c")
    held.add("a", block_hashes(text(1, 2, 3)))
    held.add("b", block_hashes(text(1, 2, 9)))
    cached = held.cached_tokens(block_hashes(text(1, 2, 3, 4)))

    assert cached is not None
    assert cached.tolist() == [3 * BLOCK_TOKENS, 2 * BLOCK_TOKENS, 0]


def test_nothing_in_common_is_none() -> None:
    held = index("a")
    held.add("a", block_hashes(text(1)))

    assert held.cached_tokens(block_hashes(text(2))) is None
    assert held.cached_tokens([]) is None


def test_the_least_recently_used_goes_first_and_of_a_prompt_its_end() -> None:
    held = index("a", kv_tokens=3 * BLOCK_TOKENS)
    held.add("a", block_hashes(text(1, 2)))
    held.add("a", block_hashes(text(5, 6)))
    assert held.blocks == 3

    assert held.cached_tokens(block_hashes(text(1, 2))) == pytest.approx([BLOCK_TOKENS])
    assert held.cached_tokens(block_hashes(text(5, 6))) == pytest.approx([2 * BLOCK_TOKENS])


def test_who_went_holds_nothing_and_others_keep_theirs() -> None:
    held = index("a", "b")
    held.add("a", block_hashes(text(1)))
    held.add("b", block_hashes(text(2)))
    held.place(["c", "b"])
    assert held.cached_tokens(block_hashes(text(1))) is None
    assert held.cached_tokens(block_hashes(text(2))) == pytest.approx([0, BLOCK_TOKENS])

    held.forget("b")
    assert held.blocks == 0


def test_who_is_not_there_is_sent_nothing() -> None:
    held = index("a")
    held.add("b", block_hashes(text(1)))

    assert held.blocks == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "forget", "place"]), st.integers(0, 9), st.lists(st.integers(0, 3))),
        max_size=40,
    )
)
def test_the_index_is_as_a_list_of_prompts_would_be(plan: list[tuple[str, int, list[int]]]) -> None:
    """Without limits: an endpoint holds every beginning of what was sent to it."""
    names = [str(at) for at in range(10)]
    held = index(*names)
    truth: dict[str, list[list[int]]] = {name: [] for name in names}
    for action, number, seeds in plan:
        name = names[number % len(names)]
        if action == "add":
            held.add(name, block_hashes(text(*seeds)))
            truth[name].append(seeds)
        elif action == "forget":
            held.forget(name)
            truth[name] = []
        else:
            names = [*names[1:], f"{names[0]}'"]
            held.place(names)
            truth = {name: truth.get(name, []) for name in names}
    for _, _, seeds in plan:
        cached = held.cached_tokens(block_hashes(text(*seeds)))
        expected = [max((_common(seeds, sent) for sent in truth[name]), default=0) for name in names]
        assert (cached.tolist() if cached is not None else [0] * len(names)) == [
            count * BLOCK_TOKENS for count in expected
        ]


def _common(one: list[int], other: list[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 2), min_size=1, max_size=7)), max_size=40))
def test_who_holds_a_block_holds_all_before_it_however_little_fits(sent: list[tuple[str, list[int]]]) -> None:
    held = index("a", "b", "c", kv_tokens=5 * BLOCK_TOKENS)
    for name, seeds in sent:
        held.add(name, block_hashes(text(*seeds)))

    for _, seeds in sent:
        blocks = block_hashes(text(*seeds))
        one_by_one = [sum(block in held._held[held._slots[name]] for block in blocks) for name in "abc"]
        cached = held.cached_tokens(blocks)
        assert (cached.tolist() if cached is not None else [0.0] * 3) == [count * BLOCK_TOKENS for count in one_by_one]
        for name in "abc":
            holds = [block in held._held[held._slots[name]] for block in blocks]
            assert holds == sorted(holds, reverse=True)
