"""The report of a batch as a person sees it, from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from rebyte_cli.batch.report import LineTexts, write

from .test_pages import ANSWER, SCREENS, check_page, emulate, texts

STATUSES = ("completed", "running", "waiting", "limited", "failed", "unknown", "canceled")


def row(line: int, status: str) -> dict[str, Any]:
    ended = status in ("completed", "failed", "canceled")
    return {
        "key": f"k{line}<img src=x>" + "unbreakable" * 20,
        "line": line,
        "id": f"task-{line}",
        "url": f"https://app.example/run/task-{line}",
        "status": status,
        "error": {"code": "task_failed", "message": "<b>"} if status == "failed" else None,
        "title": "Fix it",
        "startedAt": f"2026-02-09T10:00:0{line}.000Z",
        "finishedAt": f"2026-02-09T10:05:0{line}.000Z" if ended else None,
    }


@pytest.fixture
def report(browser: Chrome, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Open a report; at the end the browser has had nothing to complain about."""
    rows = [row(line, status) for line, status in enumerate(STATUSES, 1)]
    answers = [LineTexts(f"Do {one['status']}", ANSWER) for one in rows]
    now = datetime(2026, 2, 9, 10, 10, tzinfo=UTC)
    write(str(tmp_path / "r.html"), "<tasks>", rows, answers, used="9 requests", now=now)
    browser.get_log("browser")
    yield lambda: browser.get((tmp_path / "r.html").as_uri())
    browser.get("about:blank")
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_accessible_and_fits(
    browser: Chrome,
    report: Callable[[], None],
    violations: Callable[[], list[str]],
    scheme: str,
    screen: str,
) -> None:
    emulate(browser, scheme, *SCREENS[screen])
    report()
    check_page(browser, violations, SCREENS[screen][0])
    # Nothing that an agent wrote was loaded, or has run.
    assert browser.execute_script("return performance.getEntriesByType('resource')") == []
    assert browser.execute_script("return document.images.length") == 0
    assert browser.title == "<tasks>: " + browser.title.partition(": ")[2]


def test_lines_are_found_and_times_are_those_of_the_reader(
    browser: Chrome, report: Callable[[], None]
) -> None:
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    report()
    began = browser.execute_script("return Date.parse(arguments[0])", texts(browser, "time")[0])
    assert began == datetime(2026, 2, 9, 10, 0, 1, tzinfo=UTC).timestamp() * 1000
    browser.find_element(By.NAME, "words").send_keys("DO C")
    assert shown(browser) == ["completed", "canceled"]
    Select(browser.find_element(By.NAME, "status")).select_by_visible_text("canceled")
    assert shown(browser) == ["canceled"]
    assert texts(browser, ".find output") == ["1 shown"]


def shown(browser: Chrome) -> list[str]:
    """The statuses of the lines that can be seen."""
    return texts(browser, ".lines.all > :not([hidden]) .status")
