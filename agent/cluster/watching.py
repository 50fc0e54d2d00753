"""Keeps one collection in step with the API server from a thread of its own: list, watch, and again, for ever.

Owns when to list, when to wait and what to say; refuses to know what objects mean. Whatever happens, what was known
stays until a list or an event says otherwise. Only a resource that is not served any more for ABSENT_S is empty then:
a starting API server answers 404 for custom resources it has not read yet.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlencode

from agent.backoff import backoff_s
from agent.cluster import http
from agent.cluster.access import Access, AccessError
from agent.cluster.http import ApiError, Silence
from agent.cluster.mirror import Document, Expired, Key, Mirror, Refused
from agent.cluster.objects import Object

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collection:
    """What to list and watch."""

    api: str  # v1 or group/version
    kind: str
    plural: str
    namespace: str | None = None  # None: of all namespaces
    labels: str = ""
    fields: str = ""
    needed: bool = False  # not to be served, or refused, does not mean that there are none
    cached: bool = False  # the first list may come from the server's cache, in one page

    @property
    def path(self) -> str:
        root = f"/apis/{self.api}" if "/" in self.api else f"/api/{self.api}"
        return f"{root}/namespaces/{self.namespace}/{self.plural}" if self.namespace else f"{root}/{self.plural}"

    def query(self, **more: str) -> str:
        asked = {"labelSelector": self.labels, "fieldSelector": self.fields, **more}
        return f"{self.path}?{urlencode({key: value for key, value in asked.items() if value})}"

    def __str__(self) -> str:
        chosen = "".join(f" {text}" for text in (self.labels, self.fields) if text)
        return f"{self.plural}.{self.api} in {self.namespace or 'all namespaces'}{chosen}"


@dataclass(frozen=True, slots=True)
class Pace:
    """All times. The server sends a bookmark each minute, so a watch that is silent for longer hangs."""

    read_s: float = 70.0
    list_read_s: float = 30.0
    watch_s: float = 300.0  # asked of the server, shortened by up to a fifth so that watches do not end together
    first_s: float = 0.1  # the first back-off; doubles
    most_s: float = 30.0
    steady_s: float = 5.0  # a watch that lives so long was good, whatever ends it
    absent_s: float = 60.0
    page: int = 500  # objects in a page of a list


@dataclass(slots=True)
class Health:
    """How a watching does; written by its thread, read by others."""

    synced: bool = False
    absent: bool = False  # not served, or not for us: nothing will come
    problem: str = ""
    lists: int = 0
    watches: int = 0
    events: int = 0
    event_at_s: float | None = None


Tell = Callable[[dict[Key, Object | None], bool], None]  # changes; whether they are everything there is


@dataclass(eq=False)
class Watching:
    """Runs in a daemon thread between start() and stop()."""

    access: Access
    collection: Collection
    tell: Tell  # called in the thread
    pace: Pace = field(default_factory=Pace)
    rng: Random = field(default_factory=Random)
    health: Health = field(default_factory=Health)

    def __post_init__(self) -> None:
        self._mirror = Mirror(self.collection.api, self.collection.kind, self._complain)
        self._stopping = threading.Event()
        self._stream: http.Stream | None = None
        self._failures = 0
        self._unrenewed = ""  # why credentials could not be read again the last time
        self._listed_version = ""
        self._absent_since_s: float | None = None
        self._consistent = False  # the next list must not come from a cache
        self._thread = threading.Thread(target=self._run, name=f"watch {self.collection.plural}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends soon; nothing is told any more."""
        self._stopping.set()
        stream = self._stream
        if stream is not None:
            stream.abort()

    def join(self, limit_s: float) -> None:
        self._thread.join(limit_s)

    def _complain(self, text: str) -> None:
        log.warning("%s", text)

    def _run(self) -> None:
        while not self._stopping.is_set():
            began_s, events = time.monotonic(), self.health.events
            asked_s = 0.0
            try:
                self._round()
            except Expired as error:
                self._mirror.version, self._consistent = "", True
                log.info("%s: %s: listing again", self.collection, error)
            except (ApiError, Refused) as error:
                asked_s = self._note(error)
            self._count(time.monotonic() - began_s, self.health.events > events)
            self._stopping.wait(self._delay_s(asked_s))

    def _count(self, lasted_s: float, had_events: bool) -> None:
        """A round that ends soon is a failure, whatever ended it: a server may close each watch at once."""
        self._failures = 0 if lasted_s >= self.pace.steady_s else 1 if had_events else self._failures + 1

    def _delay_s(self, asked_s: float = 0.0) -> float:
        """At least as long as the server asks for, within reason: it may ask for no pause at all, or for a day."""
        own_s = backoff_s(self._failures, self.rng, self.pace.first_s, self.pace.most_s) if self._failures else 0.0
        return max(own_s, min(asked_s, self.pace.most_s) * self.rng.uniform(1.0, 1.2))

    def _round(self) -> None:
        """A list where one is due, then one watch to its end."""
        if not self._mirror.version:
            self._list()
        self._watch()

    def _list(self) -> None:
        self._mirror.replace(self._documents())
        self._mirror.version = self._listed_version
        self.health.lists += 1
        self._consistent = False
        self._recovered()
        self._say(dict(self._mirror.objects()), whole=True)

    def _documents(self) -> Iterator[Document]:
        """All documents, a page in memory at a time; notes the version of the list.

        Only the server's cache has an index over spec.nodeName: without it an agent's list reads every pod of etcd.
        """
        cached = self.collection.cached and not self._consistent and not self.health.lists
        asked = {"resourceVersion": "0"} if cached else {"limit": str(self.pace.page)}
        while True:
            answer = self._get(self.collection.query(**asked))
            metadata, items = answer.get("metadata") or {}, answer.get("items") or []
            if not isinstance(items, list) or not isinstance(metadata, dict):
                raise ApiError("the answer is no list of objects")
            yield from (item for item in items if isinstance(item, dict))
            self._listed_version = str(metadata.get("resourceVersion") or "")
            if not metadata.get("continue"):
                return
            asked = {"limit": str(self.pace.page), "continue": str(metadata["continue"])}

    def _get(self, path: str) -> dict[str, Any]:
        try:
            return http.get(self.access, path, self.pace.list_read_s)
        except ApiError as error:
            if error.status == http.GONE:
                raise Expired(str(error)) from None
            raise

    def _watch(self) -> None:
        lasting_s = max(1, round(self.pace.watch_s * self.rng.uniform(0.8, 1.0)))
        asked = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(lasting_s)}
        path = self.collection.query(resourceVersion=self._mirror.version, **asked)
        try:
            stream = self._stream = http.stream(self.access, path, self.pace.read_s)
        except ApiError as error:
            if error.status == http.GONE:
                raise Expired(str(error)) from None
            raise
        self.health.watches += 1
        try:
            self._follow(stream)
        finally:
            self._stream = None
            stream.close()

    def _follow(self, stream: http.Stream) -> None:
        """A watch that hangs just ends: another one begins where it stood."""
        with contextlib.suppress(Silence):
            for event in stream:
                if self._stopping.is_set():
                    return
                self._take(event)

    def _take(self, event: Document) -> None:
        changes = self._mirror.apply(event)
        self.health.events += 1
        self.health.event_at_s = time.monotonic()
        self._recovered()
        if changes:
            self._say(changes, whole=False)

    def _say(self, changes: dict[Key, Object | None], whole: bool) -> None:
        self.health.synced = True
        if not self._stopping.is_set():
            self.tell(changes, whole)

    def _recovered(self) -> None:
        if self.health.problem:
            log.info("%s: served again", self.collection)
        self.health.problem, self.health.absent, self._absent_since_s = "", False, None

    def _note(self, error: Exception) -> float:
        """Says a new kind of problem once; returns how long the answer asks to wait."""
        if self._stopping.is_set():
            return 0.0
        status = error.status if isinstance(error, ApiError) else None
        kind = f"status {status}" if status else "no answer"
        if not self.health.problem.startswith(kind):
            level = logging.INFO if status == http.NOT_FOUND else logging.WARNING  # most clusters lack some CRD
            log.log(level, "%s: %s; trying on, %s", self.collection, error, self._meanwhile(status))
        self.health.problem = f"{kind}: {error}"
        if status == http.UNAUTHORIZED:
            self._renew()
        if status in (http.NOT_FOUND, http.FORBIDDEN):
            self._absent(status)
        if status in (http.BAD_REQUEST, http.NOT_FOUND) or isinstance(error, Refused):
            self._mirror.version = ""
        return (error.retry_after_s or 0.0) if isinstance(error, ApiError) else 0.0

    def _meanwhile(self, status: int | None) -> str:
        if status == http.NOT_FOUND and not self.health.synced:
            return "without it (its CRD is not installed)"
        if status == http.FORBIDDEN:
            return f"grant get, list and watch of {self.collection.plural} by RBAC"
        return "with the last known state" if self.health.synced else "nothing is known yet"

    def _renew(self) -> None:
        try:
            self.access.renew()
            self._unrenewed = ""
        except AccessError as error:
            if str(error) != self._unrenewed:
                log.warning("%s", error)
            self._unrenewed = str(error)

    def _absent(self, status: int) -> None:
        now_s = time.monotonic()
        if self._absent_since_s is None:
            self._absent_since_s = now_s
        if not self.health.synced and not self.collection.needed:
            self.health.absent = True
            self.tell({}, True)
        elif self.health.synced and status == http.NOT_FOUND and now_s - self._absent_since_s >= self.pace.absent_s:
            self.health.absent = True
            self._mirror.replace(())
            self._say({}, whole=True)
