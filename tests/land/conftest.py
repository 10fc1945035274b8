"""A repository, and a service whose tasks change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Done
from tests.land_bench import LandBench
from tests.repositories import introduce


@pytest.fixture
def bench(
    home: Path, inside: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LandBench]:
    introduce(home)
    made = LandBench(home, inside)
    with made.farm as farm:
        for name, value in farm.env.items():
            monkeypatch.setenv(name, value)
        yield made
