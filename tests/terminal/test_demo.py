"""`sonde-lab demo` as it looks in a real terminal."""

from __future__ import annotations

import os
import re

from lab.machine import envoy
from tests.conftest import run, skip_or_fail
from tests.terminal import tmux
from tests.terminal.tmux import ENDED


def test_it_opens_with_the_live_table_and_shows_how_far_it_is() -> None:
    if envoy.find() is None:
        skip_or_fail("gateway", "there is no Envoy: run 'make setup', or name its binary in $SONDE_ENVOY")

    async def body() -> None:
        name = f"sonde-t{os.getpid()}"
        command = ("lab", "demo", "--name", name, "--substrate", "loopback", "--arms", "sonde")
        async with tmux.running(*command, "--duration", "2", "--hang", "0.2", columns=130, lines=40) as terminal:
            screen = await terminal.until("counted by")
            first, head, *rows = screen.splitlines()
            assert re.match(r"\[[#-]{20}\] \d/5 ", first), screen  # before anything else was said
            assert head.split()[:2] == ["pod", "requests"]
            assert rows[0].split()[0] == "pod-1"
            await terminal.until("Live page: http://127.0.0.1:")
            screen = await terminal.until(ENDED)
            assert f"{ENDED} 0" in screen
            assert "5/5 Sonde: " in screen  # the arm's last table stays
            assert re.search(r"^Sonde +\d+ +0 ", screen, re.MULTILINE)

    run(body(), 90, debug=False)
