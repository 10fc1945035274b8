"""`clean`, and what a screen finds out about its streams."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import unicodedata

import pytest

from rebyte_cli.output.console import clean, one_line


@pytest.mark.slow
def test_every_control_and_direction_character_of_unicode() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        bidi = unicodedata.bidirectional(character)
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or bidi in (
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
        ):
            assert clean(character) != character or character in "\t\n", hex(code)
    assert clean("\u200c\u200d\u200e\u200f") == "\u200c\u200d\u200e\u200f"  # scripts need these


@pytest.mark.parametrize(
    "text",
    [
        *("a\xadb", "a\u180eb", "a\ufff9b\ufffac\ufffb"),
        # Some of them count as letters, even in names of variables.
        *(f"a{chr(code)}" for code in (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0)),
        *(f"a{chr(code)}" for code in (0xFFF0, 0x1BCA0, 0x1D173, 0xE01F0, 0xE0FFF)),
        *(f"a{chr(code)}" for code in range(0x206A, 0x2070)),
        *(f"a{chr(code)}" for code in (0xE0100, 0xE01EF)),
    ],
    ids=ascii,
)
def test_case_74_characters_that_show_as_nothing_are_escaped(text: str) -> None:
    assert clean(text).isascii()
    assert one_line(text).isascii()
    assert clean("☎\ufe0f 葛\ufe00") == "☎\ufe0f 葛\ufe00"  # emoji and CJK need these


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1m", "\\x1b[1m"),
        ("\x9b", "\\x9b"),
        ("\u202e", "\\u202e"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("tab\tnew\n", "tab\tnew\n"),
        ("naïve 日本語 🙂 \\x1b [/x] \xa0\u3000", "naïve 日本語 🙂 \\x1b [/x] \xa0\u3000"),
    ],
)
def test_escapes_are_visible(text: str, shown: str) -> None:
    assert clean(text) == shown


REPORT = """
import os, sys
from rebyte_cli.output.console import Console
s = Console.detect(os.environ, *sys.argv[1:])
line = f"{s.out_tty} {s.err_tty} {s.out_color} {s.err_color} {s.live} {s.width}"
os.write(3, line.encode())
"""


def detected(environment: dict[str, str], *arguments: str, tty: bool = True) -> str:
    """out_tty, err_tty, out_color, err_color, live and width, as a new process finds them."""
    read, write = os.pipe()
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    script = f"import os; os.dup2({write}, 3)\n{REPORT}"
    stream = slave if tty else subprocess.DEVNULL
    try:
        subprocess.run(
            [sys.executable, "-c", script, *arguments],
            stdout=stream,
            stderr=stream,
            env={"PATH": os.environ["PATH"], **environment},
            pass_fds=[write],
            check=True,
        )
        return os.read(read, 1000).decode()
    finally:
        for descriptor in (read, write, master, slave):
            os.close(descriptor)


@pytest.mark.parametrize(
    ("environment", "arguments", "tty", "found"),
    [
        ({"TERM": "xterm"}, (), True, "True True True True True 80"),
        ({"TERM": "xterm", "COLUMNS": "132"}, (), True, "True True True True True 132"),
        ({"COLUMNS": "wide"}, (), False, "False False False False False 80"),
        ({"TERM": "dumb"}, (), True, "True True False False False 80"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, (), True, "True True False False True 80"),
        ({"TERM": "xterm", "NO_COLOR": ""}, (), True, "True True True True True 80"),
        ({"FORCE_COLOR": "1"}, (), False, "False False True True False 80"),
        ({"FORCE_COLOR": "0"}, (), False, "False False False False False 80"),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, (), True, "True True False False True 80"),
        ({"NO_COLOR": "1"}, ("always",), False, "False False True True False 80"),
        ({"FORCE_COLOR": "1"}, ("never",), True, "True True False False True 80"),
    ],
)
def test_detect(
    environment: dict[str, str], arguments: tuple[str, ...], tty: bool, found: str
) -> None:
    assert detected(environment, *arguments, tty=tty) == found
