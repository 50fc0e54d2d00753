"""A cluster kept as a folder of Kubernetes YAML, read again when a file changes.

Owns the last good version of every object; refuses to know what the objects are used for.

Rules. A file that cannot be read or is no YAML keeps all its objects as they last were. In a readable file an object
with a fault keeps its last good version; an object that is no longer there is gone, unless a document of the file
cannot be told (no kind or name), in which case nothing of the file goes. A deleted file takes its objects along. A
file without a byte counts as being written. Of two objects with one name the later one counts, files in the order of
their names. Every fault is one warning per change of its file.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agent.cluster.objects import Cluster, Object, ObjectError, cluster_of, is_told, read_object, title
from agent.ticks import next_tick
from agent.watching import Watch

log = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml", ".json")
# Two writes in one tick of the file system's clock leave the same time stamp, so a file that was read
# this soon after its last change is read once more.
UNSETTLED_NS = 50_000_000
RARELY_S, OFTEN_S = 1.0, 0.2  # between two looks with and without inotify
SETTLE_S = 0.05

# What PyYAML's constructors let through besides their own errors, e.g. for `!!bool maybe` or `!!timestamp never`.
_NO_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Times stay text, as in the API: they are compared, never computed with."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}


Identity = tuple[str, str]  # apiVersion, title


@dataclass(slots=True)
class _File:
    stamp: tuple[int, ...] = ()  # () is no file's, so such a file is read again
    content: bytes = b""
    objects: dict[Identity, Object] = field(default_factory=dict)
    unread: str = ""  # why it could not be read the last time


def _not_told(_folder: str) -> None:
    """Nobody wants to know."""


class Folder:
    """The objects of all YAML and JSON files of a folder and its subfolders; names with a leading dot are skipped."""

    def __init__(self, path: Path | str, on_folder: Callable[[str], None] = _not_told) -> None:
        """`on_folder` is told of each folder before it is listed."""
        self.path = Path(path)
        self._on_folder = on_folder
        self._files: dict[str, _File] = {}
        self._objects: dict[Identity, Object] | None = None
        self._unlisted = ""  # why the folder could not be listed the last time
        self._twice: set[str] = set()

    def read(self) -> Cluster | None:
        """The cluster if an object changed since the last call, else None. The first call always gives one."""
        paths = self._paths()
        changed = self._objects is None
        if paths is not None:
            if paths != list(self._files):
                changed = True
                self._files = {path: self._files.get(path) or _File() for path in paths}
            for path, file in self._files.items():
                changed = _read_file(path, file) or changed
        if not changed:
            return None
        objects = self._merged()
        if objects == self._objects:
            return None
        self._objects = objects
        return cluster_of(list(objects.values()))

    def _paths(self) -> list[str] | None:
        """The files in the order of their names, or None while the folder cannot be listed."""
        found: list[str] = []  # texts: a Path costs more than looking at its file
        try:
            self._on_folder(os.fspath(self.path))
            os.listdir(self.path)  # os.walk is silent about a folder that is not there
            for folder, folders, names in os.walk(self.path):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in folders:
                    self._on_folder(os.path.join(folder, name))
                found += [os.path.join(folder, n) for n in names if n.endswith(SUFFIXES) and not n.startswith(".")]
        except OSError as error:
            problem = str(error.strerror)
            if problem != self._unlisted:
                log.warning("%s: %s: the last good state stays", self.path, problem)
            self._unlisted = problem
            return None
        self._unlisted = ""
        return sorted(found, key=lambda path: path.split(os.sep))

    def _merged(self) -> dict[Identity, Object]:
        merged: dict[Identity, Object] = {}
        twice: set[str] = set()
        for path, file in self._files.items():
            twice |= {f"{path}: {name}: is in an earlier file too" for _, name in file.objects.keys() & merged.keys()}
            merged.update(file.objects)
        for problem in sorted(twice - self._twice):
            log.warning("%s: the later one counts", problem)
        self._twice = twice
        return merged


def _read_file(path: str, file: _File) -> bool:
    """Whether its content is another one."""
    try:
        found = os.stat(path)
        stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
        if stamp == file.stamp:
            return False
        if not stat.S_ISREG(found.st_mode):  # to read a pipe would wait for ever
            raise OSError(errno.EINVAL, "is no regular file")
        content = Path(path).read_bytes()
    except OSError as error:
        problem = str(error.strerror)
        if problem != file.unread:
            log.warning("%s: %s: the last good state stays", path, problem)
        file.unread = problem
        return False
    file.unread = ""
    file.stamp = stamp if time.time_ns() - found.st_mtime_ns > UNSETTLED_NS else ()
    if not content or content == file.content:
        return False
    file.content = content
    _parse(path, file)
    return True


def _parse(path: str, file: _File) -> None:
    try:
        documents = _documents(file.content)
    except _NO_YAML as error:
        log.warning("%s: no YAML: %s: the last good state stays", path, _one_line(error))
        return
    before, after = file.objects, dict[Identity, Object]()
    untold = False
    for document in documents:
        name = title(document)
        try:
            found = read_object(document)
        except ObjectError as error:
            kept = {key: old for key, old in before.items() if key[1] == name and key not in after}
            untold = untold or not is_told(document)
            log.warning("%s: %s%s", path, error, ": the last good version stays" if kept else "")
            after.update(kept)
            continue
        key = (str(document.get("apiVersion")), name) if isinstance(document, dict) else ("", name)
        if key in after:
            log.warning("%s: %s: is there twice, the later one counts", path, name)
        after[key] = found
    file.objects = before | after if untold else after


def _documents(content: bytes) -> list[object]:
    """The documents of a file, with the items of a list (`kubectl get -o yaml`) in its place."""
    documents: list[object] = []
    for document in yaml.load_all(content, Loader=_Loader):  # a SafeLoader
        if document is None:
            continue
        items = _items(document)
        documents += [document] if items is None else items
    return documents


def _items(document: object) -> list[object] | None:
    """Of a List; of a PodList and its like too, whose items need not say what they are, as in the API's own answers."""
    kind = document.get("kind") if isinstance(document, dict) else None
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(kind, str) or not isinstance(items, list):
        return None
    if kind == "List":
        return items
    if not kind.endswith("List"):
        return None
    told = {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List")}
    return [{**told, **item} if isinstance(item, dict) else item for item in items]


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split()) or type(error).__name__
    return f"{getattr(error, 'problem', 'not understood')} in line {mark.line + 1}, column {mark.column + 1}"


async def watch(path: Path | str, interval_s: float | None = None) -> AsyncGenerator[Cluster, None]:
    """Yields the cluster at once, then after each change.

    It looks when inotify tells of something, and each `interval_s` (RARELY_S, where there is no inotify OFTEN_S)
    whatever that tells: not of links' targets, nor of what another host wrote into a shared folder. Files are read in a
    thread, since a big one would hold the loop. A folder that is not there is an empty cluster.
    """
    with _hints() as (told, on_folder):
        interval_s = interval_s or (RARELY_S if on_folder else OFTEN_S)
        folder = Folder(path, on_folder or _not_told)
        while True:
            told.clear()
            cluster = await asyncio.to_thread(folder.read)
            if cluster is not None:
                yield cluster
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_tick(asyncio.get_running_loop().time(), interval_s)):
                    await told.wait()
                await asyncio.sleep(SETTLE_S)  # what is written in one go is read in one


@contextlib.contextmanager
def _hints() -> Iterator[tuple[asyncio.Event, Callable[[str], None] | None]]:
    """What is set when something changed, and what to call for each folder; None where the kernel does not tell."""
    told = asyncio.Event()
    try:
        changes = Watch(files=True)
    except OSError:
        yield told, None
        return

    def drained() -> None:
        if changes.drain():
            told.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(changes.descriptor, drained)
    try:
        yield told, changes.add
    finally:
        loop.remove_reader(changes.descriptor)
        changes.close()
