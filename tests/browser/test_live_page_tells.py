"""What the live page tells of pods, picks and accelerators."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from lab.machine import fleet as fleets
from tests.browser.site import SHOTS, looking, row
from tests.conftest import run

LIMIT_S = 100
FOCUSED = "document.activeElement.dataset.id"


def test_an_agent_that_is_gone_is_shown_with_its_age_and_never_as_zero(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(4, per_node=2)
        async with looking(tmp_path, fleet) as site:
            await site.shows("llm-003", "0 in flight")
            await fleet.nodes[1].stop()
            await site.shows("llm-003", "stale ")
            assert await site.text("llm-003", ".text") == "? in flight"
            assert await site.text("llm-003", ".ttft .value") == "?"
            await site.page.until("document.querySelectorAll('.node h3')[1].textContent.includes('agent silent for')")
            assert "in flight unknown" in await site.page.evaluate(
                "document.querySelectorAll('.node h3')[1].textContent"
            )
            assert await site.text("llm-001", ".text") == "0 in flight · 0 waiting · 0 streaming"
            await site.page.screenshot(SHOTS / "live-page-stale.png")
            await fleet.nodes[1].start(fleet.port, fleet.state_port)
            await site.shows("llm-003", "0 in flight")

    run(body(), LIMIT_S, debug=False)


def test_a_pod_that_lost_an_accelerator_says_which_and_why(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(2)
        async with looking(tmp_path, fleet) as site:
            fleet.pods[1].fault = "Xid <b>79</b>"
            fleet.ring()
            await site.shows("llm-002", "lost device GPU-1: Xid <b>79</b>")
            await site.page.evaluate("document.activeElement.blur()")
            await site.page.key("b", "b")
            await site.page.until("document.querySelectorAll('li.pod:not([hidden])').length === 1")
            fleet.pods[1].fault = ""
            fleet.ring()
            await site.page.until("document.querySelectorAll('li.pod:not([hidden])').length === 0")
            assert site.page.complaints == []

    run(body(), LIMIT_S, debug=False)


def test_the_last_picks_say_where_they_went_and_what_the_others_would_have_cost(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(3)
        async with looking(tmp_path, fleet) as site:
            for pod, in_flight in zip(fleet.pods, (4, 1, 9), strict=True):
                pod.move(in_flight, 0)
            fleet.ring()
            await site.page.until("document.getElementById('figures').textContent.includes('in flight14')")
            await site.pick()
            await site.page.until("document.querySelectorAll('#pick-list li').length === 1")
            pick = "document.querySelector('#pick-list li')"
            assert await site.page.evaluate(f"{pick}.querySelector('.to').textContent") == "llm-002"
            others = await site.page.evaluate(f"[...{pick}.querySelectorAll('.other')].map((one) => one.textContent)")
            assert [one.split(" ")[0] for one in others] == ["llm-001", "llm-003"]
            assert all(re.fullmatch(r"llm-00\d [\d.]+ m?s( stalled)?", one) for one in others), others
            await site.page.until(f"{row('llm-002')}.querySelector('.count .value').textContent === '1'")

    run(body(), LIMIT_S, debug=False)


def test_the_list_of_picks_is_short_until_more_are_wanted(tmp_path: Path) -> None:
    async def body() -> None:
        shown = "[...document.querySelectorAll('#pick-list li')].filter((one) => one.checkVisibility()).length"
        fleet = fleets.fleet(3)
        for pod, end in zip(fleet.pods, ("x2x9z", "b7k4m", "q5d8f"), strict=True):
            pod.name = f"vllm-llama3-8b-instruct-7d9f8b6c4-{end}"
        async with looking(tmp_path, fleet) as site:
            for _ in range(9):
                await site.pick()
                await asyncio.sleep(0.06)
            await site.page.until("document.querySelectorAll('#pick-list li').length >= 8")
            assert await site.page.evaluate(shown) == 6
            await site.page.key("p", "p")
            assert await site.page.evaluate(shown) >= 8
            picked = await site.page.evaluate("document.querySelector('#pick-list .to').textContent")
            assert picked in ("…x2x9z", "…b7k4m", "…q5d8f")  # what the pods of a deployment differ in
            whole = await site.page.evaluate("document.querySelector('#pick-list .to').title")
            assert whole == f"vllm-llama3-8b-instruct-7d9f8b6c4-{picked[1:]}"

    run(body(), LIMIT_S, debug=False)


def test_accelerators_that_are_well_are_shown_and_are_no_trouble(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(3)
        fleet.pods[0].gpus, fleet.pods[0].busy = 8, 0.73
        fleet.pods[1].busy = None
        fleet.pods[2].gpus, fleet.pods[2].told_s = 2, 42.0
        async with looking(tmp_path, fleet) as site:
            await site.shows("llm-001", "8 gpu 73 %")
            bars = f"[...{row('llm-001')}.querySelectorAll('.cells i')].map((i) => getComputedStyle(i).backgroundImage)"
            drawn = await site.page.evaluate(bars)
            assert len(drawn) == 8
            assert all("73%" in bar for bar in drawn)
            await site.shows("llm-002", "gpu ?")
            await site.shows("llm-003", "2 gpu stale 4")
            await site.page.key("b", "b")
            await site.page.until("document.querySelectorAll('li.pod:not([hidden])').length === 0")
            await site.page.key("b", "b")
            await site.page.key("j", "j")
            await site.page.key("Enter", "\r")
            more = await site.text("llm-001", ".more")
            assert "GPU-8: 73 % busy, 61 GiB of 80 GiB, " in more
            assert "nvidia.com/gpu" in more
            assert site.page.complaints == []

    run(body(), LIMIT_S, debug=False)


def test_of_a_pod_with_several_ports_each_has_its_name(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(2)
        async with looking(tmp_path, fleet) as site:
            file = tmp_path / "fleet.yaml"
            ports = "targetPorts:\n  - number: 8000\n  - number: 8001\n"
            text = file.read_text()
            assert "targetPorts:\n  - number: 8000\n" in text
            (tmp_path / ".part").write_text(text.replace("targetPorts:\n  - number: 8000\n", ports))
            (tmp_path / ".part").replace(file)
            names = "[...document.querySelectorAll('li.pod .name')].map((one) => one.textContent).sort().join()"
            await site.page.until(f"{names} === 'llm-001:8000,llm-001:8001,llm-002:8000,llm-002:8001'")
            await site.pick()
            await site.page.until("/^llm-00[12]:800[01]$/.test(document.querySelector('#pick-list .to')?.textContent)")

    run(body(), LIMIT_S, debug=False)


def test_sorted_by_load_the_busiest_pod_comes_first_whatever_its_node(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(6, per_node=2)
        async with looking(tmp_path, fleet) as site:
            for pod, in_flight in zip(fleet.pods, (1, 2, 3, 9, 5, 6), strict=True):
                pod.move(in_flight, 0)
            fleet.ring()
            await site.page.until("document.getElementById('figures').textContent.includes('in flight26')")
            await site.page.evaluate(f"{row('llm-001')}.focus()")
            order = "[...document.querySelectorAll('li.pod')].map((one) => one.dataset.id.slice(-6, -5)).join('')"
            sort = "const s = document.getElementById('sort'); s.value = {!r}; s.dispatchEvent(new Event('change'))"
            await site.page.evaluate("(() => {" + sort.format("load") + "})()")
            assert await site.page.evaluate(order) == "436521"
            assert await site.page.evaluate(FOCUSED) == "default/llm-001:8000"
            await site.page.evaluate("(() => {" + sort.format("name") + "})()")
            assert await site.page.evaluate(order) == "123456"

    run(body(), LIMIT_S, debug=False)
