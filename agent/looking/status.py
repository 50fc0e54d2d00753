"""`sonde-agent status`: what the agent on this node knows, as JSON or as a table, by its health port."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from agent.config import StatusConfig

TIMEOUT_S = 5.0
Json = dict[str, Any]


def main(config: StatusConfig) -> int:
    """Returns the exit status: 1 where no agent answers."""
    connection = http.client.HTTPConnection("127.0.0.1", config.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/nodez")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"status {answer.status}")
        node = json.loads(body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.stderr.write(f"sonde-agent status: no agent answers at 127.0.0.1:{config.port}: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(json.dumps(node, indent=2) + "\n" if config.json else "\n".join(table(node)) + "\n")
    return 0


def table(node: Json) -> list[str]:
    """What /nodez says, for people."""
    lines = [f"node {node['node']}   version {node['version']}   watchers {node['watchers']}"]
    lines += ["", *_columns(("POD", "PORT", "LEVEL", "SLOT", "CGROUPS", "IN FLIGHT", "DEVICES"), _pods(node))]
    devices = [*_devices(node)]
    if devices:
        lines += ["", *_columns(("DEVICE", "RESOURCE", "POD", "USED", "MEMORY", "STATE"), devices)]
    if node.get("steering"):
        lines += ["", *_steering(node["steering"])]
    problems = [f"{name}: {text}" for name, text in sorted(node["problems"].items())]
    for title, rows in (("problems", problems), ("last warnings", node["warnings"])):
        if rows:
            lines += ["", f"{title}:", *(f"  {row}" for row in rows)]
    return lines


def _pods(node: Json) -> Iterable[Sequence[str]]:
    for pod in node["pods"]:
        yield (
            f"{pod['namespace']}/{pod['pod']}",
            str(pod["port"]),
            pod["level"],
            _known(pod["slot"]),
            _known(pod["cgroups"]),
            _known(pod["in_flight"]),
            str(len(pod["devices"])),
        )


def _devices(node: Json) -> Iterable[Sequence[str]]:
    seen = set()
    for pod in node["pods"]:
        for one in pod["devices"]:
            name = f"{one['id']}{'::' + one['share'] if one['share'] else ''}"
            if (pod["pod"], name) in seen:
                continue
            seen.add((pod["pod"], name))
            used = one["utilization"]
            memory = one["memory_used_bytes"]
            yield (
                name,
                one["resource"],
                f"{pod['namespace']}/{pod['pod']}",
                "-" if used is None else f"{used:.0%}",
                "-" if memory is None else f"{memory / 2**30:.1f} GiB",
                one["fault"] or ", ".join(one["throttled"]) or "ok",
            )


def _steering(steering: Json) -> Iterable[str]:
    beating = "active" if steering["beating"] else "not active: connections are untouched"
    alone = f"cgroups of clients left alone: {steering['clients_left_alone']}"
    yield f"steering: {beating}; controllers: {steering['controllers']}; {alone}"
    head = ("POOL", "SERVICE", "AT", "WEIGHTS", "STEERED", "UNTOUCHED", "POD", "SHARE", "CONNECTIONS", "RTT")
    rows: list[Sequence[str]] = []
    for pool in steering["pools"]:
        count = pool["connections"]
        first = [
            f"{pool['namespace']}/{pool['pool']}",
            pool["service"],
            ", ".join(pool["frontends"]) or "-",
            pool["weights"],
            _known(count.get("steered")),
            str(sum(value for why, value in count.items() if why != "steered")),
        ]
        for one in pool["endpoints"] or [None]:
            rows.append((*first, *_steered(one)))
            first = [""] * len(first)
    yield from _columns(head, rows)


def _steered(endpoint: Json | None) -> Sequence[str]:
    if endpoint is None:
        return ("-", "-", "-", "-")
    rtt_us = endpoint["rtt_us"]
    trip = "-" if rtt_us is None else f"{rtt_us:.0f} us"
    return (endpoint["pod"] or "-", f"{endpoint['share']:.1%}", str(endpoint["connections"]), trip)


def _known(value: object) -> str:
    return "-" if value is None else str(value)


def _columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
