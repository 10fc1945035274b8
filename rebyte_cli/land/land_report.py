"""The report of a landing in Markdown, for a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..batch.report import block, escaped
from ..output.console import one_line
from ..system.files import write_shared
from ..system.redaction import redact_keys
from ..tasks.browser import is_page
from .land_journal import LEFT_OUT

Row = Mapping[str, Any]


def counts(rows: Sequence[Row]) -> str:
    """`40 tasks: 38 landed, 2 left out`."""
    found = Counter(str(row["status"]) for row in rows)
    words = ", ".join(f"{count} {status}" for status, count in found.most_common())
    return f"{len(rows)} {'task' if len(rows) == 1 else 'tasks'}: {words}"


def write(path: str, branch: str, onto: str, rows: Sequence[Row]) -> None:
    """Write the report of these rows (kind LAND); whole or not at all. Raises RebyteError."""
    text = "".join(_parts(branch, onto, rows))
    write_shared(Path(path).absolute(), redact_keys(text).encode("utf-8", "replace"))


def _parts(branch: str, onto: str, rows: Sequence[Row]) -> Iterator[str]:
    yield f"# {escaped(f'Branch {branch}')}\n\n{counts(rows)}, on top of {onto[:10]}.\n\n"
    yield "| # | Title | Status | Commit | Reruns | Task | Reason |\n"
    yield "| --: | --- | --- | --- | --: | --- | --- |\n"
    for row in rows:
        task, url = escaped(row["landedTask"] or row["id"]), one_line(str(row.get("url") or ""))
        cells = [
            row["line"],
            escaped(row["title"]),
            row["status"],
            str(row["commit"] or "")[:10],
            row["reruns"],
            f"[{task}](<{url}>)" if is_page(url) else task,
            escaped(_reason(row).partition("\n")[0]),
        ]
        yield "| " + " | ".join(map(str, cells)) + " |\n"
    if restored := sorted(
        {path for row in rows for path in (row["check"] or {}).get("restored", ())}
    ):
        yield f"\n## Protected paths with changes\n\nChecked as they are in {onto[:10]}, and not as"
        yield " the tasks made them:\n\n" + "".join(f"- {escaped(path)}\n" for path in restored)
    if risks := [(row["line"], risk) for row in rows for risk in row["risks"]]:
        yield "\n## Files that tools run or read by themselves\n\n"
        yield "".join(f"- {line}: {escaped(risk)}\n" for line, risk in risks)
    for row in rows:
        if row["status"] == LEFT_OUT:
            yield f"\n## {escaped(row['title'] or row['id'])}\n\n{block(_reason(row))}"


def _reason(row: Row) -> str:
    return str((row["error"] or {}).get("message") or "")
