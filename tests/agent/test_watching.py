"""Directories that come and go are told of, and what cannot be watched does no harm."""

from __future__ import annotations

import contextlib
import logging
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.placing.pods import CgroupTree
from agent.watching import Watch

UID = "3f1c7d52-9e0b-4a37-8f7e-0a1b2c3d4e5f"


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    made.close()


def told(watch: Watch) -> bool:
    select.select([watch.descriptor], [], [], 0)
    return watch.drain()


def test_a_directory_that_is_made_or_removed_is_told_of_once(watch: Watch, tmp_path: Path) -> None:
    watch.add(str(tmp_path))
    assert not told(watch)
    (tmp_path / "pod").mkdir()
    assert told(watch)
    assert not told(watch)
    (tmp_path / "pod").rmdir()
    assert told(watch)


def test_every_directory_of_a_tree_is_watched_from_the_first_scan_that_sees_it(watch: Watch, tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path, watch.add)
    tree.scan([UID])
    pod = tmp_path / f"kubepods/pod{UID}"
    pod.mkdir(parents=True)
    assert told(watch)
    assert tree.scan([UID]).keys() == {UID}
    told(watch)
    (pod / ("ab" * 32)).mkdir()
    assert told(watch)
    assert len(tree.scan([UID])[UID]) == 2
    assert set(tree.paths.values()) == {str(pod), str(pod / ("ab" * 32))}


def test_what_is_gone_already_is_not_complained_of(
    watch: Watch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        watch.add(str(tmp_path / "gone"))
    assert not caplog.records
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        watch.add(str(tmp_path / "file"))
        watch.add(str(tmp_path / "file"))
    assert len(caplog.records) == 1


def test_files_are_told_of_only_to_who_asks_for_them(watch: Watch, tmp_path: Path) -> None:
    watch.add(str(tmp_path))
    with contextlib.closing(Watch(files=True)) as of_files:
        of_files.add(str(tmp_path))
        (tmp_path / "file").write_text("")
        assert told(of_files)
        told(watch)  # of its coming, as of any entry's
        (tmp_path / "file").write_text("more")
        assert told(of_files)
        assert not told(watch)
