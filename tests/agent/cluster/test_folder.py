from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from agent.cluster.folder import Folder, watch
from agent.cluster.objects import Cluster
from tests.conftest import run


def pod(name: str, ip: str = "10.0.0.1") -> str:
    return f"""---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  creationTimestamp: 2026-01-01T00:00:00Z
status:
  podIP: {ip}
"""


def addresses(cluster: Cluster | None) -> dict[str, str | None]:
    assert cluster is not None
    return {name: found.ip for (_, name), found in cluster.pods.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_an_empty_folder_is_an_empty_cluster_once(folder: Folder) -> None:
    assert folder.read() == Cluster()
    assert folder.read() is None


def test_objects_of_all_files_and_subfolders_are_one_cluster(folder: Folder) -> None:
    (folder.path / "a.yaml").write_text(pod("a") + pod("b"))
    (folder.path / "sub").mkdir()
    (folder.path / "sub" / "c.yml").write_text(pod("c"))
    (folder.path / "d.json").write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d"}}))
    (folder.path / ".hidden.yaml").write_text(pod("e"))
    (folder.path / "notes.txt").write_text(pod("f"))

    assert addresses(folder.read()).keys() == {"a", "b", "c", "d"}


def test_the_items_of_a_list_are_objects(folder: Folder) -> None:
    items = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}} for name in "ab"]
    (folder.path / "a.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    assert addresses(folder.read()).keys() == {"a", "b"}


def test_the_items_of_a_list_of_one_kind_need_not_say_it(folder: Folder) -> None:
    items = [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}, "kind": "Pod", "apiVersion": "v1"}]
    (folder.path / "a.json").write_text(json.dumps({"apiVersion": "v1", "kind": "PodList", "items": items}))

    assert addresses(folder.read()).keys() == {"a", "b"}


def test_a_changed_a_new_and_a_deleted_file_are_seen(folder: Folder) -> None:
    file = folder.path / "a.yaml"
    file.write_text(pod("a"))
    folder.read()

    file.write_text(pod("a", "10.0.0.2"))
    assert addresses(folder.read()) == {"a": "10.0.0.2"}
    (folder.path / "b.yaml").write_text(pod("b"))
    assert addresses(folder.read()) == {"a": "10.0.0.2", "b": "10.0.0.1"}
    file.unlink()
    assert addresses(folder.read()) == {"b": "10.0.0.1"}


def test_a_change_that_leaves_time_and_size_alike_is_seen(folder: Folder) -> None:
    file = folder.path / "a.yaml"
    file.write_text(pod("a", "10.0.0.1"))
    stat = file.stat()
    folder.read()
    file.write_text(pod("a", "10.0.0.2"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert addresses(folder.read()) == {"a": "10.0.0.2"}


def test_a_touched_file_is_no_change(folder: Folder) -> None:
    file = folder.path / "a.yaml"
    file.write_text(pod("a"))
    folder.read()
    os.utime(file)

    assert folder.read() is None


def test_a_file_that_is_no_yaml_keeps_its_objects_and_is_one_line(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    file = folder.path / "a.yaml"
    file.write_text(pod("a"))
    folder.read()
    file.write_text("a: [1,\nb: }")

    assert folder.read() is None
    assert folder.read() is None
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{file}: no YAML: ")
    assert "line 2" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_bytes_that_are_no_text_are_one_line(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    (folder.path / "a.yaml").write_bytes(b"\xff\xfe\x00\x01\x80")

    assert folder.read() == Cluster()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("text", ["a: !!bool maybe", "a: !!timestamp never", "a: !!int ''", "? [b]\n: c", "a: &x [*x"])
def test_values_that_cannot_be_what_they_claim_are_one_line(
    text: str, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.path / "a.yaml").write_text(text)

    assert folder.read() == Cluster()
    (record,) = caplog.records
    assert "a.yaml: no YAML: " in record.getMessage()


def test_a_number_too_long_to_be_written_is_one_line(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    text = f"{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{ports: [{{port: 0x{'f' * 5000}}}]}}}}"
    (folder.path / "a.yaml").write_text(f"{text}\n---\n{pod('a')}")

    assert addresses(folder.read()).keys() == {"a"}
    (record,) = caplog.records
    assert "spec.ports[0].port: expected a whole number 1..65535, got a number of" in record.getMessage()


def test_a_pipe_is_not_waited_for(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(folder.path / "a.yaml")

    assert folder.read() == Cluster()
    assert folder.read() is None
    (record,) = caplog.records
    assert "is no regular file" in record.getMessage()


def test_a_faulty_object_keeps_its_last_good_version_beside_its_neighbours(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    file = folder.path / "a.yaml"
    file.write_text(pod("a") + pod("b"))
    folder.read()
    file.write_text(pod("a", "nowhere") + pod("b", "10.0.0.9"))

    assert addresses(folder.read()) == {"a": "10.0.0.1", "b": "10.0.0.9"}
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{file}: Pod default/a: status.podIP: expected an IP address, got 'nowhere': the last good version stays"
    )
    assert record.levelno == logging.WARNING


def test_an_unknown_kind_is_one_line_and_hurts_nobody(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    (folder.path / "a.yaml").write_text(pod("a") + "---\nkind: Gadget\nmetadata: {name: g}\n")

    assert addresses(folder.read()).keys() == {"a"}
    folder.read()
    (record,) = caplog.records
    assert "Gadget default/g: kind: unknown" in record.getMessage()


def test_a_document_that_cannot_be_told_lets_nothing_go(folder: Folder) -> None:
    file = folder.path / "a.yaml"
    file.write_text(pod("a") + pod("b"))
    folder.read()
    file.write_text(pod("a") + "---\nkind: Pod\nmetadata: {}\n")

    assert folder.read() is None


def test_an_object_that_left_its_file_is_gone(folder: Folder) -> None:
    file = folder.path / "a.yaml"
    file.write_text(pod("a") + pod("b"))
    folder.read()
    file.write_text(pod("a"))

    assert addresses(folder.read()).keys() == {"a"}


def test_a_file_without_a_byte_counts_as_being_written(folder: Folder) -> None:
    file = folder.path / "a.yaml"
    file.write_text(pod("a"))
    folder.read()
    file.write_text("")

    assert folder.read() is None


def test_a_folder_that_goes_away_keeps_the_last_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.yaml").write_text(pod("a"))
    folder = Folder(tmp_path / "in")
    folder.read()
    (tmp_path / "in").rename(tmp_path / "out")

    assert folder.read() is None
    assert folder.read() is None
    assert len(caplog.records) == 1


def test_the_later_file_counts_where_two_hold_one_object(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    (folder.path / "a.yaml").write_text(pod("a", "10.0.0.1"))
    (folder.path / "b.yaml").write_text(pod("a", "10.0.0.2"))

    assert addresses(folder.read()) == {"a": "10.0.0.2"}
    folder.read()
    assert len(caplog.records) == 1


def test_a_watch_yields_at_once_and_after_each_change(tmp_path: Path) -> None:
    async def body() -> None:
        clusters = watch(tmp_path, interval_s=0.01)
        assert addresses(await anext(clusters)) == {}
        following = asyncio.ensure_future(anext(clusters))
        (tmp_path / "a.yaml").write_text(pod("a"))
        assert addresses(await following) == {"a": "10.0.0.1"}
        await clusters.aclose()

    run(body())


async def after(clusters: AsyncGenerator[Cluster, None], change: Callable[[], object]) -> dict[str, str | None]:
    """What is yielded after a change."""
    change()
    return addresses(await anext(clusters))


def test_a_change_is_told_of_and_not_waited_for(tmp_path: Path) -> None:
    async def body() -> None:
        clusters = watch(tmp_path, interval_s=3600)
        assert addresses(await anext(clusters)) == {}
        file, sub = tmp_path / "a.yaml", tmp_path / "sub"
        assert await after(clusters, lambda: file.write_text(pod("a"))) == {"a": "10.0.0.1"}
        assert await after(clusters, lambda: file.write_text(pod("a", "10.0.0.2"))) == {"a": "10.0.0.2"}
        (tmp_path / "b.new").write_text(pod("b"))
        assert (await after(clusters, lambda: (tmp_path / "b.new").rename(tmp_path / "b.yaml"))).keys() == {"a", "b"}
        assert (await after(clusters, file.unlink)).keys() == {"b"}
        sub.mkdir()
        (tmp_path / "c.yaml").write_text(pod("c"))
        assert (await anext(clusters)).pods.keys() == {("default", "b"), ("default", "c")}
        written = await after(clusters, lambda: (sub / "d.yaml").write_text(pod("d")))
        assert written.keys() == {"b", "c", "d"}
        await clusters.aclose()

    run(body())


def test_a_folder_that_came_later_is_found_by_looking_again(tmp_path: Path) -> None:
    async def body() -> None:
        clusters = watch(tmp_path / "late", interval_s=0.01)
        assert addresses(await anext(clusters)) == {}
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "a.yaml").write_text(pod("a"))
        assert addresses(await anext(clusters)) == {"a": "10.0.0.1"}
        await clusters.aclose()

    run(body())
