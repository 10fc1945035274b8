"""Generated inputs: each test states what holds for all of them.

`REBYTE_FUZZ=50` tries fifty times as many examples as the suite does. What was found once is kept
beside each test as an `@example`.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rebyte_cli.app import App
from rebyte_cli.cli import run
from tests.output.test_safety import RAW

from ..conftest import Done

FACTOR = float(os.environ.get("REBYTE_FUZZ", "1"))
T = TypeVar("T", bound=Callable[..., Any])
STATUSES = {0, 1, 2, 3, 4, 5, 6, 10, 11, 124}


def tries(count: int) -> Callable[[T], T]:
    """So many examples, and many more by hand; the same ones every time in CI."""
    return settings(
        max_examples=max(1, int(count * FACTOR)),
        deadline=None,
        derandomize=os.environ.get("CI") == "true",
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates included
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | ANY_TEXT
    | st.sampled_from(["", "running", "completed", "2026-02-09T10:30:00.000Z", "../x", "@last"])
)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=8,
)


def within(*commands: str, stdin: bytes = b"", home: Path, env: dict[str, str]) -> Done:
    """Run the command inside this process, with separate streams, home and environment."""
    argv = list(commands)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with ExitStack() as back:
        given: dict[str, Any] = {
            "stdin": io.TextIOWrapper(io.BytesIO(stdin), "utf-8"),
            "stdout": out,
            "stderr": err,
        }
        for name, stream in given.items():
            back.callback(setattr, sys, name, getattr(sys, name))
            setattr(sys, name, stream)
        environment = {
            "HOME": str(home),
            "REBYTE_CONFIG_DIR": str(home / "config"),
            "REBYTE_STATE_DIR": str(home / "state"),
            **env,
        }
        status = run(argv, App(environment, argv))
        out.flush()
        err.flush()
        written = [bytes(stream.buffer.getvalue()) for stream in (out, err)]
    return Done(status, written[0].decode(), written[1].decode())


def ends_well(done: Done, *, raw: bool = False) -> None:
    """Nothing but data on stdout, one line for each error on stderr, and a status of the table.

    `raw`: what was printed is the body as it came, which is not looked at.
    """
    assert done.status in STATUSES, done
    assert "Traceback" not in done.err, done
    assert '"code": "bug"' not in done.err, done
    assert "a fault in rebyte itself" not in done.err, done
    assert raw or not RAW.search(done.out), done
    assert not RAW.search(done.err), done
    errors = [line for line in done.err.splitlines() if line.startswith(('{"error"', "Error: "))]
    assert bool(errors) == bool(done.status), done
    for line in errors:
        if line.startswith("{"):
            assert json.loads(line)["error"]["message"], done
