"""What only the kernel's socket tables tell of the node's pods: accept queues, and connections that never said a word.

The programs count connections when packets of theirs pass. A connection that was open before and stays idle shows
nowhere, and how many connections wait to be accepted is in no packet. So about once a second the listeners are asked
for, in each network namespace that a pod has; a namespace is entered once, by a process of the pod.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.kernel.sockdiag import Listener, Namespace
from agent.placing.pods import CgroupId
from agent.placing.slots import Endpoint, Held, Key, Owner

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Queue:
    """The accept queues of one endpoint's listeners together."""

    length: int
    limit: int
    longest: int  # ever seen


@dataclass(frozen=True, slots=True)
class Sockets:
    """What was found for one slot."""

    queue: Queue | None = None  # None: nothing listens
    unheard: int = 0  # connections that are open and were not counted yet


def queues(
    listeners: Iterable[Listener], owners: Mapping[Key, Owner], before: Mapping[Owner, Sockets]
) -> dict[Owner, Queue]:
    """Sums the listeners of each slot: workers that share a port have a queue each."""
    lengths: dict[Owner, tuple[int, int]] = {}
    for listener in listeners:
        owner = owners.get(Key(CgroupId(listener.cgroup_id), listener.port))
        if owner is not None:
            length, limit = lengths.get(owner, (0, 0))
            lengths[owner] = length + listener.queued, limit + listener.limit
    found = {}
    for owner, (length, limit) in lengths.items():
        last = before.get(owner, Sockets()).queue
        found[owner] = Queue(length, limit, max(length, last.longest if last else 0))
    return found


class SocketTables:
    """Remembers which namespaces there are; look() blocks for some microseconds a namespace."""

    def __init__(self) -> None:
        self._namespaces: dict[tuple[int, int], Namespace] = {}  # by device and inode of the namespace
        self._homes: dict[Endpoint, tuple[int, int]] = {}
        self._baselines: set[Owner] = set()  # whose connections were compared with what was counted
        self._refused = False
        self.found: Mapping[Owner, Sockets] = {}

    def look(
        self, held: Mapping[Endpoint, Held], paths: Mapping[CgroupId, str], counted: Mapping[Owner, int]
    ) -> Mapping[Owner, Sockets]:
        """Asks for the sockets of the endpoints that hold slots; `paths` says where a cgroup is, by its id."""
        self._follow(held, paths)
        owners = {Key(cgroup, endpoint.port): one.owner for endpoint, one in held.items() for cgroup in one.cgroups}
        found: dict[Owner, Queue] = {}
        for namespace in self._namespaces.values():
            with contextlib.suppress(OSError):
                found |= queues(namespace.listeners(), owners, self.found)
        unheard = self._unheard(held, owners, counted)
        known = found.keys() | unheard.keys()
        self.found = {owner: Sockets(found.get(owner), unheard.get(owner, 0)) for owner in known}
        return self.found

    def ports(self, cgroups: Iterable[CgroupId], paths: Mapping[CgroupId, str]) -> dict[int, frozenset[CgroupId]]:
        """At which ports these cgroups listen; of one pod, so in one namespace, which is not kept."""
        wanted = frozenset(cgroups)
        for path in (_namespace_of(pid) for cgroup in wanted & paths.keys() for pid in _pids(paths[cgroup])):
            with contextlib.suppress(OSError):
                namespace = Namespace(path)
                try:
                    listeners = namespace.listeners()
                finally:
                    namespace.close()
                found: dict[int, frozenset[CgroupId]] = {}
                for one in listeners:
                    if one.cgroup_id in wanted:
                        found[one.port] = found.get(one.port, frozenset()) | {CgroupId(one.cgroup_id)}
                return found
        return {}

    def close(self) -> None:
        for namespace in self._namespaces.values():
            namespace.close()
        self._namespaces.clear()

    def _follow(self, held: Mapping[Endpoint, Held], paths: Mapping[CgroupId, str]) -> None:
        """Enters namespaces of new pods, leaves those of pods that are gone."""
        self._homes = {endpoint: home for endpoint, home in self._homes.items() if endpoint in held}
        for endpoint in held.keys() - self._homes.keys():
            home = self._enter(paths[cgroup] for cgroup in held[endpoint].cgroups if cgroup in paths)
            if home is not None:
                self._homes[endpoint] = home
        for gone in self._namespaces.keys() - set(self._homes.values()):
            self._namespaces.pop(gone).close()

    def _enter(self, cgroups: Iterable[str]) -> tuple[int, int] | None:
        for cgroup in cgroups:
            for pid in _pids(cgroup):
                try:
                    status = os.stat(f"/proc/{pid}/ns/net")
                    home = status.st_dev, status.st_ino
                    if home not in self._namespaces:
                        self._namespaces[home] = Namespace(_namespace_of(pid))
                except FileNotFoundError:
                    continue  # the process ended meanwhile
                except OSError as error:
                    self._say_refused(error)
                    return None
                return home
        return None

    def _say_refused(self, error: OSError) -> None:
        if not self._refused:
            log.warning("accept queues are not known: a pod's network namespace cannot be entered: %s", error.strerror)
        self._refused = True

    def _unheard(
        self, held: Mapping[Endpoint, Held], owners: Mapping[Key, Owner], counted: Mapping[Owner, int]
    ) -> dict[Owner, int]:
        """Asked once for a slot, and again only while there are some: a dump of all connections is not cheap."""
        present = {one.owner for one in held.values()}
        self._baselines &= present
        result = {}
        for endpoint, one in held.items():
            before = self.found.get(one.owner, Sockets()).unheard
            home = self._homes.get(endpoint)
            if home is None or one.owner not in counted or (one.owner in self._baselines and not before):
                continue
            with contextlib.suppress(OSError):
                by_cgroup = self._namespaces[home].open_connections(endpoint.port)
                open_now = sum(by_cgroup.get(cgroup, 0) for cgroup in one.cgroups)
                result[one.owner] = max(0, open_now - counted[one.owner])
                self._baselines.add(one.owner)
        return result


def _namespace_of(pid: str) -> Path | None:
    """The file of a process's network namespace; None where it is ours, which takes no right to enter."""
    path = Path(f"/proc/{pid}/ns/net")
    with contextlib.suppress(OSError):
        if os.path.samefile(path, "/proc/self/ns/net"):
            return None
    return path


def _pids(cgroup: str) -> list[str]:
    try:
        return Path(cgroup, "cgroup.procs").read_text().split()
    except OSError:
        return []  # gone, or of a kind that has no processes
