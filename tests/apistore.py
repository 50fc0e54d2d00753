"""The state of the test API server: objects by collection, and the log of their changes that watches read."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
PLURALS = {
    "Pod": "pods",
    "Secret": "secrets",
    "DaemonSet": "daemonsets",
    "Service": "services",
    "EndpointSlice": "endpointslices",
    "InferencePool": "inferencepools",
    "InferenceModel": "inferencemodels",
    "InferenceObjective": "inferenceobjectives",
    "InferenceModelRewrite": "inferencemodelrewrites",
}


@dataclass(frozen=True)
class Entry:
    version: int
    path: str  # of the collection
    before: Json | None
    after: Json | None  # None: a deletion; both None: a bookmark


class Store:
    """Objects by collection and the log of their changes."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 100
        self.objects: dict[tuple[str, str, str], Json] = {}  # collection, namespace, name
        self.log: list[Entry] = []
        self.oldest = 100  # versions below are gone

    def put(self, document: Json) -> Json:
        """Creates or replaces."""
        with self.changed:
            self.version += 1
            metadata = dict(document["metadata"])
            key = (collection_of(document), metadata.setdefault("namespace", "default"), metadata["name"])
            before = self.objects.get(key)
            kept = before["metadata"] if before else {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}
            metadata = {"uid": kept["uid"], "creationTimestamp": kept["creationTimestamp"], **metadata}
            after = {**document, "metadata": {**metadata, "resourceVersion": str(self.version)}}
            self.objects[key] = after
            self._note(Entry(self.version, key[0], before, after))
            return after

    def delete(self, document: Json) -> None:
        with self.changed:
            metadata = document["metadata"]
            key = (collection_of(document), metadata.get("namespace", "default"), metadata["name"])
            before = self.objects.pop(key)
            self.version += 1
            last = {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.version)}}
            self._note(Entry(self.version, key[0], last, None))

    def bookmark(self) -> None:
        """Something else of the cluster changed; each watch that asked for bookmarks hears of it."""
        with self.changed:
            self.version += 1
            self._note(Entry(self.version, "", None, None))

    def compact(self) -> None:
        """The past is forgotten: who asks for it gets 410."""
        with self.changed:
            self.version += 1
            self.log.clear()
            self.oldest = self.version
            self.changed.notify_all()

    def _note(self, entry: Entry) -> None:
        self.log.append(entry)
        self.changed.notify_all()

    def after(self, version: int) -> list[Entry]:
        return [entry for entry in self.log if entry.version > version]


def collection_of(document: Json) -> str:
    api = document["apiVersion"]
    return f"{'/apis' if '/' in api else '/api'}/{api}/{PLURALS[document['kind']]}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
