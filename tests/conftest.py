"""Tiers: tests/kernel, gateway, browser, terminal and prometheus need more than Python, and say so when they skip.

SONDE_REQUIRE=kernel,gateway,browser,terminal,prometheus turns the skips of those tiers into failures.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared and slow at times, which says nothing of the code.
settings.register_profile("sonde", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sonde")

T = TypeVar("T")
TIERS = ("kernel", "gateway", "browser", "terminal", "prometheus")
DATA = Path(__file__).parent / "data"


def required_tiers() -> set[str]:
    return {tier.strip() for tier in os.environ.get("SONDE_REQUIRE", "").split(",") if tier.strip()}


def skip_or_fail(tier: str, reason: str) -> None:
    """Skips the running test for want of something, unless its tier is required."""
    if tier in required_tiers():
        pytest.fail(f"{tier} tests are required here, but {reason}")
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for tier in TIERS:
            if f"/tests/{tier}/" in str(item.path):
                item.add_marker(tier)


def run(coroutine: Coroutine[Any, Any, T], timeout_s: float = 20, debug: bool = True) -> T:
    """Runs an async test's body: debug mode shows what blocks the loop but is slow, the limit ends what hangs."""

    async def limited() -> T:
        async with asyncio.timeout(timeout_s):
            return await coroutine

    return asyncio.run(limited(), debug=debug)
