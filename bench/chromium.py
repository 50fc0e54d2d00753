"""One headless Chromium and its pages, over the DevTools protocol on a pair of pipes: no port, no library.

Knows the protocol's few commands that looking at a page needs; refuses to know the pages. What the browser complains
of (errors, exceptions, broken policies) is kept in Page.complaints.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]
LIMIT_S = 60.0
MESSAGE_LIMIT_BYTES = 64 << 20
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # root has no other choice
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


class ChromiumError(Exception):
    """The browser is not there, refused a command, or did not answer; the text says which."""


def find() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.complaints: list[str] = []

    async def command(self, method: str, **parameters: Any) -> Json:
        return await self._browser.command(method, parameters, self._session)

    async def open(self, url: str) -> None:
        answer = await self.command("Page.navigate", url=url)
        if "errorText" in answer:
            raise ChromiumError(f"{url}: {answer['errorText']}")
        await self.until("document.readyState === 'complete' && document.documentElement !== null")

    async def evaluate(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        answer = await self.command(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise ChromiumError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, script: str, limit_s: float = LIMIT_S) -> None:
        """Waits until an expression is true. Raises ChromiumError."""
        try:
            async with asyncio.timeout(limit_s):
                while not await self.evaluate(script):  # noqa: ASYNC110 - the truth is in the browser
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise ChromiumError(f"not true within {limit_s:g} s: {script}; complaints {self.complaints}") from None

    async def size(self, width: int, height: int, mobile: bool = False, scale: float = 1) -> None:
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=mobile, deviceScaleFactor=scale
        )

    async def scheme(self, name: str) -> None:
        """light or dark, as the user's system would say."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        await self.command("Emulation.setEmulatedMedia", features=features)

    async def key(self, name: str, text: str = "") -> None:
        """Presses and lets go."""
        typed = {"text": text} if text else {}
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38}
        code = {"windowsVirtualKeyCode": codes[name]} if name in codes else {}
        await self.command("Input.dispatchKeyEvent", type="keyDown", key=name, **typed, **code)
        await self.command("Input.dispatchKeyEvent", type="keyUp", key=name, **code)

    async def screenshot(self, file: Path, whole: bool = False) -> None:
        answer = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(_write, file, base64.b64decode(answer["data"]))

    def hear(self, method: str, parameters: Json) -> None:
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            said = " ".join(str(one.get("value", one.get("description"))) for one in parameters["args"])
            self.complaints.append(f"console {parameters['type']}: {said}")
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            entry = parameters["entry"]
            self.complaints.append(f"{entry['source']} {entry['level']}: {entry['text']} {entry.get('url', '')}")


class Browser:
    """A running browser."""

    def __init__(self, reader: asyncio.StreamReader, out: int) -> None:
        self._reader = reader
        self._out = out
        self._next = 0
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._pages: dict[str, Page] = {}

    async def command(self, method: str, parameters: Json, session: str | None = None) -> Json:
        """Raises ChromiumError."""
        self._next += 1
        number = self._next
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        try:
            async with asyncio.timeout(LIMIT_S):
                told = await answer
        except TimeoutError:
            raise ChromiumError(f"{method}: no answer within {LIMIT_S:g} s") from None
        finally:
            del self._waiting[number]
        if "error" in told:
            raise ChromiumError(f"{method}: {told['error']}")
        result: Json = told["result"]
        return result

    async def page(self) -> Page:
        target = await self.command("Target.createTarget", {"url": "about:blank"})
        attached = await self.command("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await page.command(f"{domain}.enable")
        return page

    async def listen(self) -> None:
        """Hands out what the browser says, until it is gone."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                waiting = self._waiting.get(message.get("id", 0))
                if waiting and not waiting.done():
                    waiting.set_result(message)
                elif page := self._pages.get(message.get("sessionId", "")):
                    page.hear(message["method"], message["params"])
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ChromiumError("the browser has ended"))


@contextlib.asynccontextmanager
async def browser(before: Sequence[str] = ()) -> AsyncIterator[Browser]:
    """Starts one with a profile of its own and removes both. `before` is put in front of the command."""
    binary = find()
    if binary is None:
        raise ChromiumError("there is no Chromium: run '.ci/setup dev', or install Debian's chromium")
    with tempfile.TemporaryDirectory(prefix="sonde-chromium-", ignore_cleanup_errors=True) as profile:
        commands, answers = os.pipe(), os.pipe()
        # above 9, so that none of them is 3 or 4 when the shell puts them there
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands[0], answers[1])]
        script = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}'
        child = await asyncio.create_subprocess_exec(
            *("bash", "-c", script, "chromium", *before, binary, *FLAGS, f"--user-data-dir={profile}"),
            pass_fds=ends,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in (*ends, commands[0], answers[1]):
            os.close(end)
        try:
            async with _connected(commands[1], answers[0]) as made:
                yield made
        finally:
            await _end(child)
            os.close(commands[1])


@contextlib.asynccontextmanager
async def _connected(out: int, into: int) -> AsyncIterator[Browser]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MESSAGE_LIMIT_BYTES)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(into, "rb"))
    made = Browser(reader, out)
    listening = asyncio.create_task(made.listen(), name="chromium")
    try:
        yield made
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        transport.close()


async def _end(child: asyncio.subprocess.Process) -> None:
    """The browser and all its own processes: they are one process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()
