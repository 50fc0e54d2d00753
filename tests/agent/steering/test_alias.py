"""Alias tables: every endpoint has its share, whatever the weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.steer_layout import SLOTS, key, packed, port_of, port_word, text
from agent.steering.alias import Column, table
from tests.agent.steering.maps import shares


def entries(count: int) -> list[Column]:
    return [Column(f"10.0.{at // 250}.{at % 250 + 1}", 8000, at) for at in range(count)]


@given(st.lists(st.floats(min_value=0.0, max_value=1e9), min_size=1, max_size=60))
def test_shares_are_the_weights(weights: list[float]) -> None:
    found = shares(table(entries(len(weights)), weights))
    heaviest = max(weights)
    scaled = [weight / heaviest if heaviest else 0.0 for weight in weights]
    for at, weight in enumerate(scaled):
        wanted = weight / sum(scaled) if weight else 0.0
        assert found.get(at, 0.0) == pytest.approx(wanted, abs=1e-6)


def test_a_full_table_holds_4096_endpoints_and_not_one_more() -> None:
    weights = [1.0 + at % 7 for at in range(SLOTS)]
    found = shares(table(entries(SLOTS), weights))
    assert (
        max(abs(found[at] - weight / sum(weights)) / (weight / sum(weights)) for at, weight in enumerate(weights))
        < 0.01
    )
    with pytest.raises(ValueError, match="4097 endpoints, a table holds 4096"):
        table(entries(SLOTS + 1), [*weights, 1.0])


def test_endpoints_without_weight_take_no_place_and_nobody_is_an_empty_table() -> None:
    assert shares(table(entries(5000), [1.0] + [0.0] * 4999)) == {0: 1.0}
    assert shares(table(entries(2), [0.0, 0.0])) == {}
    assert shares(table([], [])) == {}
    assert shares(table(entries(2), [1e308, 1e308])) == pytest.approx({0: 0.5, 1: 0.5})
    assert shares(table(entries(2), [1e300, 1e-300])) == {0: 1.0}


def test_addresses_and_ports_are_as_the_kernel_has_them() -> None:
    assert key("10.1.2.3", 80) == bytes.fromhex("00000000000000000000ffff0a01020300500000")
    for address in ("10.1.2.3", "fd00::1", "::1"):
        assert text(packed(address)) == address
    assert port_of(port_word(8000)) == 8000
