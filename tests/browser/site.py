"""The live page of a real controller that follows simulated agents, in a real browser."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from bench import chromium
from bench.chromium import Page
from controller.gateway import extproc
from controller.gateway.modes import BUFFERED
from lab.machine import fleet as fleets
from lab.machine.fleet import HOST, Fleet, Watching
from tests.conftest import skip_or_fail
from tests.controller import messages

SHOTS = Path(__file__).parents[2] / "bench" / "out"
LIVE = "document.documentElement.dataset.link === 'live'"


@dataclass(frozen=True, slots=True)
class Site:
    folder: Path
    fleet: Fleet
    at: Watching
    page: Page

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.at.port}/ui"

    async def text(self, pod: str, part: str) -> str:
        return str(await self.page.evaluate(f"{row(pod)}.querySelector('{part}').textContent"))

    async def shows(self, pod: str, text: str) -> None:
        """Waits until the row of a pod says something."""
        await self.page.until(f"{row(pod)}?.textContent.includes({text!r})")

    async def pick(self) -> None:
        """Asks for an endpoint as a gateway would."""
        async with grpc.aio.insecure_channel(f"{HOST}:{self.at.grpc_port}") as channel:
            call = channel.stream_stream(f"/{extproc.SERVICE}/Process")()
            for message in (messages.headers(BUFFERED), messages.body()):
                await call.write(message)
                await call.read()
            call.cancel()


def row(pod: str) -> str:
    """The row of a pod, as an expression for the browser."""
    name = f"default/{pod}:{fleets.PORT}"
    return f"[...document.querySelectorAll('li.pod')].find((one) => one.dataset.id === {name!r})"


@contextlib.asynccontextmanager
async def looking(folder: Path, fleet: Fleet, width: int = 1280, height: int = 900) -> AsyncIterator[Site]:
    """Everything started, and the page open and live."""
    if chromium.find() is None:
        skip_or_fail("browser", "there is no Chromium: run '.ci/setup dev', or install Debian's chromium")
    async with fleet.serving(folder), fleets.controller(folder, fleet) as at, chromium.browser() as browser:
        page = await browser.page()
        await page.size(width, height)
        site = Site(folder, fleet, at, page)
        await page.open(site.url)
        await page.until(LIVE)
        await page.until(f"document.querySelectorAll('li.pod').length === {len(fleet.pods)}")
        await page.until("document.querySelector('#figures dd') !== null")
        yield site
