"""Who has which slot: pure decisions, and what must hold of them whatever happens."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from agent.placing.pods import CgroupId, PodUid
from agent.placing.slots import SPARE, Changes, Endpoint, Key, Owner, Table, adopt, apply, settle

A, B, C = (Endpoint(PodUid(name), 8000) for name in "abc")
EMPTY = Table((0, 0, 0))


def cgroups(*numbers: int) -> frozenset[CgroupId]:
    return frozenset(map(CgroupId, numbers))


class Maps:
    """The maps as the kernel's programs read them, and the order in which they were changed."""

    def __init__(self, slots: int = 3) -> None:
        self.table: dict[Key, Owner] = {}
        self.generations = [0] * slots
        self.epoch = 0
        self.calls: list[str] = []

    def owners(self) -> dict[Key, Owner]:
        return dict(self.table)

    def delete_owner(self, key: Key) -> None:
        self.calls.append("delete")
        del self.table[key]

    def put_owner(self, key: Key, owner: Owner) -> None:
        self.calls.append("put")
        self.table[key] = owner

    def reset_slot(self, slot: int, generation: int) -> None:
        self.calls.append("reset")
        self.generations[slot] = generation

    def bump_epoch(self) -> None:
        self.calls.append("bump")
        self.epoch += 1


def settled(
    table: Table, wanted: Mapping[Endpoint, frozenset[CgroupId]], connections: tuple[int, ...] = (0, 0, 0)
) -> tuple[Table, Changes]:
    return settle(table, wanted, connections, owners_capacity=100)


def test_a_new_pod_gets_an_unused_slot_with_a_key_for_each_cgroup() -> None:
    table, changes = settled(EMPTY, {A: cgroups(1, 2)})
    assert table.held[A].owner == Owner(0, 1)
    assert changes.reset == (Owner(0, 1),)
    assert dict(changes.put) == {Key(CgroupId(1), 8000): Owner(0, 1), Key(CgroupId(2), 8000): Owner(0, 1)}


def test_nothing_changes_where_nothing_changed() -> None:
    table, _ = settled(EMPTY, {A: cgroups(1)})
    assert settled(table, {A: cgroups(1)}) == (table, Changes())


def test_a_container_that_restarts_keeps_the_slot_of_its_pod() -> None:
    table, _ = settled(EMPTY, {A: cgroups(1, 2)})
    after, changes = settled(table, {A: cgroups(1, 3)})
    assert after.held[A].owner == table.held[A].owner
    assert (changes.delete, changes.reset) == ((Key(CgroupId(2), 8000),), ())


def test_a_slot_with_old_connections_goes_to_nobody_else() -> None:
    table, _ = settled(Table((0,)), {A: cgroups(1)})
    gone, _ = settled(table, {}, (5,))
    waiting, _ = settled(gone, {B: cgroups(2)}, (1,))
    assert B not in waiting.held
    after, changes = settled(waiting, {B: cgroups(2)}, (0,))
    assert after.held[B].owner == Owner(0, 2)
    assert changes.reset == (Owner(0, 2),)


def test_a_slot_is_not_passed_on_in_the_round_in_which_its_pod_goes() -> None:
    table, _ = settled(Table((0,)), {A: cgroups(1)})
    after, _ = settled(table, {B: cgroups(2)}, (0,))
    assert B not in after.held


def test_pods_that_come_and_go_for_ever_use_few_slots_and_the_last_may_return() -> None:
    table, used = Table((0,) * 200), set()
    for number in range(150):
        pod = Endpoint(PodUid(f"pod-{number}"), 8000)
        table, _ = settled(table, {pod: cgroups(number + 1)}, (0,) * 200)
        used.add(table.held[pod].owner.slot)
    assert len(used) == SPARE + 2  # the pod's own, and that of the one which goes in the same round
    last = Endpoint(PodUid("pod-140"), 8000)
    before = next(slot for slot, gone in table.retired.items() if gone.endpoint == last)
    back, changes = settled(table, {last: cgroups(999)}, (0,) * 200)
    assert (back.held[last].owner.slot, changes.reset) == (before, ())


def test_a_pod_that_returns_gets_its_counts_back() -> None:
    table, _ = settled(EMPTY, {A: cgroups(1)})
    gone, _ = settled(table, {})
    back, changes = settled(gone, {A: cgroups(7)})
    assert back.held[A].owner == table.held[A].owner
    assert changes.reset == ()


def test_an_endpoint_without_cgroups_holds_no_slot() -> None:
    table, changes = settled(EMPTY, {A: cgroups(), B: cgroups(1)})
    assert set(table.held) == {B}
    assert changes.reset == (Owner(0, 1),)


def test_without_a_free_slot_those_that_hold_one_keep_it() -> None:
    table, _ = settled(Table((0,)), {B: cgroups(1)})
    after, _ = settled(table, {A: cgroups(2), B: cgroups(1)})
    assert set(after.held) == {B}


def test_without_room_for_keys_those_that_hold_some_keep_them() -> None:
    table, _ = settle(EMPTY, {B: cgroups(1, 2)}, (0, 0, 0), owners_capacity=3)
    after, _ = settle(table, {A: cgroups(3, 4), B: cgroups(1, 2)}, (0, 0, 0), owners_capacity=3)
    assert set(after.held) == {B}


def test_an_agent_that_starts_takes_over_what_the_maps_say() -> None:
    maps = Maps()
    table, changes = settled(EMPTY, {A: cgroups(1, 2), B: cgroups(3)})
    apply(changes, maps)
    adopted, changes = adopt(maps.generations, maps.owners(), {A: cgroups(1, 2), B: cgroups(3)})
    assert (adopted, changes) == (table, Changes())


def test_keys_of_pods_that_went_meanwhile_are_removed_and_their_slot_waits() -> None:
    maps = Maps()
    _, changes = settled(EMPTY, {A: cgroups(1), B: cgroups(3)})
    apply(changes, maps)
    adopted, changes = adopt(maps.generations, maps.owners(), {B: cgroups(3)})
    assert changes.delete == (Key(CgroupId(1), 8000),)
    assert set(adopted.retired) == {0}


def test_keys_of_another_generation_or_beyond_the_array_are_left_over() -> None:
    owners = {Key(CgroupId(1), 8000): Owner(0, 1), Key(CgroupId(2), 8000): Owner(99, 1)}
    adopted, changes = adopt((2, 0), owners, {A: cgroups(1), B: cgroups(2)})
    assert adopted.held == {}
    assert set(changes.delete) == set(owners)


def test_two_endpoints_on_one_slot_cannot_both_be_right() -> None:
    owners = {Key(CgroupId(1), 8000): Owner(0, 1), Key(CgroupId(2), 8000): Owner(0, 1)}
    adopted, changes = adopt((1,), owners, {A: cgroups(1), B: cgroups(2)})
    assert set(adopted.held) == {A}
    assert changes.delete == (Key(CgroupId(2), 8000),)


def test_the_epoch_moves_last_and_only_if_keys_changed() -> None:
    maps = Maps()
    table, changes = settled(EMPTY, {A: cgroups(1)})
    apply(changes, maps)
    assert maps.calls == ["reset", "put", "bump"]
    apply(settled(table, {A: cgroups(1)})[1], maps)
    assert maps.epoch == 1


WANTED = st.dictionaries(
    st.sampled_from([A, B, C, Endpoint(PodUid("a"), 9000)]), st.frozensets(st.integers(1, 6), max_size=3), max_size=4
)
ROUNDS = st.lists(st.tuples(WANTED, st.tuples(*[st.integers(0, 2)] * 3)), max_size=8)


@given(ROUNDS)
def test_no_two_endpoints_share_a_slot_and_none_gets_one_in_use(rounds: list) -> None:
    maps = Maps()
    table = EMPTY
    for wanted, connections in rounds:
        before = table
        # a cgroup is of one pod; hypothesis does not know that
        taken: set[int] = set()
        unique = {}
        for endpoint, ids in sorted(wanted.items()):
            unique[endpoint] = frozenset(map(CgroupId, ids - taken))
            taken |= ids
        table, changes = settle(table, unique, connections, owners_capacity=5)
        apply(changes, maps)
        owners = [held.owner for held in table.held.values()]
        assert len({owner.slot for owner in owners}) == len(owners)
        assert maps.generations == list(table.generations)
        assert len(maps.table) <= 5
        for slot, generation in changes.reset:
            assert before.generations[slot] == 0 or connections[slot] == 0
            assert generation == before.generations[slot] + 1
        for key, owner in maps.table.items():
            assert any(held.owner == owner and key.cgroup_id in held.cgroups for held in table.held.values())
