"""What there is on the node to be measured: the pods' cgroups, pods that nobody named yet, and their sockets.

Looks in a thread, because the kernel holds a scan up while it makes cgroups. Without a cgroup tree there is nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from agent.placing.pods import CgroupId, CgroupTree, ServingPod
from agent.placing.queues import Sockets, SocketTables
from agent.placing.slots import Endpoint, Held, Owner, Wanted
from agent.placing.strangers import Strangers
from agent.watching import Watch

log = logging.getLogger(__name__)

SOCKETS_EVERY_S = 1.0
EARLY_S = 0.1  # a look that comes so much too early is none too many
SEARCH_OFTEN_S = 30.0  # how long a stranger is looked at often: starting a server may take that long


class Survey:
    def __init__(self, root: Path | None) -> None:
        self._watch = _watch() if root else None
        self._tree = CgroupTree(root, self._watch.add if self._watch else lambda path: None) if root else None
        self._tables = SocketTables()
        self._strangers = Strangers(lambda cgroups: self._tables.ports(cgroups, self._paths))
        self._sockets_due_s = 0.0
        self._found: Mapping[str, frozenset[CgroupId]] = {}
        self.known: Collection[str] = ()  # names of all pods that have a manifest

    @property
    def _paths(self) -> Mapping[CgroupId, str]:
        return self._tree.paths if self._tree else {}

    def tell(self, changed: Callable[[], None]) -> None:
        """Calls `changed` in the running event loop when a directory comes or goes."""
        watch = self._watch
        if watch is None:
            return

        def told() -> None:
            if watch.drain():
                changed()

        asyncio.get_running_loop().add_reader(watch.descriptor, told)

    async def look(
        self, pods: Collection[ServingPod], held: Mapping[Endpoint, Held], open_now: Sequence[int], now_s: float
    ) -> tuple[Mapping[str, frozenset[CgroupId]], Wanted]:
        """The cgroups of the pods, by ServingPod.cgroup_name, and the endpoints of strangers.

        About once a second it also asks for the sockets of the endpoints that hold slots; `open_now` are the
        connections counted, by slot. All in one go: a way into a thread and back costs more than a look.
        """
        if self._tree is None:
            return {}, {}
        names = {pod.cgroup_name for pod in pods if pod.cgroup_name}
        counted = {one.owner: open_now[one.owner.slot] for one in held.values()}
        return await asyncio.to_thread(self._look, self._tree, names, held, counted, now_s)

    def _look(
        self,
        tree: CgroupTree,
        names: Collection[str],
        held: Mapping[Endpoint, Held],
        counted: Mapping[Owner, int],
        now_s: float,
    ) -> tuple[Mapping[str, frozenset[CgroupId]], Wanted]:
        cgroups = self._found = tree.scan(names)
        if held and now_s >= self._sockets_due_s:
            self._sockets_due_s = now_s + SOCKETS_EVERY_S - EARLY_S
            self._tables.look(held, tree.paths, counted)
        return cgroups, self._strangers.look(tree.strangers, self.known, now_s)

    def cgroups(self) -> dict[str, frozenset[CgroupId]]:
        """Of every pod in the tree, as of the last look, by what they are called after."""
        if self._tree is None:
            return {}
        others = {name: frozenset(ids) for name, ids in self._tree.strangers.items()}
        return {**others, **self._found}

    def sockets(self, owner: Owner) -> Sockets:
        return self._tables.found.get(owner, Sockets())

    def searching(self, now_s: float) -> bool:
        """Whether a stranger came so lately that it may soon listen."""
        return self._strangers.waiting(now_s, SEARCH_OFTEN_S)


def _watch() -> Watch | None:
    try:
        return Watch()
    except OSError as error:
        log.warning("no inotify (%s): new cgroups are found a second later", error.strerror)
        return None
