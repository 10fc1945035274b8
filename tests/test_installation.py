"""What hints say about extras and upgrades: by what installed this copy, and from where."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.commands._synonyms import for_command
from rebyte_cli.installation import Installation

Install = Callable[..., Installation]
PIP = f"{sys.executable} -m pip install"
CHECKOUT = {"url": "file:///src/re%20byte", "dir_info": {"editable": True}}
FOLDER = {"url": "file:///src/rebyte", "dir_info": {}}
WHEEL = {"url": "https://dl.example/rebyte_cli-1-py3-none-any.whl", "archive_info": {}}
GIT = {"url": "https://git.example/rebyte.git", "vcs_info": {"vcs": "git", "commit_id": "1"}}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make the metadata that an installer leaves behind, and find this copy by it."""

    def found(installer: str, url: Any = None, mark: str = "", prefix: str = "env") -> Installation:
        folder = tmp_path / "site" / "rebyte_cli-1.dist-info"
        folder.mkdir(parents=True)
        requires = "Requires-Dist: click>=8\nRequires-Dist: mcp<3,>=2.3; extra == 'mcp'\n"
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rebyte-cli\n{requires}\n")
        (folder / "INSTALLER").write_text(f"{installer}\n")
        if url is not None:
            (folder / "direct_url.json").write_text(json.dumps(url))
        environment = tmp_path / prefix
        environment.mkdir(parents=True)
        if mark:
            (environment / mark).touch()
        monkeypatch.setattr(sys, "prefix", str(environment))
        monkeypatch.syspath_prepend(str(folder.parent))
        return Installation.find()

    return found


@pytest.mark.parametrize(
    ("about", "add", "upgrade"),
    [
        (("pip",), f"{PIP} 'mcp<3,>=2.3'", f"`{PIP} --upgrade rebyte-cli`"),
        (("pip", FOLDER), f"{PIP} 'mcp<3,>=2.3'", "a newer version of /src/rebyte"),
        (("pip", CHECKOUT), f"{PIP} 'mcp<3,>=2.3'", "`git -C '/src/re byte' pull`"),
        (("pip", WHEEL), f"{PIP} 'mcp<3,>=2.3'", f"a newer version of {WHEEL['url']}"),
        (("pip", GIT), f"{PIP} 'mcp<3,>=2.3'", "version of git+https://git.example/rebyte.git"),
        (
            ("uv", FOLDER),
            f"uv pip install --python {sys.executable} 'mcp<3,>=2.3'",
            "a newer version of /src/rebyte",
        ),
        (
            ("pip", FOLDER, "pipx_metadata.json", "venvs/rebyte-cli"),
            "pipx inject rebyte-cli 'mcp<3,>=2.3'",
            "a newer version of /src/rebyte",
        ),
        (
            ("pip", None, "pipx_metadata.json"),
            "pipx inject env 'mcp<3,>=2.3'",
            "`pipx upgrade rebyte-cli`",
        ),
        (
            ("uv", FOLDER, "uv-receipt.toml"),
            "uv tool install --with 'mcp<3,>=2.3' /src/rebyte",
            "a newer version of /src/rebyte",
        ),
        (
            ("uv", None, "uv-receipt.toml"),
            "uv tool install --with 'mcp<3,>=2.3' rebyte-cli",
            "`uv tool upgrade rebyte-cli`",
        ),
        (
            ("uv", WHEEL, "", "uv/archive-v0/x"),
            f"uvx --with 'mcp<3,>=2.3' --from {WHEEL['url']} rebyte-cli …",
            f"a newer version of {WHEEL['url']}",
        ),
        (("debian",), f"{PIP} 'mcp<3,>=2.3'", "Upgrade it with what installed it"),
    ],
)
def test_a_command_fits_how_this_copy_was_installed(
    install: Install, about: tuple[Any, ...], add: str, upgrade: str
) -> None:
    """One that came from no index names no package of ours on one, which anyone may register."""
    found = install(*about)
    assert f"`{add}`" in found.add("mcp")
    assert upgrade in found.upgrade()
    if len(about) > 1 and about[1] is not None:
        assert "rebyte-cli" not in found.upgrade()


def test_a_command_for_upgrades_is_answered_with_the_way() -> None:
    assert for_command("rebyte", ["upgrade"], []) == Installation.find().upgrade()
