"""The flags of `sonde-agent run` that are steering's own, and the forms of their values."""

from __future__ import annotations

import argparse


def origins(text: str) -> tuple[tuple[str, int], ...]:
    found = []
    for part in text.split(","):
        host, _, port = part.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise argparse.ArgumentTypeError(f"{part!r} is no HOST:PORT")
        found.append((host.strip("[]"), int(port)))
    return tuple(found)


def balanced(text: str) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for part in text.split(","):
        service, _, pool = part.partition("=")
        namespace, _, name = service.partition("/")
        if not namespace or not name or not pool or "/" in name + pool:
            raise argparse.ArgumentTypeError(f"{part!r} is no NAMESPACE/SERVICE=POOL")
        if (namespace, pool) in found:
            raise argparse.ArgumentTypeError(
                f"pool {namespace}/{pool} has two Services, {found[namespace, pool]} and {name}"
            )
        found[namespace, pool] = name
    return found


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights-from",
        type=origins,
        default=(),
        metavar="HOST:PORT,...",
        help="controllers' --weights-port, every address of each name: how connections to balanced Services are shared "
        "out; without it, equally among Ready pods (needs load --steer)",
    )
    parser.add_argument(
        "--balance-services",
        type=balanced,
        default={},
        metavar="NAMESPACE/SERVICE=POOL,...",
        help="Services whose connections are steered, beside those that pools name by the annotation "
        "sonde.dev/balance-service (needs load --steer)",
    )
