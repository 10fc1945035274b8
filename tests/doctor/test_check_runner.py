"""Checks run side by side, and none of them can hold up or end the report."""

from __future__ import annotations

import threading
import time

from rebyte_cli.doctor.check_runner import Check, Finding, run_checks
from rebyte_cli.errors import BadUsage

OK = Finding("ok", "fine")


def test_checks_run_side_by_side_and_are_reported_in_order() -> None:
    """Each waits for the other, which no sequence of them could survive."""
    both = threading.Barrier(2, timeout=60)

    def meet() -> Finding:
        both.wait()
        return OK

    found = list(run_checks([Check("a", meet, seconds=60), Check("b", meet, seconds=60)]))
    assert found == [("a", OK), ("b", OK)]


def test_a_check_that_hangs_is_left_behind() -> None:
    never = threading.Event()

    def hang() -> Finding:
        never.wait(60)
        return OK

    started = time.monotonic()
    late = Check("c", lambda: OK, 60)
    checks = [Check("a", hang, 0.2), Check("b", hang, 0.2, needed=False), late]
    found = dict(run_checks(checks))
    assert time.monotonic() - started < 30
    assert found["a"] == Finding("problem", "did not answer within 0.2 s")
    assert found["b"].status == "warning"
    assert found["c"] == OK
    never.set()


def test_an_error_is_a_finding() -> None:
    def refuse() -> Finding:
        raise BadUsage("not so", hint="but so")

    def crash() -> Finding:
        raise ZeroDivisionError("by zero")

    found = dict(
        run_checks([Check("a", refuse), Check("b", refuse, needed=False), Check("c", crash)])
    )
    assert found["a"] == Finding("problem", "not so", "but so")
    assert found["b"] == Finding("warning", "not so", "but so")
    assert found["c"].message == "the check failed: ZeroDivisionError: by zero"


def test_a_record_holds_no_key() -> None:
    key = "rbk_0123456789abcdef"
    details = {"at": [{"value": f"in {key}"}], "count": 2}
    record = Finding("problem", f"not {key}", f"nor {key}", details).record("a")
    assert record["details"] == {"at": [{"value": "in rbk_…"}], "count": 2}
    assert "0123456789" not in str(record)
