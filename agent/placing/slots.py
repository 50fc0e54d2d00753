"""Decides which slot of the kernel's array counts which serving port of which pod.

The decisions are pure: tables in, changes out. apply() carries changes out through SlotMaps, the one door.

The rules. A slot belongs to one (pod uid, port) for as long as the pod is there; each of the pod's cgroups gets a key
in `owners` that leads to it. When the pod goes, its keys go and the slot is retired: sockets of the pod may live on and
still count into it. If the same pod comes back, it gets its slot back with all counts. Another pod may have the slot
only when every connection counted into it is closed, and then zeroed and with a higher generation, which is how the
programs tell that a socket's pod is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from agent.placing.pods import CgroupId, PodUid

SPARE = 16  # quiet slots kept for pods that come back; the others are given away before any slot that was never used


class Endpoint(NamedTuple):
    """One serving port of one pod; a tuple, because the sampler looks up thousands a second."""

    uid: PodUid
    port: int


class Key(NamedTuple):
    """struct sonde_key"""

    cgroup_id: CgroupId
    port: int


class Owner(NamedTuple):
    """struct sonde_owner"""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Held:
    owner: Owner
    cgroups: frozenset[CgroupId]


@dataclass(frozen=True, slots=True)
class Gone:
    """Whose a retired slot was: by name, or by its keys where the agent that gave it is gone too."""

    endpoint: Endpoint | None = None
    keys: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Table:
    """Who has which slot."""

    generations: tuple[int, ...]  # by slot; 0: never given to anybody
    held: Mapping[Endpoint, Held] = field(default_factory=dict)
    retired: Mapping[int, Gone] = field(default_factory=dict)  # slots whose pod is gone, longest gone first

    def used(self) -> int:
        """How many slots, counted from the first, may hold anything."""
        return max((slot + 1 for slot, generation in enumerate(self.generations) if generation), default=0)


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do to the maps, in this order."""

    delete: tuple[Key, ...] = ()
    reset: tuple[Owner, ...] = ()  # zero the slot, then set its generation
    put: tuple[tuple[Key, Owner], ...] = ()


class SlotMaps(Protocol):
    """The maps that the kernel's programs read."""

    def owners(self) -> dict[Key, Owner]: ...
    def delete_owner(self, key: Key) -> None: ...
    def put_owner(self, key: Key, owner: Owner) -> None: ...
    def reset_slot(self, slot: int, generation: int) -> None: ...
    def bump_epoch(self) -> None: ...


Wanted = Mapping[Endpoint, frozenset[CgroupId]]  # the serving ports of today's pods, each with its cgroups


def adopt(generations: Sequence[int], owners: Mapping[Key, Owner], wanted: Wanted) -> tuple[Table, Changes]:
    """The table that pinned maps stand for, and the changes that rid them of what is of no pod of today.

    `owners` names no pod, so a key is recognised by its cgroup. Keys of nobody go, but are remembered with their slot:
    the manifest of their pod may just be unreadable. A key that leads to a slot of another generation, or to a second
    slot for the same endpoint, is left over from an agent that died halfway and goes for good.
    """
    endpoints = {Key(cgroup, port): Endpoint(uid, port) for (uid, port), ids in wanted.items() for cgroup in ids}
    held: dict[Endpoint, Held] = {}
    delete: list[Key] = []
    taken: dict[int, Endpoint] = {}
    orphans: dict[int, frozenset[Key]] = {}
    for key, owner in sorted(owners.items()):
        endpoint = endpoints.get(key)
        valid = owner.slot < len(generations) and 0 < owner.generation == generations[owner.slot]
        if valid and endpoint is None:
            orphans[owner.slot] = orphans.get(owner.slot, frozenset()) | {key}
        if endpoint is None or not valid or taken.setdefault(owner.slot, endpoint) != endpoint:
            delete.append(key)
            continue
        before = held.setdefault(endpoint, Held(owner, frozenset()))
        if before.owner == owner:
            held[endpoint] = Held(owner, before.cgroups | {key.cgroup_id})
        else:
            delete.append(key)
    in_use = {entry.owner.slot for entry in held.values()}
    retired = {
        slot: Gone(keys=orphans.get(slot, frozenset()))
        for slot, generation in enumerate(generations)
        if generation and slot not in in_use
    }
    return Table(tuple(generations), held, retired), Changes(delete=tuple(delete))


def settle(table: Table, wanted: Wanted, connections: Sequence[int], owners_capacity: int) -> tuple[Table, Changes]:
    """The table for today's pods and the changes that lead to it.

    `connections` are those open now, by slot, at least of the first used() ones. An endpoint without cgroups holds no
    slot; nor does one for which no slot or no room in `owners` is left: it is missing from the new table's `held`.
    """
    present = _fitting(table, wanted, owners_capacity)
    held = {endpoint: entry for endpoint, entry in table.held.items() if endpoint in present}
    gone = {entry.owner.slot: Gone(endpoint) for endpoint, entry in table.held.items() if endpoint not in present}
    generations = list(table.generations)
    returned = _returned(table, present)
    for endpoint, slot in returned.items():
        held[endpoint] = Held(Owner(slot, generations[slot]), frozenset())
    reset: list[Owner] = []
    free = _free_slots(table, returned.values(), connections)
    for endpoint, slot in zip(sorted(present.keys() - held.keys()), free, strict=False):
        generations[slot] += 1
        reset.append(Owner(slot, generations[slot]))
        held[endpoint] = Held(reset[-1], frozenset())
    in_use = {entry.owner.slot for entry in held.values()}
    retired = {slot: whose for slot, whose in {**table.retired, **gone}.items() if slot not in in_use}
    settled = {endpoint: Held(entry.owner, present[endpoint]) for endpoint, entry in held.items()}
    delete, put = _differences(table.held, settled)
    return Table(tuple(generations), settled, retired), Changes(delete, tuple(reset), put)


def _fitting(table: Table, wanted: Wanted, owners_capacity: int) -> dict[Endpoint, frozenset[CgroupId]]:
    """The endpoints that have cgroups and whose keys find room; those that hold a slot come first."""
    fitting: dict[Endpoint, frozenset[CgroupId]] = {}
    room = owners_capacity
    for endpoint in sorted(wanted, key=lambda endpoint: (endpoint not in table.held, endpoint)):
        ids = wanted[endpoint]
        if 0 < len(ids) <= room:
            fitting[endpoint] = ids
            room -= len(ids)
    return fitting


def _returned(table: Table, present: Wanted) -> dict[Endpoint, int]:
    """Endpoints that are back, and the retired slot of each."""
    orphaned = any(whose.keys for whose in table.retired.values())
    by_key = {key: endpoint for endpoint, ids in present.items() for key in _keys_of(endpoint, ids)} if orphaned else {}
    returned: dict[Endpoint, int] = {}
    for slot, whose in table.retired.items():
        endpoint = whose.endpoint or next((by_key[key] for key in sorted(whose.keys) if key in by_key), None)
        if endpoint in present and endpoint not in table.held and endpoint is not None:
            returned.setdefault(endpoint, slot)
    return returned


def _free_slots(table: Table, returned: Collection[int], connections: Sequence[int]) -> list[int]:
    """Slots that a new endpoint may have, those first that are to go first.

    The quiet ones of pods long gone, so that no more are read than pods need; then those never used, then the quiet
    ones of the last SPARE pods, which may come back. Not those of pods that go in this very round: their connections
    were counted while their keys still worked.
    """
    unused = [slot for slot, generation in enumerate(table.generations) if generation == 0]
    quiet = [slot for slot in table.retired if slot not in returned and connections[slot] <= 0]
    long_gone = quiet[: max(0, len(quiet) - SPARE)]
    return long_gone + unused + quiet[len(long_gone) :]


def _differences(
    before: Mapping[Endpoint, Held], after: Mapping[Endpoint, Held]
) -> tuple[tuple[Key, ...], tuple[tuple[Key, Owner], ...]]:
    old, new = _keys(before), _keys(after)
    return tuple(old.keys() - new.keys()), tuple((key, owner) for key, owner in new.items() if old.get(key) != owner)


def _keys(held: Mapping[Endpoint, Held]) -> dict[Key, Owner]:
    return {key: entry.owner for endpoint, entry in held.items() for key in _keys_of(endpoint, entry.cgroups)}


def _keys_of(endpoint: Endpoint, cgroups: Iterable[CgroupId]) -> list[Key]:
    return [Key(cgroup, endpoint.port) for cgroup in cgroups]


def apply(changes: Changes, maps: SlotMaps) -> None:
    """Carries changes out. Programs look unresolved sockets up again only after the epoch moved, so it moves last."""
    for key in changes.delete:
        maps.delete_owner(key)
    for slot, generation in changes.reset:
        maps.reset_slot(slot, generation)
    for key, owner in changes.put:
        maps.put_owner(key, owner)
    if changes.delete or changes.put:
        maps.bump_epoch()
