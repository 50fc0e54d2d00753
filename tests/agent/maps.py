"""The maps of the kernel as plain values, which refuse what would harm the programs."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.placing.pods import CgroupId
from agent.placing.slots import Key, Owner


@dataclass
class MemoryMaps:
    """What placement does to the maps, done to plain values: placement.Maps."""

    capacity: int = 8
    owners_capacity: int = 64
    entries: dict[Key, Owner] = field(default_factory=dict)
    open: dict[int, int] = field(default_factory=dict)  # slot -> connections
    by_slot: list[int] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    epoch: int = 1

    def __post_init__(self) -> None:
        self.by_slot = self.by_slot or [0] * self.capacity

    def owners(self) -> dict[Key, Owner]:
        return dict(self.entries)

    def delete_owner(self, key: Key) -> None:
        del self.entries[key]

    def put_owner(self, key: Key, owner: Owner) -> None:
        assert self.by_slot[owner.slot] == owner.generation, "a key must not lead to a slot before it is reset"
        self.entries[key] = owner

    def reset_slot(self, slot: int, generation: int) -> None:
        assert generation > self.by_slot[slot]
        self.by_slot[slot] = generation
        self.open[slot] = 0
        self.resets.append(slot)

    def bump_epoch(self) -> None:
        self.epoch += 1

    def generations(self) -> list[int]:
        return list(self.by_slot)

    def connections(self, count: int) -> list[int]:
        return [self.open.get(slot, 0) for slot in range(count)]


def ids(*numbers: int) -> frozenset[CgroupId]:
    return frozenset(map(CgroupId, numbers))
