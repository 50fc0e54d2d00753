"""Finding and merging header trees, on trees made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.kernel import headers


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BCC_KERNEL_SOURCE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def debian(sources: Path, version: str) -> None:
    put(sources / f"linux-headers-{version}-common", "include/linux/kconfig.h", "include/uapi/linux/bpf.h")
    put(sources / f"linux-headers-{version}-amd64", "include/generated/autoconf.h")


def test_debian_s_two_halves_are_merged_by_links(tmp_path: Path) -> None:
    debian(tmp_path / "src", "6.1.0-9")
    tree = headers.find("9.9.9", tmp_path / "src", tmp_path / "cache")
    assert headers.is_whole(tree.path)
    assert (tree.path / "include/linux/kconfig.h").is_symlink()
    assert tree.path.is_relative_to(tmp_path / "cache")


def test_the_newest_tree_wins(tmp_path: Path) -> None:
    for version in ("6.1.0-9", "6.1.0-10"):
        debian(tmp_path / "src", version)
    assert "6.1.0-10" in headers.find("9.9.9", tmp_path / "src", tmp_path / "cache").origin


def test_ubuntu_s_two_halves_are_found(tmp_path: Path) -> None:
    put(tmp_path / "src/linux-headers-6.8.0-31", "include/linux/kconfig.h", "include/uapi/linux/bpf.h")
    put(tmp_path / "src/linux-headers-6.8.0-31-generic", "include/generated/autoconf.h")
    assert headers.is_whole(headers.find("9.9.9", tmp_path / "src", tmp_path / "cache").path)


def test_an_empty_choice_is_no_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "")
    debian(tmp_path / "src", "6.1.0-9")
    assert headers.find("9.9.9", tmp_path / "src", tmp_path / "cache").origin != "BCC_KERNEL_SOURCE"


def test_no_headers_at_all_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(headers.NoHeaders, match="install linux-headers-amd64"):
        headers.find("9.9.9", tmp_path / "src", tmp_path / "cache")
