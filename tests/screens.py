"""Screens to print on in tests, and the records that are printed."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rebyte_cli.errors import Interrupted
from rebyte_cli.output.console import Console
from rebyte_cli.output.render import show

# 2026-02-09T10:35:00Z: five minutes after the tasks below were created.
NOW = 1770633300.0

TASK_DONE: dict[str, Any] = {
    "id": "550e8400-e29b-41d4-a716-446655440000",
    "url": "https://app.rebyte.ai/run/550e8400-e29b-41d4-a716-446655440000",
    "status": "completed",
    "title": "Security review",
    "executor": "opencode",
    "model": None,
    "createdAt": "2026-02-09T10:30:00.000Z",
    "completedAt": "2026-02-09T10:32:00.000Z",
    "prompts": [
        {
            "id": "880e8400",
            "status": "succeeded",
            "submittedAt": "2026-02-09T10:30:01.000Z",
            "completedAt": "2026-02-09T10:32:00.000Z",
        }
    ],
    "finalResult": 'Two "problems",\nboth small.',
    "extra": {"new": [1, 2.5, True]},
}
ROWS: list[dict[str, Any]] = [
    {
        "id": "550e8400-e29b-41d4-a716-446655440000",
        "url": "https://app.rebyte.ai/run/550e8400",
        "title": "A security review of the whole code base, slowly",
        "executor": "opencode",
        "model": "lite",
        "createdAt": "2026-02-09T10:30:00.000Z",
        "completedAt": "2026-02-09T10:32:00.000Z",
    },
    {
        "id": "660e8400-e29b-41d4-a716-446655440001",
        "url": "https://app.rebyte.ai/run/660e8400",
        "title": "日本語のレビュー",
        "executor": "claude",
        "model": "lite",
        "createdAt": "2026-02-07T10:30:00.000Z",
        "completedAt": None,
    },
    {
        "id": "770e8400-e29b-41d4-a716-446655440002",
        "url": "https://app.rebyte.ai/run/770e8400",
        "title": None,
        "executor": None,
        "model": None,
        "createdAt": "2026-02-09T10:34:55.000Z",
    },
]


class Shown:
    """What `show` did: its status, and the text on both streams."""

    def __init__(self, value: Any, form: str, **look: Any) -> None:
        fields = look.pop("fields", None)
        self.console = console(**look)
        self.error: BaseException | None = None
        self.status: int | None = None
        try:
            self.status = show(
                value,
                console=self.console,
                format=form,
                fields=fields,
                errors_as_json=form in ("json", "jsonl"),
                now=lambda: NOW,
            )
        except (Exception, Interrupted) as error:
            self.error = error

    @property
    def out(self) -> str:
        """Everything on stdout."""
        return text_of(self.console.out)

    @property
    def err(self) -> str:
        """Everything on stderr."""
        return text_of(self.console.err)


def out(value: Any, form: str, **look: Any) -> str:
    """What `show` printed when all went well."""
    shown = Shown(value, form, **look)
    assert (shown.status, shown.err, shown.error) == (0, "", None)
    return shown.out


def dedent(text: str) -> str:
    """A screen as a test writes it: indented, from the line after the quotes on."""
    return textwrap.dedent(text).lstrip("\n")


def text_of(stream: Any) -> str:
    """What was written to a stream made by `screen`."""
    text = stream.getvalue()
    assert isinstance(text, str)
    return text


def console(tty: bool = False, color: bool = False, width: int = 80, **more: Any) -> Console:
    """Two streams in memory: a pipe, or a terminal of that width."""
    return Console(
        io.StringIO(),
        io.StringIO(),
        out_tty=tty,
        err_tty=tty,
        out_color=color,
        err_color=color,
        width=width,
        **more,
    )


@contextmanager
def no_bar(_name: str, _total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar that is not shown."""
    yield lambda _count: None
