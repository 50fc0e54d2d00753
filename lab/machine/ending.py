"""How a command of the lab ends when told to: its work is cancelled, and nothing interrupts what it then removes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def obey() -> None:
    """From now on both signals are a KeyboardInterrupt, even where a shell had SIGINT ignored in the background."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)


def ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def run(work: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run(), after obey(); both signals cancel the work, as asyncio has it for SIGINT alone.

    A KeyboardInterrupt anywhere in the loop would leave a process that is just being started.
    """

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(cancellable())
    finally:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
