"""Runs checks side by side, each within its own time limit."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ..errors import RebyteError
from ..system.redaction import redact_keys

Status = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """What a check found: `message` says it in a line, `hint` says what to do about it.

    `details` are further values for programs, with JSON types.
    """

    status: Status
    message: str
    hint: str | None = None
    details: Mapping[str, Any] = {}

    def record(self, name: str) -> dict[str, Any]:
        """The finding as a record of kind CHECK."""
        return {"name": name, **_without_keys(self._asdict())}


def _without_keys(value: Any) -> Any:
    """The JSON value with every key in its texts cut down to its prefix."""
    if isinstance(value, str):
        return redact_keys(value)
    if isinstance(value, Mapping):
        return {name: _without_keys(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_keys(each) for each in value]
    return value


class Check(NamedTuple):
    """A check: `run` is called on its own thread and may take `seconds`.

    `needed` says whether it is a problem, or only a warning, that it raises a RebyteError or does
    not end in time.
    """

    name: str
    run: Callable[[], Finding]
    seconds: float = 10.0
    needed: bool = True


def run_checks(checks: Sequence[Check]) -> Iterator[tuple[str, Finding]]:
    """Start every check at once; yield the name and the finding of each, in the order given.

    A check that hangs is left behind on a daemon thread, which does not keep the process alive.
    """
    started = time.monotonic()
    pending = [(check, _start(check)) for check in checks]
    for check, answer in pending:
        try:
            found = answer.get(timeout=max(0.0, started + check.seconds - time.monotonic()))
        except queue.Empty:
            found = Finding(_severity(check), f"did not answer within {check.seconds:g} s")
        yield check.name, found


def _start(check: Check) -> queue.SimpleQueue[Finding]:
    answer: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    threading.Thread(
        target=lambda: answer.put(_finding(check)), daemon=True, name=f"doctor {check.name}"
    ).start()
    return answer


def _finding(check: Check) -> Finding:
    try:
        return check.run()
    except RebyteError as error:
        return Finding(_severity(check), error.sentence, error.hint)
    except Exception as error:  # a report about what is broken must not break itself
        return Finding("problem", f"the check failed: {type(error).__name__}: {error}")


def _severity(check: Check) -> Status:
    return "problem" if check.needed else "warning"
