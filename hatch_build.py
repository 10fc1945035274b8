"""Puts the completions and the manual where shells and man(1) look: `share/` of the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPLETIONS = {
    "rebyte.bash": "share/bash-completion/completions/rebyte",
    "_rebyte": "share/zsh/site-functions/_rebyte",
    "rebyte.fish": "share/fish/vendor_completions.d/rebyte.fish",
}


class SharedData(BuildHookInterface[Any]):
    """A hook because each page of the flat `man/` goes to the folder of its section."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tell the wheel what to install outside of the package."""
        root = Path(self.root)
        shared = build_data["shared_data"]
        for name, place in COMPLETIONS.items():
            shared[str(root / "completions" / name)] = place
        for page in sorted((root / "man").iterdir()):
            shared[str(page)] = f"share/man/man{page.suffix[1:]}/{page.name}"
