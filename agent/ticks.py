"""When tasks that look again and again look next: at common times, so that the process wakes once for all of them.

What an agent with idle pods costs is waking up, not looking. Pure; the clock is the event loop's.
"""

from __future__ import annotations

import asyncio
import math


def next_tick(now_s: float, period_s: float) -> float:
    """The multiple of the period that is nearest to one period from now: waking a little early makes no second look."""
    return math.ceil(now_s / period_s + 0.5) * period_s


async def tick(period_s: float) -> None:
    """Sleeps until the next one."""
    now_s = asyncio.get_running_loop().time()
    await asyncio.sleep(next_tick(now_s, period_s) - now_s)
