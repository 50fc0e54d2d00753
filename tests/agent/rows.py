"""Slots for tests, as the kernel would have written them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agent.placing.pods import PodUid, ServingPod
from agent.placing.slots import Owner
from agent.signals import COLUMN, FIELDS, Row
from agent.view import Place, View

S = 1_000_000_000
MS = 1_000_000
NODE = "n1"


def row(**fields: int) -> Row:
    values = [0] * len(FIELDS)
    for name, number in fields.items():
        values[COLUMN[name]] = number
    return values


def rows(*slots: Row) -> npt.NDArray[np.int64]:
    return np.array(slots, np.int64).reshape(-1, len(FIELDS))


def pod(name: str, uid: str | None = "u1", ports: tuple[int, ...] = (8000,), ip: str | None = "10.0.0.1") -> ServingPod:
    return ServingPod("ns", name, PodUid(uid) if uid else None, ip, ports, uid)


def place(name: str, uid: str = "u1", port: int = 8000) -> Place:
    return Place("ns", name, uid, port)


def view_of(*names: str) -> View:
    """A view with a pod for each name, the first on slot 0."""
    view = View(NODE)
    pods = [pod(name, f"u{number}") for number, name in enumerate(names)]
    view.place(pods, {place(name, f"u{number}"): Owner(number, 1) for number, name in enumerate(names)})
    return view
