"""Where files live on each platform."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.config.paths import config_dir, state_dir
from rebyte_cli.errors import BadUsage
from tests.conftest import Done


def test_folders_come_from_the_environment_alone(tmp_path: Path) -> None:
    assert config_dir({"REBYTE_CONFIG_DIR": "/a/b"}) == Path("/a/b")
    assert state_dir({"REBYTE_STATE_DIR": "~/s", "HOME": "/h"}) == Path("/h/s")
    assert config_dir({"REBYTE_CONFIG_DIR": "here"}) == Path.cwd() / "here"


@pytest.mark.skipif(sys.platform != "linux", reason="each platform has its own")
def test_folders_on_linux_are_those_of_xdg() -> None:
    home = {"HOME": "/h"}
    assert config_dir(home) == Path("/h/.config/rebyte")
    assert state_dir(home) == Path("/h/.local/state/rebyte")
    xdg = {**home, "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "relative"}
    assert config_dir(xdg) == Path("/c/rebyte")
    assert state_dir(xdg) == Path("/h/.local/state/rebyte")


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_home_that_is_none_is_refused(home: str) -> None:
    """Python takes an empty HOME for the root folder."""
    with pytest.raises(BadUsage, match="cannot find your home folder"):
        state_dir({"HOME": home})


@pytest.mark.slow
@pytest.mark.parametrize("command", ["completion bash", "completion zsh", "man"])
def test_a_relative_path_gets_into_no_start_file(
    command: str, rebyte: Callable[..., Done], home: Path
) -> None:
    """It would mean another file in every folder that a shell is started in."""
    relative = dict.fromkeys(("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR"), "x")
    done = rebyte(*command.split(), "--install", "-o", "json", env=relative)
    assert done.status == 0, done.err
    assert done.documents
    assert all(row["path"].startswith(f"{home}/") for row in done.documents)
    assert not (home / "x").exists()
    done = rebyte(*command.split(), "--install", env={**relative, "HOME": "relative"})
    assert done.status == 2
    assert "Set HOME to an absolute path" in done.err
