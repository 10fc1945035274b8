"""What the build adds to `pyproject.toml`: shared files, and a README for readers of an index."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

# The release workflow sets it to the repository's address; no other build knows one.
REPOSITORY = "REBYTE_REPOSITORY_URL"

COMPLETIONS = {
    "rebyte.bash": "share/bash-completion/completions/rebyte",
    "_rebyte": "share/zsh/site-functions/_rebyte",
    "rebyte.fish": "share/fish/vendor_completions.d/rebyte.fish",
}


class SharedData(BuildHookInterface[Any]):
    """Puts the completions and the manual into `share/`, where shells and man(1) look.

    A hook because each page of the flat `man/` goes to the folder of its section.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tell the wheel what to install outside of the package."""
        root = Path(self.root)
        shared = build_data["shared_data"]
        for name, place in COMPLETIONS.items():
            shared[str(root / "completions" / name)] = place
        for page in sorted((root / "man").iterdir()):
            shared[str(page)] = f"share/man/man{page.suffix[1:]}/{page.name}"


class LongDescription(MetadataHookInterface):
    """Makes the long description of `README.md`, and names the repository where that is known."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the fields that `pyproject.toml` calls dynamic."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = os.environ.get(REPOSITORY, "").rstrip("/")
        tag = f"v{metadata['version']}"
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": long_description(text, f"{repository}/blob/{tag}" if repository else None),
        }
        metadata["urls"] = dict(self.config["urls"])
        if repository:
            metadata["urls"] |= {
                "Source": repository,
                "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }


def for_an_index(readme: str) -> str:
    """The README for readers without a checkout.

    What stands between `<!-- checkout -->` and `<!-- index` is for readers of a checkout; the
    comment that follows replaces it.
    """
    return re.sub(r"<!-- checkout -->\n.*?<!-- index\n(.*?)-->\n", r"\1", readme, flags=re.DOTALL)


def long_description(readme: str, base: str | None) -> str:
    """The README as an index shows it, where paths of the checkout lead nowhere.

    Relative links are resolved against `base`, the URL of a folder; without it, they become plain
    text and pictures are left out.
    """

    def link(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        if base is not None:
            return f"{mark}[{words}]({base}/{target}{'?raw=true' if mark else ''})"
        return "" if mark else words

    text = re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, for_an_index(readme))
    return re.sub(r"\n{3,}", "\n\n", text)
