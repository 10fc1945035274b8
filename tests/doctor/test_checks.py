"""What `rebyte doctor` finds, check by check."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rebyte_cli.app import App
from rebyte_cli.doctor.check_runner import run_checks
from rebyte_cli.doctor.checks import Examination
from tests.servers import RawServer, json_reply, then_stall


def test_a_service_that_hangs_holds_nothing_up(home: Path, aim: Callable[[Any], Any]) -> None:
    with RawServer(then_stall(json_reply({"data": [], "total": 0})[:40])) as server:
        aim(server)
        started = time.monotonic()
        found = dict(run_checks(Examination(App(), {}, seconds=0.5).checks()))
    assert time.monotonic() - started < 25  # the server hangs for 30
    assert found["api"].status == "problem"
    assert found["git"].status == "ok"
