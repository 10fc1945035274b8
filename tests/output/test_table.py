"""Tables for people: whole literals, on a terminal and in a pipe."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rebyte_cli.output.records import (
    ARTIFACT,
    CREDITS,
    LOCAL,
    RESULT,
    SKILL,
    TASK,
    TASK_ROW,
    WEBHOOK,
    RecordList,
    Records,
)
from rebyte_cli.output.table import ago, byte_size, truncate, width_of, wrap, wrap_lines
from tests.screens import NOW, ROWS, TASK_DONE, Shown, dedent, out


def table(value: Any, **look: Any) -> str:
    return out(value, "table", **look)


def test_a_listing_on_a_terminal_is_cut_to_its_width() -> None:
    printed = table(RecordList(TASK_ROW, ROWS, {"total": 3}), tty=True, width=80)
    assert printed == dedent("""
        ID                                    STATUS   TITLE                     CREATED
        550e8400-e29b-41d4-a716-446655440000  ended    A security review of th…  5m ago
        660e8400-e29b-41d4-a716-446655440001  running  日本語のレビュー          2d ago
        770e8400-e29b-41d4-a716-446655440002  running                            5s ago
    """)
    assert max(map(width_of, printed.splitlines())) <= 80


def test_a_listing_in_a_pipe_is_whole() -> None:
    long = "A security review of the whole code base, slowly"
    assert table(RecordList(TASK_ROW, ROWS), fields=("status", "title", "createdAt")) == dedent(f"""
        STATUS   TITLE                                             CREATED
        ended    {long}  5m ago
        running  日本語のレビュー                                  2d ago
        running                                                    5s ago
    """)


def test_a_listing_in_colour() -> None:
    rows = [{"id": str(i), "status": s} for i, s in enumerate(["completed", "failed", "odd"])]
    rows += [{"id": "3", "status": "running"}, {"id": "4", "status": "canceled"}]
    rows += [{"id": "5", "status": None, "completedAt": "2026-02-09T10:32:00.000Z"}]
    rows += [{"id": "6", "status": "running", "question": True}]
    printed = table(RecordList(TASK_ROW, rows), tty=True, color=True, fields=("status", "id"))
    assert printed == (
        "\x1b[1mSTATUS\x1b[0m     \x1b[1mID\x1b[0m\n"
        "\x1b[32mcompleted\x1b[0m  0\n"
        "\x1b[31mfailed\x1b[0m     1\n"
        "odd        2\n"
        "\x1b[36mrunning\x1b[0m    3\n"
        "\x1b[2mcanceled\x1b[0m   4\n"
        "ended      5\n"  # how is not known, so it has no colour
        "\x1b[1m\x1b[33mwaiting\x1b[0m    6\n"
    )


def test_numbers_stand_to_the_right_and_the_widest_text_gives_way() -> None:
    rows = [
        {"line": 7, "title": "k", "status": "failed", "error": {"code": "c", "message": "m" * 50}},
        {"line": 1200, "title": "k", "status": "completed", "id": "t1", "error": None},
    ]
    assert table(RecordList(RESULT, rows), tty=True, width=40) == dedent("""
        LINE  TITLE  STATUS     ID  ERROR
           7  k      failed         mmmmmmmmmmm…
        1200  k      completed  t1
    """)


def test_a_row_without_an_id_has_no_short_one() -> None:
    rows = [{"line": 1, "status": "completed", "id": "task-1"}, {"line": 2, "status": "pending"}]
    short = RecordList(RESULT, rows, shorten=lambda ids: {each: each[:4] for each in ids})
    assert table(short, tty=True) == dedent("""
        LINE  TITLE  STATUS     ID    ERROR
           1         completed  task
           2         pending
    """)


def test_two_long_columns_share_the_loss() -> None:
    rows = [{"name": "a", "description": "t" * 60, "folder": "p" * 30}]
    fields = ("name", "description", "folder")
    printed = table(RecordList(SKILL, rows), tty=True, width=45, fields=fields)
    assert printed == dedent(f"""
        NAME  DESCRIPTION          FOLDER
        a     {"t" * 18}…  {"p" * 17}…
    """)


def test_a_terminal_too_narrow_for_the_ids_shows_them_whole() -> None:
    printed = table(RecordList(TASK_ROW, ROWS[:1]), tty=True, width=20)
    assert printed.splitlines()[1] == (
        "550e8400-e29b-41d4-a716-446655440000  ended   A secur…  5m ago"
    )


def test_a_title_of_two_lines_stays_on_one() -> None:
    rows = [{"id": "a", "title": "one\ntwo\t[/x] [bold]", "createdAt": "soon"}]
    assert table(RecordList(TASK_ROW, rows)) == dedent("""
        ID  STATUS   TITLE                CREATED
        a   running  one two [/x] [bold]  soon
    """)


def test_an_empty_listing_says_so_on_stderr() -> None:
    shown = Shown(RecordList(TASK_ROW, []), "table", tty=True)
    assert (shown.out, shown.err, shown.status) == ("", "no tasks\n", 0)
    shown = Shown(RecordList(TASK_ROW, []), "table", tty=True, quiet=True)
    assert (shown.out, shown.err, shown.status) == ("", "", 0)


def test_a_record_is_names_and_values() -> None:
    assert table(Records(TASK, [TASK_DONE]), tty=True) == dedent("""
        ID            550e8400-e29b-41d4-a716-446655440000
        URL           https://app.rebyte.ai/run/550e8400-e29b-41d4-a716-446655440000
        Status        completed
        Title         Security review
        Executor      opencode
        Created       2026-02-09T10:30:00.000Z (5m ago)
        Completed     2026-02-09T10:32:00.000Z (3m ago)
        Prompts
          ID        STATUS     SUBMITTED  COMPLETED
          880e8400  succeeded  4m ago     3m ago
        Final result  Two "problems",
                      both small.
        Extra         {"new":[1,2.5,true]}
    """)


def test_long_values_are_wrapped_under_themselves_on_a_terminal() -> None:
    link = "https://app.rebyte.ai/run/550e8400-e29b-41d4-a716"
    answer = (
        f"The quick brown fox jumps over the dog.\n\n  Link: {link} .\n" + "日本語のレビュー" * 2
    )
    row = {"id": "t1", "finalResult": answer, "extra": {"k": "0123456789" * 4}}
    assert table(Records(TASK, [row]), tty=True, width=40) == dedent(f"""
        ID            t1
        Final result  The quick brown fox jumps
                      over the dog.

                        Link:
                      {link}
                      .
                      日本語のレビュー日本語のレ
                      ビュー
        Extra         {{"k":"01234567890123456789
                      01234567890123456789"}}
    """)
    assert f"  Link: {link} .\n" in table(Records(TASK, [row]))


def test_a_name_from_elsewhere_leaves_room_for_the_values() -> None:
    printed = table(Records(TASK, [{"id": "t1", "k" * 100: "v " * 20}]), tty=True, width=40)
    assert printed == f"ID             t1\nK{'k' * 11}…  {'v ' * 12}v\n{' ' * 15}v v v v v v v\n"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["x", "x ", "日", "\t", "日\u200d", "🇩"])
def test_wrapping_takes_linear_time(text: str) -> None:
    def seconds(count: int) -> float:
        begun = time.thread_time()
        assert max(map(width_of, wrap(text * count, 60))) <= 60
        return time.thread_time() - begun

    # One of five: a busy machine takes its caches away.
    assert any(seconds(80_000) < 8 * max(seconds(20_000), 0.005) for _ in range(5))


def test_a_record_in_colour() -> None:
    value = Records(TASK, [{"id": "a", "status": "failed", "prompts": []}])
    assert table(value, tty=True, color=True) == (
        "\x1b[1mID\x1b[0m       a\n"
        "\x1b[1mStatus\x1b[0m   \x1b[31mfailed\x1b[0m\n"
        "\x1b[1mPrompts\x1b[0m\n"
    )


def test_records_are_divided_by_an_empty_line() -> None:
    assert table(Records(CREDITS, [{"balance": 10}, {"balance": 2.5}])) == (
        "Balance  10\n\nBalance  2.5\n"
    )


@pytest.mark.parametrize(
    ("timestamp", "relative"),
    [
        ("2026-02-09T10:35:00.000Z", "now"),
        ("2026-02-09T10:34:59.000Z", "1s ago"),
        ("2026-02-09T10:35:30Z", "now"),
        ("2026-02-09T10:37:00Z", "in 2m"),
        ("2026-02-09T10:34:01Z", "59s ago"),
        ("2026-02-09T10:34:00", "1m ago"),
        ("2026-02-09T11:34:00+01:00", "1m ago"),
        ("2026-02-09T08:35:00Z", "2h ago"),
        ("2026-02-08T10:35:00Z", "1d ago"),
        ("2026-01-01T10:35:00Z", "1mo ago"),
        ("2024-02-09T10:35:00Z", "2y ago"),
        ("0001-01-01T00:00:00+23:59", "2026y ago"),
        ("", ""),
        ("yesterday\x1b", "yesterday\\x1b"),
        ("99999-01-01", "99999-01-01"),
    ],
)
def test_times_are_relative(timestamp: str, relative: str) -> None:
    assert ago(timestamp, NOW) == relative


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("plain", 5, "plain"),
        ("plainer", 5, "plai…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("a word more", 8, "a word…"),
        ("e\u0301e\u0301e\u0301", 2, "e\u0301…"),
    ],
)
def test_wide_characters_count_twice(text: str, width: int, short: str) -> None:
    assert truncate(text, width) == short
    assert width_of(short) <= width


PIECES = ("日", "e\u0301", "क्\u200dष", "می\u200cخ", "👩\u200d👩\u200d👧", "👍🏽", "❤\ufe0f", "🇩🇪")


@pytest.mark.parametrize("piece", PIECES, ids=ascii)
def test_what_belongs_together_is_not_divided(piece: str) -> None:
    """Half a flag is a letter, and half a family another one."""
    text = piece * 40
    for width in range(1, width_of(piece) * 40):
        kept = truncate(text, width)
        assert width_of(kept) <= width
        if piece != PIECES[3]:  # a word, which may end after each letter
            assert kept == piece * ((len(kept) - 1) // len(piece)) + "…"
    lines = list(wrap(text, 20))
    assert "".join(lines) == text
    assert all(width_of(line) <= 20 and not line.startswith("\u200c") for line in lines)
    if piece != PIECES[3]:
        assert {line.replace(piece, "") for line in lines} == {""}


def test_joiners_hide_no_width() -> None:
    """Letters are never joined on the screen, so a title of them would run over its column."""
    assert width_of(truncate("x\u200d" * 1000, 20).replace("\u200d", "")) <= 20


def test_case_76_objects_with_ever_new_keys_are_shown_in_linear_time() -> None:
    """As a table they would have as many columns as rows."""

    def seconds(count: int) -> float:
        items = [{f"key{number}": number} for number in range(count)]
        began = time.thread_time()
        shown = Shown(Records(TASK, [{"id": "t1", "views": items}]), "table", tty=True)
        assert shown.out.splitlines()[-1] == f'  {{"key{count - 1}":{count - 1}}}'
        return time.thread_time() - began

    assert any(seconds(8000) < 8 * seconds(2000) + 0.1 for _ in range(5))


def test_labels_are_words() -> None:
    local = {
        "path": "/x",
        "agentsRunning": 0,
        "keyLeaks": 0,
        "baseUrl": "u",
        "sandboxApiKey": "k",
    }
    printed = table(Records(LOCAL, [local]))
    labels = [line.split("  ")[0] for line in printed.splitlines()]
    assert labels == ["Path", "Key leaks", "Agents running", "Base URL", "Sandbox API key"]


def test_sizes_have_units() -> None:
    sizes = {"a": 0, "b": 1023, "c": 1_288_490}
    rows = [{"name": name, "size": size} for name, size in sizes.items()]
    assert table(RecordList(ARTIFACT, rows), fields=("name", "size")) == dedent("""
        NAME     SIZE
        a         0 B
        b      1023 B
        c     1.2 MiB
    """)
    assert byte_size(1024**2 - 1) == "1.0 MiB"
    assert byte_size(5 * 1024**5) == "5120.0 TiB"


def test_a_heading_leaves_out_is() -> None:
    listing = RecordList(WEBHOOK, [{"isActive": True}])
    assert table(listing, fields=("isActive",)) == "ACTIVE\nyes\n"


def test_lines_are_wrapped_between_words_under_their_text() -> None:
    text = (
        "> Deploy the application to every region\n"
        "* Bash: npm run deploy -- --region eu-west-1\n"
        "  2. Stop here: Answer with what is known so far.\n"
        "Hint: Resume with `rebyte wait 550e8400-e29b-41d4-a716` or not\n"
        "short\n"
    )
    assert wrap_lines(text, 30) == (
        "> Deploy the application to\n"
        "> every region\n"
        "* Bash: npm run deploy --\n"
        "  --region eu-west-1\n"
        "  2. Stop here: Answer with\n"
        "     what is known so far.\n"
        "Hint: Resume with\n"
        "`rebyte wait 550e8400-e29b-41d4-a716`\n"
        "or not\n"
        "short\n"
    )
    assert wrap_lines(text, 80) == text
