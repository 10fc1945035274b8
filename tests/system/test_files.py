"""Locks between processes, and files that survive a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebyte_cli.errors import RebyteError
from rebyte_cli.system.files import locked, take_lock


def test_a_lock_that_is_held_too_long_is_an_error(tmp_path: Path) -> None:
    release = take_lock(tmp_path / ".lock")
    assert release is not None
    with (
        pytest.raises(RebyteError, match="another process has kept"),
        locked(tmp_path / ".lock", seconds=0.05),
    ):
        pass
    release()
    with locked(tmp_path / ".lock", seconds=0.05):
        pass
