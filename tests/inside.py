"""The command run inside the test's own process, where a process of its own proves nothing more.

It is the same way in as `python -m rebyte_cli`: a list of words, streams that are no terminals,
an exit status. What a process alone can show (signals, kill -9, two at once) needs a real one.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from rebyte_cli.app import App
from rebyte_cli.cli import run
from tests.conftest import Done


class _Pipe(io.TextIOWrapper):
    """A stream that keeps what is written."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8", newline="\n", write_through=True)

    @property
    def text(self) -> str:
        """All of it."""
        kept = self.buffer
        assert isinstance(kept, io.BytesIO)
        return kept.getvalue().decode()


@contextmanager
def _stdin(data: bytes) -> Iterator[None]:
    before, sys.stdin = sys.stdin, _Pipe(data)
    try:
        yield
    finally:
        sys.stdin = before


def inside(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> Done:
    """Run the command in `cwd` with `env` over the test's own environment."""
    out, err = _Pipe(), _Pipe()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err), _stdin(stdin):
        status = run(list(arguments), App({**os.environ, **(env or {})}, arguments))
    return Done(status, out.text, err.text)
