"""Markdown and JSON on a terminal: rendered, and as harmless and complete as the text was."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from rebyte_cli.output.console import Console
from rebyte_cli.output.markup import (
    LONGEST_JSON,
    LONGEST_MARKDOWN,
    MOST_HIGHLIGHTED,
    MOST_MARKDOWN,
    json_highlighter,
    speech,
)
from rebyte_cli.output.records import TASK, Document, RecordList, Records, Text
from tests.output.test_safety import HOSTILE, RAW
from tests.screens import ROWS, TASK_DONE, Shown, console

SGR = re.compile(r"\x1b\[[0-9;]*m")
ANSWER = """\
# Two problems

Both are *small* and in `src/login.py`,
see [the docs](https://docs.example/login) or <https://example.com/x>.

1. Use `List<T>` instead of <T>, ![a picture](https://example.com/p.png)
2. A long item that has to be wrapped before the edge of a terminal of 60 columns

```python
def f():
    return 1
```
"""


def terminal(columns: int = 60, **more: Any) -> Console:
    return console(tty=True, **{"color": True, "out_live": True, "width": columns, **more})


def rendered(text: str, columns: int = 60) -> str:
    return speech(terminal(columns))(text)


def plain(text: str, columns: int = 60) -> str:
    return SGR.sub("", rendered(text, columns))


def test_an_answer_is_rendered_and_nothing_of_it_is_lost() -> None:
    assert plain(ANSWER) == (
        "Two problems\n"
        "\n"
        "Both are small and in src/login.py,\n"
        "see the docs (https://docs.example/login) or\n"
        "https://example.com/x.\n"
        "\n"
        " 1 Use List<T> instead of <T>, !a picture\n"
        "   (https://example.com/p.png)\n"
        " 2 A long item that has to be wrapped before the edge of a\n"
        "   terminal of 60 columns\n"
        "\n"
        "  def f():\n"
        "      return 1\n"
    )
    shown = rendered(ANSWER)
    assert "\x1b[1;4mTwo problems\x1b[0m" in shown
    assert "\x1b[3msmall\x1b[0m" in shown
    assert "\x1b]8;" not in shown  # a link that hides where it leads


@pytest.mark.parametrize(
    "text",
    [
        'The sources:\n\n[1]: https://example.com/a\n[2]: src/login.py:12 "word"',
        f"{'>' * 40} word",
        "".join(f"{'  ' * level}- word{level}\n" for level in range(40)),
        f"{'>' * 18} word\n{'>' * 18}\n{'>' * 18} - a\n",
    ],
)
def test_what_the_parser_would_drop_is_shown(text: str) -> None:
    shown = plain(text)
    for word in re.findall(r"\w{4,}", text):
        assert word in shown, word


@pytest.mark.parametrize("info", ["12:15:src/app.py", 'python title="app.py"', "\x1b[31m"])
def test_what_a_fence_says_besides_the_language_is_shown(info: str) -> None:
    shown = plain(f"```{info}\nx = 1\n```\n")
    assert shown.splitlines()[0].strip() == "```" + info.replace("\x1b", "\\x1b")
    assert "x = 1" in shown
    assert "```" not in plain("```c++\nint x;\n```\n")


def test_the_title_of_a_link_is_shown() -> None:
    shown = plain('See [the docs](https://x.example "of \x1b[2J 2024") or [more](/a).', 100)
    assert shown == 'See the docs (https://x.example "of \\x1b[2J 2024") or more (/a).\n'


def test_a_long_word_in_a_table_is_broken_and_not_cut_off() -> None:
    path = "src/components/checkout/payment_methods.py:128"
    shown = plain(f"|file|why|\n|-|-|\n|{path}|it is too long for its column|\n", 40)
    assert path in "".join(line[:20].strip() for line in shown.splitlines())
    assert "|" not in shown


@pytest.mark.parametrize("columns", [20, 60])
@pytest.mark.parametrize(
    "text",
    [
        f"{'>' * 16} deep",
        "".join(f"{'  ' * level}- word{level}\n" for level in range(9)),
        f"{'|head' * 40}|\n{'|-' * 40}|\n{'|cell' * 40}|\n",
    ],
)
def test_what_does_not_fit_is_shown_as_it_came(text: str, columns: int) -> None:
    shown = "".join(plain(text, columns).split())
    for word in re.findall(r"\w{4,}", text):
        assert shown.count(word) >= text.count(word), word


def test_a_table_is_a_table() -> None:
    table = plain("| file | lines |\n|---|--:|\n| a.py | 12 |\n")
    assert re.findall(r"[\w.]+", table) == ["file", "lines", "a.py", "12"]
    assert "|" not in table


@pytest.mark.parametrize("columns", [20, 40, 300])
def test_lines_fit_and_are_never_too_long_to_read(columns: int) -> None:
    lines = plain("word " * 100 + "\n\n- " + "item " * 50, columns).splitlines()
    assert max(map(len, lines)) <= min(columns, 100)
    assert set(" ".join(lines).split()) == {"word", "item", "•"}


@pytest.mark.parametrize(
    "more", [{"color": False}, {"out_live": False}], ids=["NO_COLOR", "TERM=dumb"]
)
def test_without_colours_the_text_stays_as_it_came(more: dict[str, bool]) -> None:
    text = "# A *title*\r\n\x1b[2J" + "word " * 30
    prepared = speech(terminal(**more))(text)
    shown = Shown(Text([prepared], prose=True), "text", tty=True, width=40)
    assert shown.out == "# A *title*\n\\x1b[2J" + "word " * 30 + "\n"


def test_a_pipe_gets_the_text_as_it_came() -> None:
    piped = console(tty=False, color=True)  # --color always
    assert speech(piped)("# A *title*") == "# A *title*"
    assert json_highlighter(piped)('{"a": 1}') == '{"a": 1}'


@pytest.mark.parametrize("evil", HOSTILE)
def test_no_control_sequence_comes_out_raw(evil: str) -> None:
    for text in (evil, f"`{evil}`", f"```{evil}\n{evil}\n```", f"[{evil}](http://x/{evil})"):
        assert not RAW.search(plain(text)), text


def test_entities_and_escaped_addresses_are_harmless() -> None:
    shown = plain("&#x202e; &#27;[2J <https://x.example/%E2%80%AEexe> &#x9b;")
    assert not RAW.search(shown)
    assert "\\u202e" in shown


@pytest.mark.parametrize("unit", ["[", "[a](", "*a_ ", ">", "- ", "![", "[[]", "&", "a\n", "|a"])
def test_hostile_text_takes_linear_time(unit: str) -> None:
    def seconds(size: int) -> float:
        text = (unit * size)[:size]
        begun = time.thread_time()
        rendered(text)
        return time.thread_time() - begun

    seconds(100)  # the imports
    # One of five: a busy machine takes its caches away.
    assert any(seconds(8000) < max(9 * seconds(2000), 0.5) for _ in range(5))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("language", "unit"), [("make", "a"), ("java", "a b "), ("console", "a::")]
)
def test_hostile_code_takes_no_longer_than_other_text(language: str, unit: str, count: int) -> None:
    """Some lexers take the square of what they get, in one fence or in several."""
    block = unit * (MOST_HIGHLIGHTED // len(unit)) + unit
    begun = time.thread_time()
    shown = plain(f"```{language}\n{block}\n```\n\n" * count)
    assert time.thread_time() - begun < 1
    assert "".join(shown.split()) == "".join(block.split()) * count


def test_code_is_highlighted_until_it_is_too_much() -> None:
    small, large = "import x\n", "import x\n" * (MOST_HIGHLIGHTED // 9)
    texts = (small, large, large + small)
    shown = [rendered(f"```python\n{each}```\n") for each in texts]
    unnamed = [rendered(f"```\n{each}```\n") for each in texts]
    assert [a == b for a, b in zip(shown, unnamed, strict=True)] == [False, False, True]
    both = rendered(f"```python\n{large}{small}```\n\n```python\n{small}```\n")
    assert both == unnamed[2] + "\n" + shown[0]


def test_many_texts_have_a_limit_in_all() -> None:
    """A transcript may have a thousand; what is plain anyway counts too."""
    render = speech(terminal(60))
    assert render("*a*") != "*a*"
    for _ in range(MOST_MARKDOWN // LONGEST_MARKDOWN):
        render("x" * (LONGEST_MARKDOWN + 1))
    assert render("*a*") == "*a*"


def test_what_is_too_long_is_not_rendered() -> None:
    text = "*a* " * (LONGEST_MARKDOWN // 4 + 1)
    assert rendered(text) == text
    piece = f'"{"x" * (LONGEST_JSON // 4)}"\n'
    highlight = json_highlighter(terminal())
    shown = [highlight(piece) for _ in range(4)]
    assert shown[0] == shown[2] != piece
    assert shown[3] == piece


@pytest.mark.parametrize("form", ["json", "jsonl"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Records(TASK, [TASK_DONE, {"id": "\x1b[2J[bold]" + "x" * 200}]),
        lambda: RecordList(TASK, iter(ROWS), {"total": 3}),
        lambda: Document({"a": [1, None, True, "b"]}),
    ],
    ids=["records", "list", "document"],
)
def test_json_in_colour_is_the_same_json(make: Any, form: str) -> None:
    bare = Shown(make(), form)
    colored = Shown(make(), form, tty=True, color=True, out_live=True, width=40)
    assert SGR.sub("", colored.out) == bare.out
    assert "\x1b[" in colored.out
    for more in ({"color": False}, {"out_live": False}, {"out_live": False, "tty": False}):
        look = {"tty": True, "color": True, "out_live": True, **more}
        assert "\x1b[" not in Shown(make(), form, **look).out, more
