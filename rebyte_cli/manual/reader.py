"""Render, install and remove manual pages with the tools of this machine."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..config.paths import xdg_dir
from ..system import marked_files
from .roff import MARK

_STYLE = re.compile(r"\x1b\[[0-9;]*m")
# How a line printer sets a letter in bold or underlines it: by printing twice in one place.
_OVERSTRIKE = re.compile(r"(?:([^\n])\x08\1|_\x08([^\n]))+")
_TWICE = re.compile(r".\x08")
_BOLD, _UNDERLINE, _PLAIN = "\x1b[1m", "\x1b[4m", "\x1b[0m"


def render(
    page: str, *, width: int, environment: Mapping[str, str], styled: bool = False
) -> str | None:
    """Render a page as text with `man` or `mandoc`; None if neither is here and works.

    `page` is in the man(7) language, `width` in columns. With `styled`, escape sequences make text
    bold and underlined.
    """
    with tempfile.TemporaryDirectory(prefix="rebyte-man-") as folder:
        file = Path(folder) / "page.1"
        file.write_text(page, encoding="utf-8", newline="\n")
        for program in (["man", "-l"], ["mandoc", "-T", "utf8", "-O", f"width={width}"]):
            words = {"MANWIDTH": str(width), "MANPAGER": "cat", "MAN_KEEP_FORMATTING": "1"}
            done = _run([*program, str(file)], {**environment, **words})
            printed = b"" if done is None or done.returncode else done.stdout
            text = printed.decode("utf-8", "replace").strip("\n")
            plain = _TWICE.sub("", _STYLE.sub("", text))
            # Images of containers have a `man` that only says how to install it.
            if "\nNAME\n" in plain:
                return _styled(text) if styled else plain
    return None


def _styled(text: str) -> str:
    """Overstruck letters as escape sequences, which `less -R` and terminals understand."""

    def styled(run: re.Match[str]) -> str:
        style = _UNDERLINE if run[0].startswith("_\x08") and run[0][2:3] != "_" else _BOLD
        return style + _TWICE.sub("", run[0]) + _PLAIN

    return _OVERSTRIKE.sub(styled, text)


def install(pages: Mapping[str, str], folder: Path) -> list[tuple[Path, bool]]:
    """Write pages (`rebyte.1`: text) under `folder` as `man1/rebyte.1`.

    Returns each file and whether it changed. Raises what `marked_files.install` raises.
    """
    files = {folder / f"man{name[-1]}" / name: page.encode() for name, page in pages.items()}
    return marked_files.install(files, MARK.encode())


def uninstall(folder: Path) -> list[Path]:
    """Remove the pages that `install` wrote under `folder`, in any version, and return them.

    Section folders that are then empty are removed too. Raises RebyteError if a page cannot be.
    """
    found = sorted(folder.glob("man?/rebyte*.?"))
    return [file for file, removed in marked_files.uninstall(found, MARK.encode()) if removed]


def finds(folder: Path, environment: Mapping[str, str]) -> bool | None:
    """Whether man(1) searches this folder; None if man is not installed."""
    done = _run(["man", "-w", "rebyte"], environment)
    return None if done is None else os.fsdecode(done.stdout).startswith(str(folder))


def home(environment: Mapping[str, str]) -> Path:
    """The folder where man(1) looks for a user's own pages."""
    return xdg_dir(environment, "XDG_DATA_HOME", ".local/share") / "man"


def _run(
    command: list[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes] | None:
    """How a program ended, and what it printed; None if it is not here, or takes too long."""
    given, env = subprocess.DEVNULL, dict(environment)
    try:
        return subprocess.run(
            command, env=env, stdin=given, capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
