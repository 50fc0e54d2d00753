"""The live page's events: from one document to the next only what changed. Pure.

A viewer names the version it has. One that is a version behind gets the bytes made for all; one that read slowly gets
what changed since, or everything if endpoints came or went meanwhile. So nothing is kept for any viewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from controller.looking.document import AgentLine, Document, Lines, PickLine, PodLine, Summary

_encode = msgspec.json.Encoder().encode


class _Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """What changed. `picks` None: as they were."""

    now_s: float
    summary: Summary
    nodes: tuple[AgentLine, ...]
    pods: tuple[PodLine, ...]
    picks: tuple[PickLine, ...] | None = None


class _Full(msgspec.Struct, frozen=True):
    now_s: float
    summary: Summary
    nodes: tuple[AgentLine, ...]
    pods: tuple[PodLine, ...]
    picks: tuple[PickLine, ...]
    lines: Lines
    line_step_s: float


@dataclass(frozen=True, slots=True)
class Edition:
    """One version of the document. Immutable, so that any thread may make events of it."""

    version: int
    document: Document
    lines: Lines
    line_step_s: float
    changed: tuple[int, ...]  # for each pod of the document, the version it last changed in
    members: int  # the version in which endpoints last came or went
    picked: int  # the version in which the last picks changed
    step: bytes  # the event for who has the version before

    def event(self, seen: int) -> bytes:
        """What a viewer needs that has version `seen`; 0: nothing yet."""
        if seen < self.members:
            return self._full()
        return self.step if seen == self.version - 1 else self._since(seen)

    def _full(self) -> bytes:
        now = self.document
        full = _Full(now.now_s, now.summary, now.nodes, now.pods, now.picks, self.lines, self.line_step_s)
        return _event(b"full", self.version, _encode(full))

    def _since(self, seen: int) -> bytes:
        pods = tuple(pod for pod, at in zip(self.document.pods, self.changed, strict=True) if at > seen)
        return _step(self.version, self.document, pods, self.picked > seen)


def first(version: int, document: Document, lines: Lines, line_step_s: float) -> Edition:
    """The edition that nobody has a predecessor of."""
    versions = (version,) * len(document.pods)
    return Edition(version, document, lines, line_step_s, versions, version, version, b"")


def following(before: Edition, document: Document, lines: Lines) -> Edition:
    """The edition after another one."""
    version = before.version + 1
    old, new = before.document, document
    if [pod.id for pod in old.pods] != [pod.id for pod in new.pods]:
        return first(version, document, lines, before.line_step_s)
    changed = tuple(
        at if was == pod else version for was, pod, at in zip(old.pods, new.pods, before.changed, strict=True)
    )
    pods = tuple(pod for pod, at in zip(new.pods, changed, strict=True) if at == version)
    picked = before.picked if old.picks == new.picks else version
    step = _step(version, document, pods, picked == version)
    return Edition(version, document, lines, before.line_step_s, changed, before.members, picked, step)


def _step(version: int, now: Document, pods: tuple[PodLine, ...], picked: bool) -> bytes:
    step = _Step(now.now_s, now.summary, now.nodes, pods, now.picks if picked else None)
    return _event(b"step", version, _encode(step))


def _event(name: bytes, version: int, data: bytes) -> bytes:
    """JSON has no line ends outside of strings, and inside they are escaped: one `data:` line holds all of it."""
    return b"event: %s\nid: %d\ndata: %s\n\n" % (name, version, data)
