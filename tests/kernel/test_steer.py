"""Connections steered in the kernel: whom they reach, what clients see, and what stays as it was."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.kernel import cgroups, steer_pins
from agent.kernel.steer_layout import NUMBERS, port_word
from agent.steering.maps import Entry, Frontend
from tests.kernel.conversation import Bench
from tests.kernel.pods import wait_until
from tests.kernel.steered import VIP, Client, Steered, attached, steered_node

MAPPED_VIP = f"::ffff:{VIP}"


@pytest.fixture(scope="module")
def loaded(bench: Bench) -> Iterator[Steered]:
    with steered_node("steer") as made:
        yield made


@pytest.fixture
def here(loaded: Steered) -> Iterator[Steered]:
    yield loaded
    loaded.clear()


@pytest.fixture(scope="module")
def ports(loaded: Steered) -> dict[str, int]:
    """Servers a, b, c on addresses of their own, and who stands for kube-proxy at the Services' addresses."""
    found = {name: loaded.servers.listen(name, f"127.0.1.{at}") for at, name in enumerate("abc", 1)}
    found["proxy"] = loaded.servers.listen("proxy", VIP)
    found |= {name: loaded.servers.listen(name, "::1") for name in ("a6", "b6", "proxy6")}
    return found


def endpoint(name: str, ports: dict[str, int]) -> tuple[str, int, int]:
    at = "abc".index(name[0]) + 1
    return ("::1" if name.endswith("6") else f"127.0.1.{at}", ports[name], at)


def test_connections_go_by_weight_and_who_has_none_gets_none(here: Steered, ports: dict[str, int]) -> None:
    weights = {endpoint("a", ports): 3.0, endpoint("b", ports): 1.0, endpoint("c", ports): 0.0}
    here.steer(1, Frontend(VIP, ports["proxy"]), weights)
    answers = here.client().answers(VIP, ports["proxy"], 800)
    # 3 of 4 of 800 with a deviation of 12.2: six of them
    assert abs(answers["a"] - 600) < 75
    assert answers["a"] + answers["b"] == 800
    assert (here.connections(1), here.connections(2), here.connections(3)) == (answers["a"], answers["b"], 0)
    assert here.pool(1)["steered"] == 800
    # only round trips of established connections count
    assert int(here.maps.endpoints[1]["handshakes"]) == 0  # no address is written there: the place is nobody's


def test_the_round_trip_of_handshakes_is_taken(here: Steered, ports: dict[str, int]) -> None:
    address, port, index = endpoint("a", ports)
    here.maps.endpoints["address"][index] = struct.unpack("=4I", b"\0" * 10 + b"\xff\xff" + bytes([127, 0, 1, 1]))
    here.maps.endpoints["port"][index] = port_word(port)
    here.steer(1, Frontend(VIP, ports["proxy"]), {(address, port, index): 1.0})
    assert here.client().answers(VIP, ports["proxy"], 20) == {"a": 20}
    wait_until(lambda: int(here.maps.endpoints["handshakes"][index]) == 20)
    assert 0 < int(here.maps.endpoints["rtt_eighth_us"][index]) < 8_000_000


def test_ipv6_and_ipv4_in_an_ipv6_socket(here: Steered, ports: dict[str, int]) -> None:
    here.steer(1, Frontend(VIP, ports["proxy"]), {endpoint("a", ports): 1.0})
    here.steer(2, Frontend("::1", ports["proxy6"]), {endpoint("b6", ports): 1.0})
    client = here.client()
    assert client.answers(MAPPED_VIP, ports["proxy"], 5, family=6) == {"a": 5}
    assert client.answers("::1", ports["proxy6"], 5, family=6) == {"b6": 5}
    assert client.answers("::1", ports["a6"], 5, family=6) == {"a6": 5}
    assert (here.pool(1)["steered"], here.pool(2)["steered"]) == (5, 5)


def test_the_socket_says_that_it_talks_to_whom_it_asked_for(here: Steered, ports: dict[str, int]) -> None:
    here.steer(1, Frontend(VIP, ports["proxy"]), {endpoint("a", ports): 1.0})
    here.steer(2, Frontend("::1", ports["proxy6"]), {endpoint("b6", ports): 1.0})
    client = here.client()
    for address, port, family in ((VIP, "proxy", 4), (MAPPED_VIP, "proxy", 6), ("::1", "proxy6", 6)):
        found = client.ask(family=family, address=address, port=ports[port], times=3)
        assert found["peers"] == {f"{address}|{ports[port]}": 3}
    asked = [(VIP, ports["proxy"]), ("127.0.1.2", ports["b"]), (VIP, ports["proxy"])]
    assert client.ask(again=asked)["peers"] == [f"{address}|{port}" for address, port in asked]


def test_what_is_no_service_is_untouched(here: Steered, ports: dict[str, int]) -> None:
    here.steer(1, Frontend(VIP, ports["a"]), {endpoint("b", ports): 1.0})
    client = here.client()
    assert client.answers(VIP, ports["proxy"], 5) == {"proxy": 5}
    assert client.answers("127.0.1.1", ports["a"], 5) == {"a": 5}
    assert not any(here.pool(1).values())


def test_udp_is_untouched(here: Steered, ports: dict[str, int]) -> None:
    port = here.servers.listen("datagrams", VIP, ports["proxy"], udp=True)
    here.steer(1, Frontend(VIP, port), {endpoint("a", ports): 1.0})
    found = here.client().ask(family=4, address=VIP, port=port, times=3, udp=True)
    here.servers.kill("datagrams")
    assert found == {"answers": {"datagrams": 3}, "peers": {f"{VIP}|{port}": 3}}
    assert not any(here.pool(1).values())


def test_a_client_outside_the_pods_cgroups_is_untouched_and_one_on_the_hosts_network_is_steered(
    here: Steered, ports: dict[str, int]
) -> None:
    """All clients of these tests use the host's network, as pods with hostNetwork do: the cgroup is what counts."""
    here.steer(1, Frontend(VIP, ports["proxy"]), {endpoint("a", ports): 1.0})
    outside = here.client(here.cgroup("daemon", inside=False))
    assert outside.answers(VIP, ports["proxy"], 5) == {"proxy": 5}
    assert here.pool(1)["steered"] == 0
    assert here.client(here.cgroup("pod")).answers(VIP, ports["proxy"], 5) == {"a": 5}


@pytest.mark.parametrize("why", ["LABEL", "MESH"])
def test_a_pod_that_opted_out_or_has_a_sidecar_is_untouched(here: Steered, ports: dict[str, int], why: str) -> None:
    here.steer(1, Frontend(VIP, ports["proxy"]), {endpoint("a", ports): 1.0})
    place = here.cgroup("out")
    here.maps.put_skip(cgroups.identity(place), NUMBERS[f"SONDE_STEER_SKIP_{why}"])
    assert here.client(place).answers(VIP, ports["proxy"], 4) == {"proxy": 4}
    assert here.client().answers(VIP, ports["proxy"], 3) == {"a": 3}
    found = {name: count for name, count in here.pool(1).items() if count}
    assert found == {"steered": 3, f"client_{why.lower()}": 4}


def test_without_endpoint_table_or_heartbeat_connections_are_untouched(here: Steered, ports: dict[str, int]) -> None:
    frontend = Frontend(VIP, ports["proxy"])
    client = here.client()

    def untouched() -> bool:
        return client.answers(VIP, ports["proxy"], 2) == {"proxy": 2}

    here.steer(1, frontend, {endpoint("a", ports): 0.0})
    assert untouched()
    here.steer(1, frontend, {})
    assert untouched()
    here.maps.put_service(frontend, Entry(7, 1))
    assert untouched()
    assert here.pool(1)["no_endpoint"] == 6
    here.steer(1, frontend, {endpoint("a", ports): 1.0})
    here.maps.beat(0)
    assert untouched()
    assert here.pool(1)["stale"] == 2
    here.beat()
    assert not untouched()


def test_when_heartbeats_end_connections_become_untouched_and_none_fails(here: Steered, ports: dict[str, int]) -> None:
    here.steer(1, Frontend(VIP, ports["proxy"]), {endpoint("a", ports): 1.0})
    client = here.client()
    seen: dict[str, int] = {}

    def proxied() -> bool:
        answers = client.answers(VIP, ports["proxy"], 20)
        for name, count in answers.items():
            seen[name] = seen.get(name, 0) + count
        return "proxy" in answers

    wait_until(proxied)
    assert set(seen) == {"a", "proxy"}
    assert here.pool(1)["stale"] == seen["proxy"]


def test_under_64_connectors_a_new_table_counts_from_the_moment_it_is_put(here: Steered, ports: dict[str, int]) -> None:
    frontend = Frontend(VIP, ports["proxy"])
    a, b, c = (endpoint(name, ports) for name in "abc")
    here.steer(1, frontend, {a: 1.0})
    client = here.client()
    until_s = time.monotonic() + 3.0
    client.begin(family=4, address=VIP, port=ports["proxy"], threads=64, until_s=until_s, timed=True)
    changes: list[tuple[float, float, str]] = []  # begun, done, who may be reached from then on
    while time.monotonic() < until_s:
        weights, names = (({b: 1.0, c: 2.0}, "bc"), ({a: 1.0}, "a"))[len(changes) % 2]
        begun_s = time.monotonic()
        here.steer(1, frontend, weights)
        changes.append((begun_s, time.monotonic(), names))
        time.sleep(0.15)
    timed = client.result()["timed"]
    assert {answer for _, _, answer in timed} <= {"a", "b", "c"}  # none failed, none was untouched
    next_s = [begun_s for begun_s, _, _ in changes[1:]] + [float("inf")]
    between = [
        (answer, names)
        for (_, done_s, names), until_s in zip(changes, next_s, strict=True)
        for began_s, ended_s, answer in timed
        if done_s <= began_s and ended_s <= until_s
    ]
    assert {names for _, names in between} == {"a", "bc"}
    assert [(answer, names) for answer, names in between if answer not in names] == []


def test_connections_end_with_their_pod_and_new_ones_go_elsewhere_with_the_next_table(
    here: Steered, ports: dict[str, int]
) -> None:
    port = here.servers.listen("mortal", "127.0.1.9")
    frontend = Frontend(VIP, ports["proxy"])
    here.steer(1, frontend, {("127.0.1.9", port, 9): 1.0})
    client = here.client()
    assert client.answers(VIP, ports["proxy"], 3, hold=True) == {"mortal": 3}
    here.servers.kill("mortal")
    assert set(client.ask(close=True)["held"]) <= {"end", "ConnectionResetError"}
    assert client.answers(VIP, ports["proxy"], 1) == {"error ConnectionRefusedError": 1}  # it is not known yet
    here.steer(1, frontend, {endpoint("a", ports): 1.0})
    assert client.answers(VIP, ports["proxy"], 20) == {"a": 20}


def to_port(before: int, after: int) -> bytes:
    """A program of somebody else's that replaces one port by another: if (ctx->user_port == before) it = after."""
    instructions = (
        (0xB7, 0x00, 0, 1),  # r0 = 1
        (0x61, 0x12, 24, 0),  # r2 = ctx->user_port
        (0x55, 0x02, 2, port_word(before)),  # if r2 != before goto exit
        (0xB7, 0x03, 0, port_word(after)),  # r3 = after
        (0x63, 0x31, 24, 0),  # ctx->user_port = r3
        (0x95, 0x00, 0, 0),  # exit
    )
    return b"".join(struct.pack("<BBhi", *one) for one in instructions)


def test_programs_of_others_before_and_after_do_their_work_too(here: Steered, ports: dict[str, int]) -> None:
    address, _, index = endpoint("a", ports)
    inner = here.servers.listen("inner", address)
    here.steer(1, Frontend(VIP, ports["proxy"]), {(address, ports["a"], index): 1.0})
    nested = here.cgroup("nested")
    hook = steer_pins.CONNECT4
    with ExitStack() as foreign:
        # a cgroup's own programs run before those of the cgroups around it: this one makes what ours knows
        foreign.enter_context(attached(to_port(9, ports["proxy"]), hook, nested))
        client = here.client(nested)
        assert client.answers(VIP, 9, 3) == {"a": 3}
        # and this one, attached later where ours is, sees what ours made
        foreign.enter_context(attached(to_port(ports["a"], inner), hook, here.node.cgroup))
        assert client.answers(VIP, 9, 3) == {"inner": 3}
        assert client.answers(VIP, ports["proxy"], 3) == {"inner": 3}
    assert client.answers(VIP, ports["proxy"], 3) == {"a": 3}
    here.servers.kill("inner")


def test_a_second_client_process_sees_the_same(here: Steered, ports: dict[str, int]) -> None:
    here.steer(1, Frontend(VIP, ports["proxy"]), {endpoint("a", ports): 1.0})
    clients: list[Client] = [here.client() for _ in range(2)]
    for client in clients:
        client.begin(family=4, address=VIP, port=ports["proxy"], times=50)
    assert [client.result()["answers"] for client in clients] == [{"a": 50}, {"a": 50}]
