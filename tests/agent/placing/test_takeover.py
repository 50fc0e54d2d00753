"""What an agent that just started takes over, and that it says nothing before it knows."""

from __future__ import annotations

import asyncio

import grpc.aio
from hypothesis import given
from hypothesis import strategies as st

from agent.placing.pods import PodUid
from agent.placing.slots import Endpoint, Gone, Key, Owner, Table, adopt, apply, settle
from agent.proto.telemetry_pb2 import WatchRequest
from agent.proto.telemetry_pb2_grpc import TelemetryStub
from agent.stream import Telemetry, make_server
from agent.view import View
from tests.agent.maps import MemoryMaps, ids
from tests.agent.rows import pod
from tests.conftest import run

A, B, C = (Endpoint(PodUid(name), 8000) for name in "abc")


def test_a_pod_whose_manifest_was_unreadable_at_the_restart_gets_its_slot_back() -> None:
    table, changes = adopt([3, 0], {Key(10, 8000): Owner(0, 3)}, {})
    assert changes.delete == (Key(10, 8000),)
    table, changes = settle(table, {A: ids(10)}, [0, 0], 64)
    assert table.held[A].owner == Owner(0, 3)
    assert (changes.reset, dict(changes.put)) == ((), {Key(10, 8000): Owner(0, 3)})


def test_another_pod_does_not_get_the_slot_of_a_key_that_is_not_its_own() -> None:
    table, _ = adopt([3, 0], {Key(10, 8000): Owner(0, 3)}, {})
    table, _ = settle(table, {A: ids(11)}, [0, 0], 64)
    assert table.held[A].owner == Owner(1, 1)


def test_of_two_slots_a_pod_might_have_had_it_gets_one() -> None:
    """What an agent that died halfway can leave."""
    keys = {Key(10, 8000): Owner(0, 3), Key(11, 8000): Owner(1, 2)}
    table, _ = adopt([3, 2], keys, {})
    table, _ = settle(table, {A: ids(10, 11)}, [0, 0], 64)
    assert table.held[A].owner == Owner(0, 3)
    assert dict(table.retired) == {1: Gone(keys=frozenset({Key(11, 8000)}))}


def test_nobody_is_told_that_nobody_is_there_before_that_is_known() -> None:
    async def body() -> None:
        view = View("n1")
        telemetry = Telemetry(view)
        server, port = make_server(telemetry, "127.0.0.1", 0)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = TelemetryStub(channel).Watch(WatchRequest())
                while not telemetry.watchers:
                    await asyncio.sleep(0.001)
                telemetry.beat()
                await asyncio.sleep(0)
                view.place([pod("a")], {})
                telemetry.ring()
                frame = await call.read()
                assert (frame.sequence, [report.pod for report in frame.endpoints]) == (1, ["a"])
        finally:
            telemetry.close()
            await server.stop(0)

    run(body())


def test_a_node_without_pods_is_known_to_have_none() -> None:
    view = View("n1")
    assert not view.placed
    assert view.place([], {})
    assert view.placed
    assert not view.place([], {})


CGROUPS = {A: (10, 11), B: (20, 21), C: (30, 31), Endpoint(A.uid, 8001): (10, 11)}
WANTED = st.dictionaries(st.sampled_from(sorted(CGROUPS)), st.sets(st.integers(0, 1)), max_size=4)
ROUND = st.tuples(WANTED, st.dictionaries(st.integers(0, 2), st.integers(0, 2)), st.booleans())


@given(st.lists(ROUND, max_size=10), st.integers(2, 8))
def test_through_any_restarts_no_slot_is_shared_or_reused_early(rounds, room: int) -> None:
    maps = MemoryMaps(capacity=3, owners_capacity=room)
    table = Table(tuple(maps.generations()))
    last: dict[int, Endpoint] = {}
    for chosen, connections, restarted in rounds:
        wanted = {endpoint: ids(*(CGROUPS[endpoint][n] for n in picked)) for endpoint, picked in chosen.items()}
        maps.open = {slot: connections.get(slot, 0) for slot in range(3) if maps.by_slot[slot]}
        quiet = {slot for slot in range(3) if not maps.open.get(slot)}
        if restarted:
            table, changes = adopt(maps.generations(), maps.owners(), wanted)
            apply(changes, maps)
        held_before, resets = {entry.owner.slot for entry in table.held.values()}, len(maps.resets)
        table, changes = settle(table, wanted, maps.connections(3), room)
        apply(changes, maps)
        zeroed = set(maps.resets[resets:])
        now = {entry.owner.slot: endpoint for endpoint, entry in table.held.items()}
        assert len(now) == len(table.held), "a slot is shared"
        assert not now.keys() & table.retired.keys()
        assert zeroed <= quiet - held_before, "a slot is zeroed under a connection or its pod"
        for slot, endpoint in now.items():
            assert last.get(slot, endpoint) == endpoint or slot in zeroed, "counts of another pod"
            last[slot] = endpoint
        assert maps.entries == {
            Key(cgroup, endpoint.port): entry.owner
            for endpoint, entry in table.held.items()
            for cgroup in entry.cgroups
        }
        assert all(maps.by_slot[owner.slot] == owner.generation for owner in maps.entries.values())
        assert len(maps.entries) <= room
