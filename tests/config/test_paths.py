"""Where files live on each platform."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rebyte_cli.config.paths import config_dir, state_dir


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
