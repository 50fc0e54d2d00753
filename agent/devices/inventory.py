"""Which pod of the node has which accelerators, and how they are: asked of kubelet, exporters and NVML again and again.

Owns the last known answer of each source; a source that fails is said once and leaves it. What a pod's annotation says
it really has (Ascend) comes before what kubelet says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from agent.devices import names, podresources
from agent.devices.exporters import States, read_dcgm, read_npu, slice_of_pod
from agent.devices.health import State, joined
from agent.devices.names import Device
from agent.devices.nvml import NoNvml, Nvml
from agent.devices.podresources import Held, KubeletError, PodKey
from agent.engines.scrape import ScrapeError, Scraper
from agent.ticks import tick

log = logging.getLogger(__name__)

KUBELET_S = 10.0
STATES_S = 2.0
PAGE_TIMEOUT_S = 2.0
FORGET_AFTER = 5  # looks without an answer, after which a page's states are unknown

Described = tuple[tuple[Device, State], ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to ask; None: not at all."""

    pod_resources: Path | None = None
    dcgm: str | None = None  # URL of the exporter's page
    npu: str | None = None
    nvml: bool = False


@dataclass(slots=True)
class Source:
    """How asking one source goes."""

    problem: str = ""
    failures: int = 0  # in a row


@dataclass(eq=False)
class Inventory:
    sources: Sources
    changed: Callable[[], None] = lambda: None  # called after each look that found anything
    held: Held = field(default_factory=dict)
    states: States = field(default_factory=dict)
    status: dict[str, Source] = field(default_factory=dict)
    _pages: dict[str, States] = field(default_factory=dict)
    kubelet_s: float = KUBELET_S
    states_s: float = STATES_S
    _aliases: dict[str, str] = field(default_factory=dict)  # GKE's names: UUID by nvidia0
    _slices: dict[PodKey, str] = field(default_factory=dict)  # as DCGM's exporter calls them
    _nvml: Nvml | None = None

    def of(self, pod: PodKey, annotations: Mapping[str, str]) -> Described:
        real = names.ascend_real(annotations)
        devices = self.held.get(pod, ()) if real is None else real
        slices = [one for one in devices if one.kind is names.Kind.MIG]
        alias = self._slices.get(pod) if len(slices) == 1 else None
        return tuple((one, self._state(one, alias if one in slices else None)) for one in devices)

    def _state(self, one: Device, alias: str | None) -> State:
        if alias is not None and one.id not in self.states and alias in self.states:
            one = replace(one, id=alias, parent=one.parent or alias.partition("/")[0])
        by_id = self.states.get(self._aliases.get(one.id, one.id))
        by_parent = self.states.get(self._aliases.get(one.parent, one.parent))
        lost, read_ns = (by_parent.fault, by_parent.read_ns) if by_parent else (None, None)
        if by_id is not None:
            return replace(by_id, fault=by_id.fault or lost)
        if by_parent is not None and one.kind is names.Kind.NPU:
            return by_parent
        # a slice's numbers are not its device's, but a lost device loses its slices
        return State(fault=lost, read_ns=read_ns if lost else None)

    async def run(self) -> None:
        """Asks until cancelled; ends at once where there is nobody to ask."""
        if self.sources == Sources():
            return
        scraper = Scraper()
        looks = 0
        try:
            while True:
                before = (self.held, self.states)
                if looks % round(self.kubelet_s / self.states_s) == 0:
                    await self._ask_kubelet()
                    await self._open_nvml()
                await self._read_states(scraper)
                looks += 1
                if any((*before, self.held, self.states)):  # what is as before is younger now
                    self.changed()
                await tick(self.states_s)
        finally:
            scraper.close()
            if self._nvml:
                self._nvml.close()

    async def _ask_kubelet(self) -> None:
        if self.sources.pod_resources is None:
            return
        try:
            self.held = await podresources.ask(self.sources.pod_resources)
            self._good("kubelet")
        except KubeletError as error:
            self._bad("kubelet", str(error))

    async def _open_nvml(self) -> None:
        if self._nvml or not self.sources.nvml:
            return
        try:
            self._nvml = await asyncio.to_thread(Nvml)
            self._aliases = {alias: uuid for uuid, alias in self._nvml.indexes().items()}
            self._good("nvml")
        except NoNvml as error:
            self._bad("nvml", str(error))

    async def _read_states(self, scraper: Scraper) -> None:
        for name, url, read in (("dcgm", self.sources.dcgm, self._dcgm), ("npu", self.sources.npu, read_npu)):
            if url:
                await self._read_page(scraper, name, url, read)
        states: States = {}
        pages = list(self._pages.values())
        if self._nvml:
            pages.insert(0, _read_now(await asyncio.to_thread(self._nvml.states)))
        for page in pages:
            for one, state in page.items():
                states[one] = joined(states[one], state) if one in states else state
        self.states = states

    async def _read_page(self, scraper: Scraper, name: str, url: str, read: Callable[[bytes], States]) -> None:
        split = urlsplit(url)
        try:
            page = await scraper.fetch(split.hostname or "", split.port or 80, split.path or "/metrics", PAGE_TIMEOUT_S)
        except ScrapeError as error:
            self._bad(name, str(error))
            if self.status[name].failures >= FORGET_AFTER:
                self._pages.pop(name, None)
            return
        self._good(name)
        self._pages[name] = _read_now(read(page))

    def _dcgm(self, page: bytes) -> States:
        self._slices = slice_of_pod(page)
        return read_dcgm(page)

    def _good(self, name: str) -> None:
        source = self.status.setdefault(name, Source())
        if source.failures:
            log.info("devices: %s answers again", name)
        source.problem, source.failures = "", 0

    def _bad(self, name: str, problem: str) -> None:
        source = self.status.setdefault(name, Source())
        if not source.failures:
            log.warning("devices: %s: %s; trying on, the last known state stays", name, problem)
        source.problem, source.failures = problem, source.failures + 1


def _read_now(states: States) -> States:
    now_ns = time.monotonic_ns()
    return {name: replace(state, read_ns=now_ns) for name, state in states.items()}
