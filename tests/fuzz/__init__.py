"""Property tests: each states what holds for every generated input.

`make fuzz` runs them; `REBYTE_FUZZ=50` tries fifty times as many examples. Inputs that once failed
are kept beside each test as an `@example`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.output.test_safety import RAW

from ..conftest import Done
from ..inside import inside

FACTOR = float(os.environ.get("REBYTE_FUZZ", "1"))
T = TypeVar("T", bound=Callable[..., Any])
STATUSES = {0, 1, 2, 3, 4, 5, 6, 10, 11, 124}


def tries(count: int) -> Callable[[T], T]:
    """Try `count` examples, times `REBYTE_FUZZ`; the same ones every time in CI."""
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


def within(*words: str, stdin: bytes = b"", home: Path, env: dict[str, str]) -> Done:
    """Run the command in this process with `home` as its home, and with `env`."""
    ours = {name: None for name in os.environ if name.startswith("REBYTE_")}
    folders = {"REBYTE_CONFIG_DIR": str(home / "config"), "REBYTE_STATE_DIR": str(home / "state")}
    return inside(*words, stdin=stdin, cwd=home, env={**ours, "HOME": str(home), **folders, **env})


def ends_well(done: Done, *, raw: bool = False) -> None:
    """Check for data only on stdout, one line for each error on stderr, and a documented status.

    `raw`: stdout is a body printed unchanged, which is not checked.
    """
    assert done.status in STATUSES, done
    assert "Traceback" not in done.err, done
    assert '"code": "bug"' not in done.err, done
    assert "internal error in rebyte" not in done.err, done
    assert raw or not RAW.search(done.out), done
    assert not RAW.search(done.err), done
    errors = [line for line in done.err.splitlines() if line.startswith(('{"error"', "Error: "))]
    assert bool(errors) == bool(done.status), done
    for line in errors:
        if line.startswith("{"):
            assert json.loads(line)["error"]["message"], done
