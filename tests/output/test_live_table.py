"""The table of `list --watch`: what it shows on terminals of every size."""

from __future__ import annotations

from rebyte_cli.output.live_table import LiveRow, LiveState, LiveTable, live_table
from rebyte_cli.output.table import width_of
from tests.screens import NOW, console
from tests.terminals import Terminal

# Five minutes before NOW.
START = "2026-02-09T10:30:00.000Z"
ROWS = [
    LiveRow("11111111", "failed", START, "Migrate", ""),
    LiveRow("22222222", "running", START, "Review the whole code base", "* Bash: npm test"),
    LiveRow("33333333", "waiting", "2026-02-09T10:34:30.000Z", "Deploy", "? Which region?"),
    LiveRow("44444444", "completed", START, "日本語のレビュー", "* Bash: ls"),
]


def text(state: LiveState, columns: int = 80, rows: int = 24, **more: bool) -> str:
    return LiveTable(console(tty=True, **more), state, lambda: NOW).text(columns, rows)


def test_who_needs_an_answer_is_on_top() -> None:
    assert text(LiveState(ROWS, "Answer with `rebyte answer 33333333`")) == (
        "ID        STATUS     TIME    TITLE                       STEP\n"
        "33333333  waiting    30s     Deploy                      ? Which region?\n"
        "22222222  running    5m 00s  Review the whole code base  * Bash: npm test\n"
        "11111111  failed     5m ago  Migrate\n"
        "44444444  completed  5m ago  日本語のレビュー\n"
        "\n"
        "1 waiting for an answer, 1 running, 2 ended\n"
        "Answer with `rebyte answer 33333333`\n"
    )


def test_a_narrow_terminal_has_no_steps_and_nothing_wraps() -> None:
    shown = text(LiveState(ROWS, "Answer with `rebyte answer 33333333`", "Cannot read"), 39)
    assert shown.splitlines()[:2] == [
        "ID        STATUS     TIME    TITLE",
        "33333333  waiting    30s     Deploy",
    ]
    for columns in (20, 39, 59, 60, 80):
        lines = text(LiveState(ROWS, "Answer " * 9, "Cannot " * 9), columns).splitlines()
        wide = [line for line in lines if width_of(line) > max(columns, 37)]
        assert wide == [], columns


def test_a_low_terminal_shows_what_needs_someone_and_counts_the_rest() -> None:
    assert text(LiveState(ROWS), rows=6).splitlines() == [
        "ID        STATUS   TIME    TITLE                       STEP",
        "33333333  waiting  30s     Deploy                      ? Which region?",
        "22222222  running  5m 00s  Review the whole code base  * Bash: npm test",
        "",
        "1 waiting for an answer, 1 running, 2 ended; 2 not shown",
    ]
    assert len(text(LiveState(ROWS), rows=2).splitlines()) == 4


def test_without_tasks_it_says_so() -> None:
    assert text(LiveState([])) == "No tasks yet\n"


def test_statuses_have_their_colours_and_texts_are_harmless() -> None:
    evil = LiveRow("1", "running\x1b[2J", START, "a\nb\x1b]0;x\x07", "[bold]\u202e\x9b2J")
    shown = text(LiveState([*ROWS, evil], "`\x1b[2J`", "\x1b[2J"), color=True)
    assert "\x1b[33mwaiting\x1b[0m" in shown
    for mark in ("\x1b[2J", "\x1b]", "\x9b", "\u202e", "\x07"):
        assert mark not in shown


def test_the_selected_row_is_marked_and_always_shown() -> None:
    shown = text(LiveState(ROWS, "Enter logs", selected="11111111"))
    assert shown.splitlines() == [
        "  ID        STATUS     TIME    TITLE                       STEP",
        "  33333333  waiting    30s     Deploy                      ? Which region?",
        "  22222222  running    5m 00s  Review the whole code base  * Bash: npm test",
        "> 11111111  failed     5m ago  Migrate",
        "  44444444  completed  5m ago  日本語のレビュー",
        "",
        "1 waiting for an answer, 1 running, 2 ended",
        "Enter logs",
    ]
    for row in ROWS:
        lines = text(LiveState(ROWS, selected=row.id), rows=6).splitlines()
        assert len(lines) == 5
        assert [line[:10] for line in lines if line.startswith(">")] == [f"> {row.id}"]
    for columns in (20, 39, 59, 80):
        lines = text(LiveState(ROWS, selected="22222222"), columns).splitlines()
        assert [line for line in lines if width_of(line) > max(columns, 39)] == []


def test_other_output_stands_above_it_and_it_is_gone_at_the_end() -> None:
    terminal = Terminal()
    it = terminal.console(out_live=True)
    table = LiveTable(it, LiveState(ROWS[1:2]), lambda: NOW)
    with live_table(it, table):
        assert it.region is not None
        it.region.redraw()
        assert terminal.lines[1].startswith("22222222  running")
        it.write_err("said\n")
        table.state = LiveState(ROWS[:1])
        it.region.redraw()
        assert [line.split("  ")[0] for line in terminal.lines[:3]] == ["said", "ID", "11111111"]
    assert terminal.lines == ["said"]
