"""Keeps the pods of one node in step with its kubelet instead of the API server: asks for /pods again and again.

For clusters where each watch on the API server counts. Same face as a Watching; what was known stays while kubelet
does not answer. The answer has no version, so each one is a complete list.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from agent.cluster import http
from agent.cluster.access import Access, AccessError
from agent.cluster.http import ApiError
from agent.cluster.mirror import Mirror
from agent.cluster.watching import Collection, Health, Tell

log = logging.getLogger(__name__)

PATH = "/pods"
INTERVAL_S = 5.0
READ_S = 10.0
KUBELET = Collection("v1", "Pod", "pods", needed=True)


@dataclass(eq=False)
class Polling:
    """Runs in a daemon thread between start() and stop()."""

    access: Access
    tell: Tell  # called in the thread
    interval_s: float = INTERVAL_S
    collection: Collection = KUBELET
    health: Health = field(default_factory=Health)

    def __post_init__(self) -> None:
        self._mirror = Mirror(KUBELET.api, KUBELET.kind, lambda text: log.warning("%s", text))
        self._stopping = threading.Event()
        self._unrenewed = ""  # why credentials could not be read again the last time
        self._thread = threading.Thread(target=self._run, name="kubelet's pods", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def join(self, limit_s: float) -> None:
        self._thread.join(limit_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._ask()
            except ApiError as error:
                self._note(error)
            self._stopping.wait(self.interval_s)

    def _ask(self) -> None:
        items = http.get(self.access, PATH, READ_S).get("items") or []
        if not isinstance(items, list):
            raise ApiError("the answer is no list of objects")
        before = self._mirror.objects()
        self._mirror.replace(item for item in items if isinstance(item, dict))
        if self.health.problem:
            log.info("kubelet at %s: answers again", self.access.host)
        self.health.problem, self.health.lists = "", self.health.lists + 1
        self.health.event_at_s = time.monotonic()
        now = self._mirror.objects()
        if (now != before or not self.health.synced) and not self._stopping.is_set():
            self.health.synced = True
            self.tell(dict(now), True)

    def _note(self, error: ApiError) -> None:
        if not self.health.problem and not self._stopping.is_set():
            log.warning("kubelet at %s: %s; trying on, with the last known pods", self.access.host, error)
        self.health.problem = str(error)
        if error.status == http.UNAUTHORIZED:
            self._renew()

    def _renew(self) -> None:
        try:
            self.access.renew()
            self._unrenewed = ""
        except AccessError as error:
            if str(error) != self._unrenewed:
                log.warning("%s", error)
            self._unrenewed = str(error)
