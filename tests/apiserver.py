"""A small Kubernetes API server for tests: lists with pages, watches with bookmarks, and every way it may misbehave.

Speaks resourceVersion, selectors (an object that stops matching is DELETED for that watch), continue tokens, 410,
bearer tokens and TLS, as kube-apiserver does. Faults are put in a queue; each request takes the first that fits it.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.apistore import Entry, Json, Store

WAIT_S = 0.5  # how soon a waiting watch sees that the server stops


@dataclass
class Fault:
    """What happens to the next request that `fits` (a piece of its path and query)."""

    fits: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False  # no byte of an answer until the server stops
    silent: bool = False  # a watch that begins and then says nothing
    cut: bool = False  # the connection ends in the middle of the first event
    rubbish: bytes = b""  # sent in place of the answer's body
    end: bool = False  # a watch that ends at once, in order
    swap: bool = False  # the first two events in reverse
    slow_s: float = 0.0  # before each byte of the first 64
    once: bool = True


@dataclass(frozen=True)
class Asked:
    """A request's collection and what of it is wanted."""

    collection: str
    namespace: str | None
    name: str | None
    query: dict[str, str]

    def matches(self, value: Json | None) -> bool:
        if value is None or (self.namespace and value["metadata"]["namespace"] != self.namespace):
            return False
        labels, spec = value["metadata"].get("labels", {}), value.get("spec", {})
        fields = {"metadata.name": value["metadata"]["name"], "spec.nodeName": spec.get("nodeName", "")}
        return _holds(self.query.get("labelSelector"), labels) and _holds(self.query.get("fieldSelector"), fields)

    def event(self, entry: Entry) -> Json | None:
        """How a watch with this selector sees a change."""
        if entry.before is None and entry.after is None:
            if self.query.get("allowWatchBookmarks") != "true":
                return None
            return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(entry.version)}}}
        if entry.path != self.collection:
            return None
        was, now = self.matches(entry.before), self.matches(entry.after)
        if now:
            return {"type": "MODIFIED" if was else "ADDED", "object": entry.after}
        return {"type": "DELETED", "object": self._gone(entry)} if was else None

    @staticmethod
    def _gone(entry: Entry) -> Json:
        assert entry.before is not None
        return {**entry.before, "metadata": {**entry.before["metadata"], "resourceVersion": str(entry.version)}}


def _holds(selector: str | None, values: dict[str, str]) -> bool:
    wanted = [part.partition("=") for part in (selector or "").split(",") if part]
    return all(values.get(key) == value for key, _, value in wanted)


def asked(target: str) -> Asked:
    split = urlsplit(target)
    parts = split.path.strip("/").split("/")
    root = parts[: 3 if parts[0] == "apis" else 2]
    rest = parts[len(root) :]
    namespace = None
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    query = {key: values[0] for key, values in parse_qs(split.query).items()}
    return Asked("/" + "/".join([*root, rest[0]]), namespace, rest[1] if len(rest) > 1 else None, query)


class ApiServer:
    """Serves a store on loopback until stopped. `absent`: collections that are not served (a CRD is missing)."""

    def __init__(
        self,
        token: str = "",
        tls: tuple[Path, Path] | None = None,
        port: int = 0,
        store: Store | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.store = store or Store()
        self.token = token
        self.absent: set[str] = set()
        self.forbidden: set[str] = set()
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer((host, port), _handler(self))
        self._server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def put(self, document: Json) -> None:
        self.store.put(document)

    def delete(self, document: Json) -> None:
        self.store.delete(document)

    def take_fault(self, target: str) -> Fault:
        for fault in self.faults:
            if fault.fits in target:
                if fault.once:
                    self.faults.remove(fault)
                return fault
        return Fault()

    def stop(self) -> None:
        if self.stopping.is_set():
            return
        self.stopping.set()
        with self.store.changed:
            self.store.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serving(**options: Any) -> Iterator[ApiServer]:
    server = ApiServer(**options)
    try:
        yield server
    finally:
        server.stop()


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Bound(_Handler):
        api = server

    return Bound


class _Handler(BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        api = self.api
        api.requests.append(self.path)
        fault = api.take_fault(self.path)
        if fault.hang:
            api.stopping.wait()
            self.close_connection = True
        elif fault.status:
            self._status(fault.status, "as the test wants it", fault.headers)
        elif fault.rubbish:
            self._send(200, fault.rubbish)
        else:
            self._answer(asked(self.path), fault)

    def _answer(self, want: Asked, fault: Fault) -> None:
        refusal = self._refusal(want, fault)
        if refusal:
            self._status(*refusal, {})
        elif "watch" in want.query:
            self._watch(want, fault)
        elif want.name:
            self._one(want)
        else:
            self._list(want, fault)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        want = asked(self.path)
        refusal = self._refusal(want, self.api.take_fault("POST " + self.path))
        if refusal:
            return self._status(*refusal, {})
        document = json.loads(body)
        document["metadata"].setdefault("namespace", want.namespace or "default")
        key = (want.collection, document["metadata"]["namespace"], document["metadata"]["name"])
        if key in self.api.store.objects:
            return self._status(409, "AlreadyExists", {})
        return self._send(201, json.dumps(self.api.store.put(document)).encode())

    def do_PUT(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["content-length"])))
        want = asked(self.path)
        refusal = self._refusal(want, self.api.take_fault("PUT " + self.path))
        if refusal:
            return self._status(*refusal, {})
        held = self.api.store.objects.get((want.collection, want.namespace or "default", want.name or ""))
        if held is None:
            return self._status(404, "not found", {})
        if (
            document["metadata"].get("resourceVersion", held["metadata"]["resourceVersion"])
            != (held["metadata"]["resourceVersion"])
        ):
            return self._status(409, "the object has been modified", {})
        return self._send(200, json.dumps(self.api.store.put(document)).encode())

    def _refusal(self, want: Asked, fault: Fault) -> tuple[int, str] | None:
        if fault.status:
            return fault.status, "as the test wants it"
        if self.api.token and self.headers.get("authorization", "").lower() != f"bearer {self.api.token}".lower():
            return 401, "Unauthorized"
        if want.collection in self.api.absent:
            return 404, "the server could not find the requested resource"
        if want.collection in self.api.forbidden:
            return 403, f"{want.collection} is forbidden"
        return None

    def _status(self, code: int, message: str, headers: dict[str, str]) -> None:
        self._send(code, json.dumps({"kind": "Status", "code": code, "message": message}).encode(), headers)

    def _send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _one(self, want: Asked) -> None:
        found = self.api.store.objects.get((want.collection, want.namespace or "default", want.name or ""))
        self._send(200, json.dumps(found).encode()) if found else self._status(404, "not found", {})

    def _list(self, want: Asked, fault: Fault) -> None:
        store = self.api.store
        with store.changed:
            found = [one for key, one in sorted(store.objects.items()) if key[0] == want.collection]
            version = store.version
        found = [one for one in found if want.matches(one)]
        begun = want.query.get("continue", "").split(".")
        start = int(begun[0] or 0)
        if begun[0]:
            version = int(begun[1])
            if version < store.oldest:
                return self._status(410, "The provided continue parameter is too old", {})
        end = start + int(want.query.get("limit") or len(found) + 1)
        metadata = {"resourceVersion": str(version)}
        if end < len(found):
            metadata["continue"] = f"{end}.{version}"
        items = [{k: v for k, v in one.items() if k not in ("kind", "apiVersion")} for one in found[start:end]]
        self._deliver(json.dumps({"kind": "List", "metadata": metadata, "items": items}).encode(), fault)

    def _deliver(self, body: bytes, fault: Fault) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for at in range(0, 64 if fault.slow_s else 0):
            self.wfile.write(body[at : at + 1])
            self.wfile.flush()
            time.sleep(fault.slow_s)
        self.wfile.write(body[64 if fault.slow_s else 0 :])

    def _watch(self, want: Asked, fault: Fault) -> None:
        since = int(want.query.get("resourceVersion") or 0)
        self.close_connection = True  # a watch's connection is not used again
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            if since < self.api.store.oldest:
                status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                self._chunk(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            elif fault.silent:
                self.api.stopping.wait()
            elif not fault.end:
                self._events(want, since, fault)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the client left

    def _events(self, want: Asked, since: int, fault: Fault) -> None:
        until_s = time.monotonic() + float(want.query.get("timeoutSeconds") or 1800)
        held: list[bytes] = []
        for entry in self._entries(since, until_s):
            event = want.event(entry)
            if event is None:
                continue
            line = json.dumps(event).encode() + b"\n"
            if fault.cut:
                self._chunk(line[: len(line) // 2])
                raise ConnectionResetError
            held.append(line)
            if fault.swap and len(held) < 2:
                continue
            fault.swap = False
            for each in reversed(held):
                self._chunk(each)
            held.clear()

    def _entries(self, since: int, until_s: float) -> Iterator[Entry]:
        store = self.api.store
        while time.monotonic() < until_s and not self.api.stopping.is_set():
            with store.changed:
                if not store.after(since):
                    store.changed.wait(min(WAIT_S, max(0.0, until_s - time.monotonic())))
                found = store.after(since)
            for entry in found:
                since = entry.version
                yield entry

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()
