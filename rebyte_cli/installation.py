"""How this copy of the command was installed, and the commands that change it.

The package may be on no index, where anyone could register its name. So what a hint tells a user
to run comes from where this copy came from: its `direct_url.json` (PEP 610), what pipx and uv
leave in the environment, and the installer that its metadata names.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = "rebyte-cli"


class Installation(NamedTuple):
    """Where this copy is and where it came from.

    `manager` is what keeps its environment: `pipx`, `uv tool`, `uvx`, the name of the installer,
    such as `pip` or `uv`, or "" for none (a single file, or a folder on `sys.path`). `source` is
    the folder or URL that it was installed from, None if that was an index or is not known.
    `requirements` are those of its extras, by their names.
    """

    manager: str
    source: str | None
    is_editable: bool
    is_single_file: bool
    requirements: dict[str, list[str]]

    @classmethod
    def find(cls) -> Installation:
        """The copy that runs."""
        is_single_file = not os.path.exists(__file__)
        try:
            distribution = metadata.distribution(PACKAGE)
        except metadata.PackageNotFoundError:
            return cls("", None, is_editable=False, is_single_file=is_single_file, requirements={})
        url: dict[str, Any] = json.loads(distribution.read_text("direct_url.json") or "{}")
        return cls(
            "" if is_single_file else _manager(distribution),
            _source(url),
            bool(url.get("dir_info", {}).get("editable")),
            is_single_file,
            _extras(distribution.requires or ()),
        )

    def add(self, extra: str) -> str:
        """What to run to add what an extra requires."""
        needed = " ".join(map(shlex.quote, self.requirements.get(extra, [extra])))
        name = Path(sys.prefix).name
        if self.is_single_file:
            return "Install rebyte with pipx, uv or pip; a single file cannot be extended"
        if self.manager == "pipx":
            return f"Add it with `pipx inject {shlex.quote(name)} {needed}`"
        if self.manager in ("uv tool", "uvx"):
            options = f"--with {needed.replace(' ', ' --with ')}"
            if self.manager == "uv tool":
                return f"Add it with `uv tool install {options} {self._from}`"
            return f"Add it with `uvx {options} --from {self._from} {PACKAGE} …`"
        return f"Install it with `{self._pip_install} {needed}`"

    def upgrade(self) -> str:
        """How to get a newer version."""
        if self.is_single_file:
            return "Replace this file with a newer one"
        if self.is_editable:
            return (
                f"This is a checkout: update it with `git -C {shlex.quote(str(self.source))} pull`"
            )
        if self.source is not None:
            return f"Install a newer version of {self.source}, from which this one came"
        commands = {
            "pipx": f"pipx upgrade {PACKAGE}",
            "uv tool": f"uv tool upgrade {PACKAGE}",
            "uvx": f"uvx {PACKAGE}@latest",
            "pip": f"{self._pip_install} --upgrade {PACKAGE}",
            "uv": f"{self._pip_install} --upgrade {PACKAGE}",
        }
        known = commands.get(self.manager)
        return f"Upgrade it with `{known}`" if known else "Upgrade it with what installed it"

    @property
    def _from(self) -> str:
        return shlex.quote(self.source or PACKAGE)

    @property
    def _pip_install(self) -> str:
        python = shlex.quote(sys.executable)
        if self.manager == "uv":  # its environments have no pip
            return f"uv pip install --python {python}"
        return f"{python} -m pip install"


def _manager(distribution: metadata.Distribution) -> str:
    prefix = Path(sys.prefix)
    if (prefix / "pipx_metadata.json").exists():
        return "pipx"
    if (prefix / "uv-receipt.toml").exists():
        return "uv tool"
    installer = (distribution.read_text("INSTALLER") or "").strip()
    # Environments of `uvx` are entries of uv's cache.
    return "uvx" if installer == "uv" and "archive-v0" in prefix.parts else installer


def _source(url: dict[str, Any]) -> str | None:
    """The folder or URL of a `direct_url.json`, as pip takes it; None without one."""
    from urllib.parse import unquote, urlsplit

    place = str(url.get("url", ""))
    if place.startswith("file:"):
        return unquote(urlsplit(place).path)
    vcs = url.get("vcs_info", {}).get("vcs")
    return f"{vcs}+{place}" if vcs else place or None


def _extras(requires: Any) -> dict[str, list[str]]:
    extras: dict[str, list[str]] = {}
    for line in requires:
        requirement, _, marker = line.partition(";")
        if found := re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker):
            extras.setdefault(found[1], []).append(requirement.strip())
    return extras
