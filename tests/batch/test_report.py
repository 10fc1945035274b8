"""The report of a batch: complete, readable alone, and safe whatever is in it."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rebyte_cli.batch.report import LineTexts, Timeline, excerpt, write
from rebyte_cli.batch.results import check_report
from rebyte_cli.errors import BadUsage
from rebyte_cli.output.table import width_of

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
        "title": "Fix it",
        "startedAt": f"2026-02-09T10:00:0{line}.000Z",
        "finishedAt": f"2026-02-09T10:05:0{line}.000Z",
    }
    return {**made, **more}


ROWS = [
    row(1, key=EVIL, url="javascript:alert(1)"),
    row(2, "failed", error={"code": "task_failed", "message": EVIL, "status": None}),
    row(3, "running", finishedAt=None),
    row(4, "pending", id=None, url=None, startedAt=None, finishedAt=None),
]


class Page(HTMLParser):
    """What a browser would make of a page: its tags, and the text in those of each class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "i":
            self.texts.append((dict(attrs).get("class") or tag, ""))

    def handle_data(self, data: str) -> None:
        if self.texts:
            name, before = self.texts[-1]
            self.texts[-1] = name, before + data

    def of(self, name: str) -> list[str]:
        """The texts of one class, or of a tag without one."""
        return [text.strip() for each, text in self.texts if each == name]


def test_the_page_has_a_row_and_a_bar_per_task(tmp_path: Path) -> None:
    write(str(tmp_path / "r.html"), "tasks.jsonl", ROWS, now=NOW)
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert "<dd>4</dd>" in text
    legend = text.partition('<ul class="legend">')[2].partition("</ul>")[0]
    assert legend.count("<li>1 <span") == 4
    assert "<dd>25%</dd>" in text
    assert page.of("time") == ["2026-02-09 10:00:01 UTC to", "2026-02-09 10:10:00 UTC (9m 59s)"]
    # First the one with an error, then every line; each with its number and its time.
    assert page.of("n")[::2] == ["2", "1", "2", "3", "4"]
    assert page.of("n")[1::2] == ["5m 00s", "5m 00s", "5m 00s", "9m 57s", ""]
    badges = [words for name, words in page.texts if name.startswith("status ")]
    assert badges[4:] == ["failed", "completed", "failed", "running", "pending"]
    assert page.of("k")[2:] == ["k2: Fix it", "k3: Fix it", "k4: Fix it"]
    picture = text[text.index("<svg") : text.index("</svg>") + 6]
    bars = ElementTree.fromstring(picture).findall("rect")  # and so it is well-formed
    assert len(bars) == 3
    # Of 599 s the second ran from 1 s to 301 s, the third from 2 s to the end.
    assert float(bars[0].attrib["x"]) == 0
    assert float(bars[1].attrib["x"]) == pytest.approx(1000 * 1 / 599, abs=0.1)
    assert float(bars[1].attrib["width"]) == pytest.approx(1000 * 300 / 599, abs=0.1)
    assert float(bars[2].attrib["width"]) == pytest.approx(1000 * 597 / 599, abs=0.1)
    assert page.of("span")[:3] == ["0s", "2m", "4m"]
    assert page.of("li")[-2:] == ["k2: Fix it", "k3: Fix it"]


def test_prompts_and_answers_are_folded(tmp_path: Path) -> None:
    texts = [
        LineTexts("Fix it\n\n<b>all</b> of it", "Done:\n```sh\nmake\n```"),
        LineTexts("", None),
    ]
    write(str(tmp_path / "r.html"), "t", [row(1), row(2)], texts, now=NOW)
    page = Page((tmp_path / "r.html").read_text())
    assert page.of("box") == ["Fix it\n\n<b>all</b> of it", "make"]
    assert "<h3>Answer</h3>" in (tmp_path / "r.html").read_text()
    assert page.of("p")[-1] == "Done:"
    assert [attrs for tag, attrs in page.tags if tag == "details"] == [{}, {}]  # none is open
    write(str(tmp_path / "r.md"), "t", [row(1), row(2)], texts, now=NOW)
    assert (
        (tmp_path / "r.md")
        .read_text()
        .endswith("""
<details><summary>Line 1: k1: Fix it</summary>

```text
Fix it

<b>all</b> of it
```

Answer:

````text
Done:
```sh
make
```
````

</details>
""")
    )


@pytest.mark.parametrize("name", ["r.html", "r.md"])
def test_a_report_holds_no_key(tmp_path: Path, name: str) -> None:
    key = "rbk_0123456789abcdef"
    texts = [LineTexts(f"Use {key}", f"It was {key}.")]
    write(
        str(tmp_path / name),
        key,
        [row(1, "failed", title=key, error={"message": key})],
        texts,
        now=NOW,
    )
    page = (tmp_path / name).read_text()
    assert "0123456789" not in page
    assert "It was rbk_…." in page


@pytest.mark.slow
def test_ten_thousand_lines_make_a_page_that_can_be_looked_at(tmp_path: Path) -> None:
    rows = [
        {
            **row(1),
            "line": number,
            "key": str(number),
            "finishedAt": f"2026-02-09T1{number % 3}:20:00Z",
        }
        for number in range(1, 10_001)
    ]
    write(str(tmp_path / "r.html"), "tasks.jsonl", rows, now=NOW)
    text = (tmp_path / "r.html").read_text()
    picture = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    assert len(picture.findall("rect")) == 10_000
    assert float(picture.attrib["height"]) < 1000
    assert len(text) < 8_000_000


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ("10:00:00", ["0s"]),
        ("10:00:07", ["0s", "1s", "2s", "3s", "4s", "5s", "6s", "7s"]),
        ("13:10:00", ["0s", "30m", "1h", "1h 30m", "2h", "2h 30m", "3h"]),
    ],
)
def test_an_axis_has_a_few_round_moments(ends: str, ticks: list[str]) -> None:
    one = row(0, finishedAt=f"2026-02-09T{ends}Z")
    assert [words for _, words in Timeline([one], NOW).ticks()] == ticks


def test_many_days_have_an_axis_too() -> None:
    one = row(0, finishedAt="2026-05-01T10:00:00Z")
    ticks = [words for _, words in Timeline([one], NOW).ticks()]
    assert len(ticks) < 10
    assert ticks[1] == "11d"


def test_figures_count_what_ran_at_one_time_and_how_long() -> None:
    rows = [row(0), row(1), row(9, finishedAt="2026-02-09T10:00:10Z")]
    timeline = Timeline(rows, NOW)
    assert (timeline.peak(), timeline.median()) == (3, "5m 00s")
    after = row(0, startedAt="2026-02-09T10:05:00Z", finishedAt="2026-02-09T10:06:00Z")
    assert Timeline([row(0), after], NOW).peak() == 1


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "https://app.example@evil.example/", "https://a/ b", "file:///etc/x"],
)
def test_case_77_a_url_that_open_would_refuse_is_no_link(tmp_path: Path, url: str) -> None:
    for name in ("r.html", "r.md"):
        write(str(tmp_path / name), "tasks", [row(1, url=url)], now=NOW)
        text = (tmp_path / name).read_text()
        assert not [tag for tag, _ in Page(text).tags if tag == "a"]
        assert "](" not in text


def test_nothing_in_the_page_runs_or_leads_elsewhere(tmp_path: Path) -> None:
    write(str(tmp_path / "r.html"), EVIL, ROWS, now=NOW)
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe")]
    (script,) = re.findall("(?s)<script>(.*?)</script>", text)  # this one alone may run
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs) or ""
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == [f"https://app.example/run/task-{number}" for number in (2, 2, 3)]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.of("p")[0]  # as text


def test_markdown_has_the_same_and_text_stays_text(tmp_path: Path) -> None:
    write(str(tmp_path / "r.md"), "tasks.jsonl", ROWS, now=NOW)
    text = (tmp_path / "r.md").read_text()
    assert text.startswith(
        "# tasks.jsonl\n\n4 lines: 1 completed, 1 failed, 1 running, 1 pending\n"
    )
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 6
    for line in table[2:]:
        assert len(re.findall(r"(?<!\\)\|", line)) == 7
    assert "[task-2](<https://app.example/run/task-2>)" in text
    assert "javascript:1)" not in text.replace("\\", "").split("](")[0]
    assert "<script>" not in text.split("\n\n", 4)[-1]
    assert "\x1b" not in text
    bars = [line for line in text.splitlines() if line.startswith("    ")]
    assert len(bars) == 3
    assert bars[2].startswith("    k3: Fix it")
    assert bars[2].endswith("█| running 9m 57s")


def test_the_bars_in_markdown_stand_below_each_other_whatever_the_keys(tmp_path: Path) -> None:
    rows = [row(1, key="ascii"), row(2, key="部署服务" * 6), row(3, key="e" * 30)]
    write(str(tmp_path / "r.md"), "t", rows)
    bars = [line for line in (tmp_path / "r.md").read_text().splitlines() if "█" in line]
    assert len({width_of(line.partition("|")[0]) for line in bars}) == 1


def test_long_texts_share_what_a_report_has_room_for() -> None:
    assert excerpt("x" * 10_000, 100) == "x" * 10_000
    assert excerpt("x" * 12_345, 100) == "x" * 10_000 + "… (2,345 more characters)"
    assert len(excerpt("x" * 10_000, 20_000)) < 1100


def test_a_batch_without_tasks_has_a_report_too(tmp_path: Path) -> None:
    for name in ("r.html", "r.md"):
        write(str(tmp_path / name), "empty", [], now=NOW)
        assert "No task was created" in (tmp_path / name).read_text()


def test_a_report_that_cannot_be_written_is_refused_before_the_batch(tmp_path: Path) -> None:
    check_report(str(tmp_path / "new.html"))
    with pytest.raises(BadUsage, match=r"must end with \.html or \.md"):
        check_report(str(tmp_path / "new.txt"))
    with pytest.raises(BadUsage, match="cannot be written there"):
        check_report(str(tmp_path / "absent" / "new.md"))
