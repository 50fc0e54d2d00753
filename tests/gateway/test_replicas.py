"""Several controllers behind one gateway, no leader, no word between them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lab.machine.envoy import BodyMode
from tests.conftest import run
from tests.gateway.crowd import Crowd
from tests.gateway.site import Site, site

MODES = [mode for mode in BodyMode if mode.shows_body]


@pytest.mark.parametrize("mode", MODES)
def test_a_rolling_restart_fails_no_request(tmp_path: Path, mode: BodyMode) -> None:
    """The delay is many times the gateway's health check interval, as its flag asks."""

    async def body() -> None:
        options = {"replicas": 2, "health_check_s": 0.25, "body_mode": mode, "arguments": ["--drain-delay=3s"]}
        async with site(tmp_path, **options) as here:
            async with Crowd(here, 4) as crowd:
                for at in range(2):
                    await crowd.answered(20)
                    await here.restart(at)
                await crowd.answered(20)
            assert crowd.statuses == Counter({200: crowd.statuses.total()}), crowd.failures

    run(body(), timeout_s=110, debug=False)


def test_both_replicas_serve(tmp_path: Path) -> None:
    async def body() -> None:
        async with site(tmp_path, replicas=2, health_check_s=0.25) as here:
            async with Crowd(here, 4) as crowd:
                await crowd.answered(100)
                while min(await picks(here)) == 0:  # the gateway may yet have to find one of them healthy
                    await crowd.answered(20)
            assert crowd.statuses == Counter({200: crowd.statuses.total()}), crowd.failures
            assert sum(await picks(here)) == crowd.statuses.total()

    run(body(), timeout_s=60, debug=False)


async def picks(here: Site) -> list[float]:
    """How many each replica has made."""
    pages = [await here.samples(at) for at in range(2)]
    return [sum(s.value for s in page if s.name == "sonde_controller_picks_total") for page in pages]
