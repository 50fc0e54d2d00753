"""Virtual environments for engines, built once and kept outside the repository; knows pip and no engine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
DONE = "sonde-built"


class BuildFailed(Exception):
    """The environment could not be made; the text has the last of what pip said."""


@dataclass(frozen=True, slots=True)
class Environment:
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        return self.folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"


def default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "sonde" / "engines"


def build(cache: Path, name: str, installs: Sequence[Sequence[str]]) -> Environment:
    """The environment `name` with these runs of `pip install`; one that is there as wanted is taken as it is.

    Raises BuildFailed.
    """
    made = Environment(cache / name)
    digest = hashlib.sha256("\n".join(" ".join(install) for install in installs).encode())
    for file in (Path(word) for install in installs for word in install if word.endswith(".txt")):
        digest.update(file.read_bytes())
    mark = made.folder / DONE
    if mark.exists() and mark.read_text() == digest.hexdigest():
        return made
    print(f"... building {made.folder}, once; this takes minutes and gigabytes", flush=True)
    made.folder.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(made.folder)])
    for install in installs:
        _run([str(made.python), "-m", "pip", "install", "--quiet", *install])
    mark.write_text(digest.hexdigest())
    return made


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise BuildFailed(f"{' '.join(command)} fails:\n{done.stdout[-2000:]}")
