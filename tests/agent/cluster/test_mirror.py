"""What lists and events do to what is known; versions, faults and reordered events."""

from __future__ import annotations

from typing import Any

import pytest

from agent.cluster.mirror import DELETED_LIMIT, LONGEST_ANNOTATION, Expired, Mirror, Refused
from agent.cluster.objects import Pod
from tests.kube import pod

Json = dict[str, Any]
A, B = ("default", "a"), ("default", "b")


def at(version: int | str, name: str = "a", **changes: Any) -> Json:
    document = {**pod(name), **changes}
    document["metadata"] = {**document["metadata"], "resourceVersion": str(version), "uid": f"uid-{name}"}
    return document


def event(kind: str, version: int | str, name: str = "a", **changes: Any) -> Json:
    return {"type": kind, "object": at(version, name, **changes)}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def mirror(said: list[str]) -> Mirror:
    return Mirror("v1", "Pod", said.append)


def test_a_list_says_who_is_there_and_events_change_it(mirror: Mirror) -> None:
    mirror.replace([at(5, "a"), at(7, "b")])
    assert set(mirror.objects()) == {A, B}
    assert mirror.apply(event("DELETED", 9, "a")) == {A: None}
    assert set(mirror.apply(event("ADDED", 10, "c"))) == {("default", "c")}
    assert set(mirror.objects()) == {B, ("default", "c")}
    assert mirror.version == "10"


def test_items_of_a_list_need_not_say_their_kind(mirror: Mirror) -> None:
    item = at(5)
    del item["kind"], item["apiVersion"]
    mirror.replace([item])
    assert isinstance(mirror.objects()[A], Pod)


def test_a_change_that_nobody_reads_is_no_change(mirror: Mirror) -> None:
    mirror.replace([at(5)])
    assert mirror.apply(event("MODIFIED", 6)) == {}
    assert mirror.version == "6"


def test_a_bookmark_moves_the_version_only(mirror: Mirror) -> None:
    mirror.replace([at(5)])
    assert mirror.apply({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "90"}}}) == {}
    assert (mirror.version, set(mirror.objects())) == ("90", {A})


@pytest.mark.parametrize(
    ("events", "there"),
    [
        ([("MODIFIED", 8, "2.2.2.2"), ("MODIFIED", 7, "1.1.1.1")], "2.2.2.2"),
        ([("DELETED", 9, ""), ("MODIFIED", 8, "1.1.1.1")], None),
        ([("ADDED", 11, "3.3.3.3"), ("DELETED", 9, "")], "3.3.3.3"),
        ([("DELETED", 9, ""), ("ADDED", 10, "4.4.4.4")], "4.4.4.4"),
    ],
)
def test_events_out_of_order_end_in_the_newest_state(
    mirror: Mirror, events: list[tuple[str, int, str]], there: str | None
) -> None:
    mirror.replace([at(5)])
    for kind, version, ip in events:
        mirror.apply(event(kind, version, status={"podIP": ip or "9.9.9.9"}))
    found = mirror.objects().get(A)
    assert (found.ip if isinstance(found, Pod) else None) == there


def test_an_event_of_another_object_may_be_older_than_the_last_one(mirror: Mirror) -> None:
    mirror.replace([at(5, "a"), at(5, "b")])
    mirror.apply(event("MODIFIED", 8, "a", status={"podIP": "2.2.2.2"}))
    assert set(mirror.apply(event("MODIFIED", 7, "b", status={"podIP": "3.3.3.3"}))) == {B}
    assert mirror.version == "8"


def test_versions_that_are_no_numbers_go_by_the_order_of_events(mirror: Mirror) -> None:
    mirror.replace([at("abc")])
    assert mirror.apply(event("MODIFIED", "aaa", status={"podIP": "2.2.2.2"}))


def test_a_faulty_object_keeps_its_last_good_version_and_is_said_once(mirror: Mirror, said: list[str]) -> None:
    mirror.replace([at(5)])
    for version in (6, 7):
        assert mirror.apply(event("MODIFIED", version, status={"podIP": "nonsense"})) == {}
    assert set(mirror.objects()) == {A}
    assert len(said) == 1
    assert "Pod default/a: status.podIP" in said[0]
    assert "the last good version stays" in said[0]


def test_a_faulty_object_that_was_never_good_hides_no_other(mirror: Mirror, said: list[str]) -> None:
    mirror.replace([at(5, "a", status={"podIP": "nonsense"}), at(5, "b"), {"metadata": 3}, {}])
    assert set(mirror.objects()) == {B}
    assert len(said) == 3


def test_another_object_of_the_name_does_not_inherit_the_good_version(mirror: Mirror) -> None:
    mirror.replace([at(5)])
    other = event("MODIFIED", 6, status={"podIP": "nonsense"})
    other["object"]["metadata"]["uid"] = "another"
    assert mirror.apply(other) == {A: None} or mirror.objects() == {}


def test_errors_end_the_watch(mirror: Mirror) -> None:
    with pytest.raises(Expired):
        mirror.apply({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}})
    with pytest.raises(Refused, match="500"):
        mirror.apply({"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "no"}})
    with pytest.raises(Refused):
        mirror.apply({"type": "ADDED"})


def test_a_list_that_breaks_off_changes_nothing(mirror: Mirror) -> None:
    mirror.replace([at(5, "a")])

    def pages() -> Any:
        yield at(6, "b")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        mirror.replace(pages())
    assert set(mirror.objects()) == {A}


def test_long_annotations_are_not_kept(mirror: Mirror) -> None:
    document = at(5)
    document["metadata"]["annotations"] = {"short": "x", "long": "y" * (LONGEST_ANNOTATION + 1)}
    mirror.replace([document])
    found = mirror.objects()[A]
    assert isinstance(found, Pod)
    assert dict(found.annotations) == {"short": "x"}


def test_what_is_remembered_of_deletions_is_bounded(mirror: Mirror) -> None:
    for number in range(DELETED_LIMIT + 10):
        mirror.apply(event("ADDED", 2 * number + 1, f"p{number}"))
        mirror.apply(event("DELETED", 2 * number + 2, f"p{number}"))
    assert len(mirror._deleted) == DELETED_LIMIT
