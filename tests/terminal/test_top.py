"""`sonde-agent top` and `sonde-controller top` in a real terminal."""

from __future__ import annotations

from pathlib import Path

from lab.machine import fleet as fleets
from tests.conftest import run
from tests.terminal import tmux
from tests.terminal.tmux import ENDED

LIMIT_S = 90


def pods(screen: str) -> list[str]:
    """The pods on the screen, from the top."""
    return [line.split()[0] for line in screen.splitlines() if line.startswith("llm-")]


def cells(screen: str, pod: str) -> list[str]:
    """The row of a pod."""
    (line,) = (line for line in screen.splitlines() if line.startswith(pod))
    return line.split()


def test_the_agents_table_lives_sorts_finds_pauses_and_explains(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(3)
        (node,) = fleet.nodes
        async with fleet.serving(tmp_path):
            address = f"{node.ip}:{fleet.state_port}"
            async with tmux.running("agent", "top", "--address", address, "--interval", "0.1") as terminal:
                screen = await terminal.until("llm-003")
                assert "sonde-agent  node node-01  3 endpoints  0 in flight" in screen
                assert pods(screen) == ["llm-001", "llm-002", "llm-003"]
                for pod, in_flight in zip(fleet.pods, (2, 9, 4), strict=True):
                    pod.move(in_flight, 1)
                fleet.ring()
                await terminal.until("15 in flight")
                await terminal.keys("s", "s", "s", "r")  # by in flight, most first
                await terminal.until(lambda text: pods(text) == ["llm-002", "llm-003", "llm-001"])
                assert "in flight↓" in await terminal.screen()
                await terminal.keys("p")
                await terminal.until("PAUSED")
                fleet.pods[0].move(30, 0)
                fleet.ring()
                await terminal.keys("/", "0", "0", "1", "Enter")
                await terminal.until(lambda text: pods(text) == ["llm-001"])
                assert "15 in flight" in await terminal.screen()  # still paused
                await terminal.keys("Escape")
                await terminal.until(lambda text: len(pods(text)) == 3)
                await terminal.keys("p")
                await terminal.until("43 in flight")
                await terminal.keys("h")
                await terminal.until("pause and go on")
                await terminal.keys("PageDown", "PageDown")  # more than a window of 24 lines holds
                await terminal.until("not known, never zero")
                await terminal.keys("x")
                await terminal.until("llm-003")
                await terminal.keys("q")
                await terminal.until(f"{ENDED} 0")

    run(body(), LIMIT_S, debug=False)


def test_the_agents_table_says_when_it_lost_the_agent_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(2)
        (node,) = fleet.nodes
        async with (
            fleet.serving(tmp_path),
            tmux.running("agent", "top", "--address", f"{node.ip}:{fleet.state_port}") as terminal,
        ):
            await terminal.until("llm-002")
            await node.stop()
            await terminal.until("LOST, last heard ")
            assert pods(await terminal.screen()) == ["llm-001", "llm-002"]
            node.pods[0].move(7, 7)
            await node.start(fleet.port, fleet.state_port)
            await terminal.until("7 in flight")
            assert "LOST" not in await terminal.until("q ends")

    run(body(), LIMIT_S, debug=False)


def test_the_table_fits_any_window_and_scrolls(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(60, per_node=60)
        (node,) = fleet.nodes
        async with (
            fleet.serving(tmp_path),
            tmux.running("agent", "top", "--address", f"{node.ip}:{fleet.state_port}") as terminal,
        ):
            await terminal.until("llm-001")
            await terminal.do("resize-window", "-x", "40", "-y", "10")
            await terminal.until(lambda text: len(pods(text)) == 7 and "q ends" in text)
            await terminal.keys("End")
            await terminal.until("llm-060")
            await terminal.keys("Up")
            await terminal.until(lambda text: pods(text)[-1:] == ["llm-059"])
            await terminal.keys("Home")
            await terminal.until("llm-001")
            assert "TTFT" not in await terminal.screen()
            await terminal.keys(*["Right"] * 5)  # to what 40 places have no room for
            await terminal.until(lambda text: "TTFT" in text and pods(text)[0] == "llm-001")
            await terminal.do("resize-window", "-x", "8", "-y", "2")
            await terminal.do("resize-window", "-x", "120", "-y", "70")
            await terminal.until(lambda text: len(pods(text)) == 60)
            await terminal.keys("q")
            await terminal.until(f"{ENDED} 0")

    run(body(), LIMIT_S, debug=False)


def test_the_controllers_table_shows_stalls_ages_and_the_last_pick(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(4, per_node=2)
        async with (
            fleet.serving(tmp_path),
            fleets.controller(tmp_path, fleet, ui=False) as at,
            tmux.running("controller", "top", "--address", f"127.0.0.1:{at.port}", columns=200) as terminal,
        ):
            screen = await terminal.until("2 of 2 agents live")
            assert "pool default/lab  rule sonde (price in" in screen
            assert "no pick yet" in screen
            fleet.pods[0].move(3, 3)
            fleet.pods[0].moved_at_s -= 60
            fleet.ring()
            await terminal.until("stalled 6")
            await fleet.nodes[1].stop()
            await terminal.until("node-02 silent")
            await terminal.until(lambda text: cells(text, "llm-003")[3:6] == ["?", "?", "?"])
            await at.process.stop()
            await terminal.until("LOST")
            await terminal.keys("q")
            await terminal.until(f"{ENDED} 0")

    run(body(), LIMIT_S, debug=False)


def test_a_name_cannot_give_the_terminal_orders(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(2)
        (node,) = fleet.nodes
        fleet.pods[1].name = "\x1b[2J\x1b]0;owned\x07\r\nevil"
        async with (
            fleet.serving(tmp_path),
            tmux.running("agent", "top", "--address", f"{node.ip}:{fleet.state_port}") as terminal,
        ):
            screen = await terminal.until("evil")
            assert "llm-001" in screen
            assert "owned" not in await terminal.do("display-message", "-p", "#{pane_title}")

    run(body(), LIMIT_S, debug=False)


def test_where_nothing_listens_it_says_so_and_ends() -> None:
    async def body() -> None:
        address = f"127.0.0.1:{fleets.free_port()}"
        for daemon, what in (("agent", "no agent answers at"), ("controller", "no controller answers at")):
            async with tmux.running(daemon, "top", "--address", address) as terminal:
                screen = await terminal.until(ENDED)
                assert f"{ENDED} 1" in screen
                assert f"sonde-{daemon} top: {what} {address}" in screen.replace("\n", "")

    run(body(), LIMIT_S, debug=False)
