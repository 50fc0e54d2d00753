"""Metrics pages of engines that are not there, at the addresses of a site's upstreams."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.gateway.site import free_port


@dataclass(slots=True)
class Pages:
    port: int
    texts: dict[str, str] = field(default_factory=dict)  # by IP
    reads: Counter[str] = field(default_factory=Counter)

    def say(self, ip: str, running: int = 0, waiting: int = 0, kv: float = 0.1, adapters: str = "") -> None:
        base = '{model_name="base"}'
        lora = f'{{max_lora="4",running_lora_adapters="{adapters}",waiting_lora_adapters=""}}'
        self.texts[ip] = (
            f"vllm:num_requests_running{base} {running}\nvllm:num_requests_waiting{base} {waiting}\n"
            f"vllm:kv_cache_usage_perc{base} {kv}\nvllm:lora_requests_info{lora} 1\n"
        )

    async def reread(self) -> None:
        """Waits until the controller has what they say now."""
        before = Counter(self.reads)
        # the first may have been written before, and the second's answer may still be on its way
        while any(self.reads[ip] < before[ip] + 3 for ip in self.texts):
            await asyncio.sleep(0.02)

    async def serve(self, ip: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                text = self.texts[ip].encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
                await writer.drain()
                self.reads[ip] += 1


@contextlib.asynccontextmanager
async def pages(ips: Sequence[str]) -> AsyncIterator[Pages]:
    """Serves them, idle at first."""
    made = Pages(free_port("0.0.0.0"))
    async with contextlib.AsyncExitStack() as stack:
        for ip in ips:
            made.say(ip)
            await stack.enter_async_context(await asyncio.start_server(partial(made.serve, ip), ip, made.port))
        yield made
