"""What the tests of creates and of follow-ups share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rebyte_cli.local.local_service import Service
from tests.create_bench import Bench
from tests.cutting_proxy import CuttingProxy


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Service(tmp_path / "service") as service, CuttingProxy(service.base_url) as proxy:
        yield Bench(tmp_path, service, proxy)
