"""The last known state of one collection of objects, kept by lists and watch events. Pure.

An object that cannot be read keeps its last good version. An event that is older than what is known of its object
(a server behind a balancer may lag) changes nothing: versions of one object are compared, as far as they are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.cluster.objects import Object, ObjectError, read_object, title

Key = tuple[str, str]  # namespace, name
Document = Mapping[str, Any]

LONGEST_ANNOTATION = 1024  # characters; longer ones (last-applied-configuration) are of no use here and would be kept
DELETED_LIMIT = 4096  # versions of deleted objects that are remembered


class Expired(Exception):
    """The server no longer knows the version: list again."""


class Refused(Exception):
    """The server ended the watch with an error; the text says which."""


@dataclass(slots=True)
class _Known:
    version: str
    object: Object | None  # None: never had a good version


class Mirror:
    def __init__(self, api: str, kind: str, complain: Callable[[str], None]) -> None:
        self._told = {"apiVersion": api, "kind": kind}
        self._complain = complain
        self._known: dict[Key, _Known] = {}
        self._deleted: dict[Key, str] = {}
        self._faults: dict[Key, str] = {}
        self.version = ""  # from which to watch; "" where a list must come first

    def objects(self) -> dict[Key, Object]:
        return {key: known.object for key, known in self._known.items() if known.object is not None}

    def replace(self, documents: Iterable[Document]) -> None:
        """A complete list: what is not in it is gone. Documents that raise meanwhile leave everything as it was."""
        known: dict[Key, _Known] = {}
        for document in documents:
            key = key_of(document)
            if key is None:
                self._complain("an object without a name: ignored")
                continue
            known[key] = self._read(key, document, self._known.get(key))
        self._known = known
        self._deleted.clear()
        self._faults = {key: text for key, text in self._faults.items() if key in known}

    def apply(self, event: Document) -> dict[Key, Object | None]:
        """What one watch event changes: objects by key, None for one that is gone. Raises Expired or Refused."""
        kind, document = event.get("type"), event.get("object")
        if not isinstance(document, Mapping):
            raise Refused(f"a watch event of type {kind!r} without an object")
        if kind == "ERROR":
            raise _error_of(document)
        version = version_of(document)
        self.version = _newer(version, self.version)
        if kind == "BOOKMARK":
            return {}
        key = key_of(document)
        if key is None or kind not in ("ADDED", "MODIFIED", "DELETED"):
            self._complain(f"a watch event of type {kind!r} that is not understood: ignored")
            return {}
        return self._delete(key, version) if kind == "DELETED" else self._put(key, document, version)

    def _put(self, key: Key, document: Document, version: str) -> dict[Key, Object | None]:
        known = self._known.get(key)
        last = known.version if known else self._deleted.get(key, "")
        if not _is_newer(version, last):
            return {}
        self._deleted.pop(key, None)
        now = self._known[key] = self._read(key, document, known)
        before = known.object if known else None
        return {key: now.object} if now.object != before else {}

    def _delete(self, key: Key, version: str) -> dict[Key, Object | None]:
        known = self._known.get(key)
        if known is not None and not _is_newer(version, known.version, same=True):
            return {}
        self._known.pop(key, None)
        self._faults.pop(key, None)
        self._deleted[key] = version
        if len(self._deleted) > DELETED_LIMIT:
            del self._deleted[next(iter(self._deleted))]
        return {key: None} if known and known.object is not None else {}

    def _read(self, key: Key, document: Document, known: _Known | None) -> _Known:
        last = known.object if known else None
        try:
            found: Object | None = read_object({**self._told, **_slim(document)})
        except ObjectError as error:
            fault = f"{error}{': the last good version stays' if last else ''}"
            if self._faults.get(key) != fault:
                self._complain(fault)
            self._faults[key] = fault
            found = _surviving(last, document)
        else:
            self._faults.pop(key, None)
        return _Known(version_of(document), found)


def _surviving(last: Object | None, document: Document) -> Object | None:
    """A good version outlives faults, but not the object: one of the same name with another uid is another."""
    uid = getattr(last, "uid", None)
    return last if uid is None or uid == _metadata(document).get("uid") else None


def _slim(document: Document) -> dict[str, Any]:
    """The document without what would only be carried about."""
    metadata = document.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping) or not isinstance(annotations, Mapping):
        return dict(document)
    kept = {k: v for k, v in annotations.items() if not isinstance(v, str) or len(v) <= LONGEST_ANNOTATION}
    return {**document, "metadata": {**metadata, "annotations": kept}}


def _error_of(status: Document) -> Exception:
    code, message = status.get("code"), status.get("message") or status.get("reason")
    if code == 410 or status.get("reason") == "Expired":
        return Expired(f"the watch's version is gone: {message}")
    return Refused(f"the server ended the watch: {title(status)} {code}: {message}")


def _metadata(document: Document) -> Mapping[str, Any]:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def key_of(document: Document) -> Key | None:
    metadata = _metadata(document)
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not isinstance(name, str) or not name:
        return None
    return (namespace if isinstance(namespace, str) and namespace else "default", name)


def version_of(document: Document) -> str:
    version = _metadata(document).get("resourceVersion")
    return version if isinstance(version, str) else ""


def _is_newer(version: str, than: str, same: bool = False) -> bool:
    """Versions that are no numbers tell nothing, so the later event counts."""
    if not (version.isascii() and version.isdigit() and than.isascii() and than.isdigit()):
        return True
    return int(version) > int(than) or (same and int(version) == int(than))


def _newer(version: str, than: str) -> str:
    return version if version and _is_newer(version, than) else than
