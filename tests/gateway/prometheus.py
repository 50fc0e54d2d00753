"""A real Prometheus that scrapes a lab: its configuration, its process, its answers."""

from __future__ import annotations

import asyncio
import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.machine import processes
from lab.machine.substrate import Ground
from tests.daemonset.test_alerts import FOLDER
from tests.gateway.site import free_port
from tests.prometheus.promtool import binary

SCRAPE_S = 1
LIMIT_S = 20.0

Json = Any


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Asked over HTTP."""

    address: str

    async def ready(self) -> None:
        """Waits until it answers queries: it listens before its storage is open."""
        while not await asyncio.to_thread(self._is_ready):
            await asyncio.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=LIMIT_S) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False

    async def get(self, path: str, **parameters: str) -> Json:
        return await asyncio.to_thread(self._get, f"{path}?{urllib.parse.urlencode(parameters)}")

    def _get(self, path: str) -> Json:
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}", timeout=LIMIT_S) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    async def values(self, query: str) -> list[float]:
        """Of each series that the query finds, those that are no number left out."""
        found = [float(series["value"][1]) for series in (await self.get("query", query=query))["result"]]
        return [value for value in found if not math.isnan(value)]

    async def names(self) -> set[str]:
        """Of every metric it has ever scraped or recorded."""
        return set(await self.get("label/__name__/values"))


@asynccontextmanager
async def scraping(ground: Ground, folder: Path, logs: Path) -> AsyncIterator[Prometheus]:
    """Scrapes the lab's agent and controller each second and evaluates our rules, until the end."""
    program = binary("prometheus")
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration(ground)))
    port = free_port(ground.node_ip)
    command = [
        str(program),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={ground.node_ip}:{port}",
        "--log.level=warn",
    ]
    process = await processes.start("prometheus", ground.node_command(command), logs)
    try:
        await processes.listening(process, ground.node_ip, port, LIMIT_S)
        prometheus = Prometheus(f"{ground.node_ip}:{port}")
        async with asyncio.timeout(LIMIT_S):
            await prometheus.ready()
        yield prometheus
    finally:
        await process.stop()


def configuration(ground: Ground) -> Json:
    ports = {"sonde-agent": ground.ports.agent_metrics, "sonde-controller": ground.ports.metrics}
    return {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": [str(path) for path in sorted(FOLDER.glob("*.yaml"))],
        "scrape_configs": [
            {
                "job_name": job,
                "honor_labels": True,
                "static_configs": [{"targets": [f"{ground.node_ip}:{port}"]}],
            }
            for job, port in ports.items()
        ],
    }
