"""What several files of these tests start a batch with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.farm import Farm
from tests.inside import inside


@pytest.fixture
def batch_of(home: Path) -> Callable[..., Done]:
    """`rebyte batch` on these lines, or on those of the last call (None)."""

    def run(farm: Farm, lines: list[Any] | None, *options: str) -> Done:
        if lines is not None:
            (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return inside("batch", "t.jsonl", *options, cwd=home, env=farm.env)

    return run
