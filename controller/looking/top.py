"""`sonde-controller top`: the controller's table as a live table. Reads the running controller's own /state."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from agent.looking import asking, terminal
from agent.looking.columns import Column
from agent.looking.terminal import Feed, Options, Seen
from controller.looking.document import SECONDS

RATE_S = 5.0
Json = dict[str, Any]

COLUMNS = (
    Column("pod", "pod", "text", "its name"),
    Column("node", "node", "text", "it runs on"),
    Column("address", "address", "text", "what a pick answers"),
    Column("in_flight", "in flight", "count", "requests begun and not ended"),
    Column("waiting", "waiting", "count", "of these, nothing of the answer's data sent yet"),
    Column("streaming", "streaming", "count", "of these, the answer is under way"),
    Column("ttft_s", "TTFT", "time", "recent mean time to first token, by the kernel"),
    Column("gap_s", "gap", "time", "recent mean time between two chunks, by the kernel"),
    Column("source", "counted by", "text", "kernel, the engine's page, or own picks only"),
    Column("load", "load", "count", "requests the picks go by: in flight and own picks not yet seen there"),
    Column(
        "price", "price", "number", "what a pick goes by, the lowest gets the next; a state counts before any price"
    ),
    Column("picks", "picks", "count", "requests this controller sent there"),
    Column("kv", "KV", "share", "KV cache in use, as the engine says"),
    Column("utilization", "devices", "share", "mean utilization of its accelerators, where somebody tells", ""),
    Column("stale_s", "stale", "time", "how old the last measurement is, where it is too old to use", ""),
    Column("state", "state", "text", "what speaks against it"),
)


def parse(arguments: Sequence[str]) -> Options:
    """What is wanted. Faults print one line to stderr and exit with status 2."""
    parser = terminal.Parser(
        prog="sonde-controller top",
        description="The endpoints as a running controller knows them: a live table, or lines into a pipe.",
        allow_abbrev=False,
    )
    terminal.add_flags(parser, "127.0.0.1:9090", COLUMNS)
    return terminal.options(parser.parse_args(arguments))


def main(arguments: Sequence[str]) -> int:
    wanted = parse(arguments)
    feed = Feed()
    return terminal.run("sonde-controller top", feed, lambda: follow(feed, wanted), COLUMNS, wanted)


def follow(feed: Feed, wanted: Options) -> None:
    """Asks for ever; what fails is asked again."""
    history: deque[tuple[float, int]] = deque()
    while True:
        try:
            feed.put(seen(asking.state(wanted.address, "controller"), time.monotonic(), history))
        except asking.NoDaemon as fault:
            feed.fail(str(fault))
        except (KeyError, TypeError, AttributeError) as error:
            feed.fail(f"what answers at {wanted.address} is no controller's metrics port ({error})")
        time.sleep(wanted.interval_s)


def seen(document: Json, now: float, history: deque[tuple[float, int]]) -> Seen:
    """A document as rows. Raises KeyError, TypeError or AttributeError for what is none."""
    summary = document["summary"]
    history.append((now, summary["picks"]))
    while len(history) > 2 and history[1][0] <= now - RATE_S:
        history.popleft()
    rows = [row(pod, document["now_s"]) for pod in document["pods"]]
    alarms = frozenset(at for at, one in enumerate(rows) if one["state"])
    facts = {"summary": summary, "nodes": document["nodes"]}
    return Seen([_title(document, rows, history), _last(document)], facts, rows, now, alarms)


def row(pod: Mapping[str, Any], now_s: float) -> Json:
    silent_at_s = pod["silent_at_s"]
    against = [pod["state"]] if pod["state"] != "fine" else []
    if silent_at_s is not None:
        against[0] += f" {max(0.0, now_s - silent_at_s):.1f} s"
    against += [name for name, holds in (("unready", not pod["ready"]), ("terminating", pod["terminating"])) if holds]
    against += [pod["fault"]] if pod["fault"] else []
    return {
        **{name: pod[name] for name in ("pod", "namespace", "node", "port", "address")},
        **{name: pod[name] for name in ("in_flight", "waiting", "streaming", "ttft_s", "gap_s", "source", "load")},
        "price": pod["rank"],
        "picks": sum(pod["picks"].values()),
        "kv": pod["kv_cache_usage"],
        **_devices(pod["devices"], now_s),
        "stale_s": _age_s(pod["stale_at_s"], now_s),
        "state": ", ".join(against),
    }


def _devices(devices: Sequence[Json], now_s: float) -> Json:
    told = [one["utilization"] for one in devices if one["utilization"] is not None]
    return {
        "utilization": sum(told) / len(told) if told else None,
        "devices": [_device(one, now_s) for one in devices],
    }


def _device(one: Json, now_s: float) -> Json:
    told = {name: None if value == "" else value for name, value in one.items() if name != "at_s"}
    return {**told, "age_s": _age_s(one["at_s"], now_s)}


def _age_s(at_s: float | None, now_s: float) -> float | None:
    return None if at_s is None else round(max(0.0, now_s - at_s), 1)


def _title(document: Json, rows: Sequence[Json], history: Sequence[tuple[float, int]]) -> str:
    summary, nodes = document["summary"], document["nodes"]
    ready = sum(pod["ready"] and not pod["terminating"] for pod in document["pods"])
    known = [one["in_flight"] for one in rows if one["in_flight"] is not None]
    told = [
        f"sonde-controller  pool {summary['namespace']}/{summary['pool']}"
        + ("" if summary["known"] else " IS NOT THERE"),
        f"rule {summary['policy']} (price in {summary['price_unit']})",
        f"{ready} of {len(rows)} ready",
        f"{sum(known)} in flight" if known or not rows else "in flight unknown",
        f"{sum(node['live'] for node in nodes)} of {len(nodes)} agents live",
        f"{summary['picks']} picks{_rate(history)}",
    ]
    silent = [f"{one['name']} silent {one['heard_age_s']:.0f} s" for one in nodes if _is_silent(one)]
    return "  ".join(told + silent)


def _is_silent(node: Mapping[str, Any]) -> bool:
    return not node["live"] and node["heard_age_s"] is not None


def _rate(history: Sequence[tuple[float, int]]) -> str:
    (began_s, before), (now_s, after) = history[0], history[-1]
    return f" ({(after - before) / (now_s - began_s):.1f}/s)" if now_s > began_s and after >= before else ""


def _last(document: Json) -> str:
    if not document["picks"]:
        return "no pick yet"
    pick, unit = document["picks"][0], document["summary"]["price_unit"]
    others = ", ".join(f"{one['pod']} for {_cost(one, unit)}" for one in pick["alternatives"])
    age_s = max(0.0, document["now_s"] - pick["at_s"])
    return f"last pick {age_s:.1f} s ago: {pick['pod']} for {_cost(pick, unit)} ({pick['reason']})" + (
        f", not {others}" if others else ""
    )


def _cost(one: Mapping[str, Any], unit: str) -> str:
    price = f"{one['rank'] * 1e3:.0f} ms" if unit == SECONDS else f"{one['rank']:g}"
    return " ".join((price, *one["against"]))
