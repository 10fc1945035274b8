"""The report of a batch: complete, readable alone, and safe whatever is in it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rebyte_cli.errors import BadUsage
from rebyte_cli.output.batch_report import check, write

NOW = datetime(2026, 2, 9, 10, 10, tzinfo=UTC)
EVIL = "\x1b]8;;x\x07<script>alert(1)</script>|`*_[x](javascript:1)\n# no\u202e\"'&"


def row(line: int, status: str = "completed", **more: Any) -> dict[str, Any]:
    made = {
        "key": f"k{line}",
        "line": line,
        "id": f"task-{line}",
        "workspaceId": "ws",
        "url": f"https://app.example/run/task-{line}",
        "status": status,
        "error": None,
        "startedAt": f"2026-02-09T10:00:0{line}.000Z",
        "finishedAt": f"2026-02-09T10:05:0{line}.000Z",
    }
    return {**made, **more}


ROWS = [
    row(2, "failed", error={"code": "task_failed", "message": EVIL, "status": None}),
    row(1, key=EVIL, url="javascript:alert(1)"),
    row(3, "running", finishedAt=None),
    row(4, "pending", id=None, url=None, startedAt=None, finishedAt=None),
]


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_the_page_has_a_row_and_a_bar_per_task(tmp_path: Path) -> None:
    write(str(tmp_path / "r.html"), "tasks.jsonl", ROWS, now=NOW)
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert "4 lines: " in text
    assert "2026-02-09 10:00:01 UTC to 2026-02-09 10:10:00 UTC (9m 59s)" in text
    assert [cell.strip() for cell in page.cells[::6]] == ["1", "2", "3", "4"]
    assert page.cells[2::6] == ["completed", "failed", "running", "pending"]
    picture = text[text.index("<svg") : text.index("</svg>") + 6]
    bars = ElementTree.fromstring(picture).findall("rect")  # and so it is well-formed
    assert len(bars) == 3
    # Of 599 s the second ran from 1 s to 301 s, the third from 2 s to the end.
    assert float(bars[1].attrib["x"]) == pytest.approx(1000 * 1 / 599, abs=0.1)
    assert float(bars[1].attrib["width"]) == pytest.approx(1000 * 300 / 599, abs=0.1)
    assert float(bars[2].attrib["width"]) == pytest.approx(1000 * 597 / 599, abs=0.1)


def test_nothing_in_the_page_runs_or_leads_elsewhere(tmp_path: Path) -> None:
    write(str(tmp_path / "r.html"), EVIL, ROWS, now=NOW)
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe")]
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == [f"https://app.example/run/task-{number}" for number in (2, 3)]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.cells[1]  # as text


def test_markdown_has_the_same_and_text_stays_text(tmp_path: Path) -> None:
    write(str(tmp_path / "r.md"), "tasks.jsonl", ROWS, now=NOW)
    text = (tmp_path / "r.md").read_text()
    assert text.startswith("# tasks\\.jsonl\n\n4 lines: ")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 6
    for line in table[2:]:
        assert len(re.findall(r"(?<!\\)\|", line)) == 7
    assert "[task\\-2](<https://app.example/run/task-2>)" in text
    assert "javascript:1)" not in text.replace("\\", "").split("](")[0]
    assert "<script>" not in text.split("\n\n", 4)[-1]
    assert "\x1b" not in text
    bars = [line for line in text.splitlines() if line.startswith("    ")]
    assert len(bars) == 3
    assert bars[2].startswith("    k3")
    assert bars[2].endswith("█| running 9m 57s")


def test_a_batch_without_tasks_has_a_report_too(tmp_path: Path) -> None:
    for name in ("r.html", "r.md"):
        write(str(tmp_path / name), "empty", [], now=NOW)
        assert "No task was created" in (tmp_path / name).read_text()


def test_where_a_report_cannot_go_is_said_before_the_batch(tmp_path: Path) -> None:
    check(str(tmp_path / "new.html"))
    with pytest.raises(BadUsage, match=r"must end with \.html or \.md"):
        check(str(tmp_path / "new.txt"))
    with pytest.raises(BadUsage, match="cannot be written there"):
        check(str(tmp_path / "absent" / "new.md"))
