"""What of a jailed program's control strings reaches the user's terminal."""

from __future__ import annotations

import random
import time

import pytest

from rebyte_cli.local.agents.sandbox.control_strings import LONGEST, ControlStrings

ST = b"\x1b\\"
PASSED = [
    *(b"]0;title", b"]1;", b"]2;caf\xc3\xa9", b"]4;1;?", b"]4;1;rgb:ff/00/00;2;?", b"]104;1;2"),
    *(b"]104", b"]10;?", b"]11;#fff", b"]12;red", b"]19;?", b"]110", b"]112;", b"]119"),
    *(b"]8;;https://example.com/?a=1;2", b"]8;id=1;file:///x", b"]8;;", b"]9;4;1;50", b"]9;done"),
    *(b"]777;notify;title;text", b"P+q544e;436f", b"P$qm", b'P$q"p'),
]
DROPPED = [
    *(b"]7;file:///tmp", b"]52;c;?", b"]52;c;AAAA", b"]052;c;?", b"]9;9;/tmp", b"]9;6;macro"),
    *(b"]9;10", b"]1337;CurrentDir=/tmp", b"]1337;File=:AA", b"]50;?", b"]99;;x", b"]633;P;Cwd=/"),
    *(b"]777;precmd", b"]I/tmp/icon", b"]lx", b"]", b"]40;x", b"]20;/etc/passwd", b"]119x"),
    *(b"Ptmux;x", b"P0;1|17/78", b"Pq#0", b"P$qlong", b"P+pAA", b"P", b"^private", b"Xsos"),
    *(b"_Gi=1,t=f;L2V0Yw==", b"_"),
]


def passed(*pieces: bytes) -> bytes:
    strings = ControlStrings()
    return b"".join(strings.passed(piece) for piece in pieces)


@pytest.mark.parametrize("string", PASSED)
@pytest.mark.parametrize("end", [b"\x07", ST])
def test_what_a_screen_needs_is_passed_on(string: bytes, end: bytes) -> None:
    text = b"a\x1b" + string + end + b"b"
    assert passed(text) == text
    assert passed(*(text[at : at + 1] for at in range(len(text)))) == text


@pytest.mark.parametrize("string", DROPPED)
@pytest.mark.parametrize("end", [b"\x07", ST, b"\xc2\x9c"])
def test_other_strings_are_not(string: bytes, end: bytes) -> None:
    text = b"a\x1b" + string + end + b"b"
    assert passed(text).replace(ST, b"") == b"ab"
    assert passed(*(text[at : at + 1] for at in range(len(text)))) == passed(text)


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (b"a\xc2\x9d52;c;?\x07b", b"a\x1b\\b"),
        (b"a\xc2\x9d0;t\xc2\x9cb", b"a\x1b]0;t\x1b\\b"),
        (b"a\x9d52;c;?\x07b", b"a\xef\xbf\xbd52;c;?\x07b"),  # as text, wherever it is shown
        (b"\xe2\x9d\x9d \xf0\x9f\x98\x90", b"\xe2\x9d\x9d \xf0\x9f\x98\x90"),
        (b"\x1b\x00\r]52;c;?\x07b", b"\x00\r\x1b\\b"),
        (b"\x1b]5\x002;c;?\x07b", b"\x1b\\b"),
        (b"\x1b]0;a\x1b]52;c;?\x07b", b"\x1b\\\x1b\\b"),
        (b"\x1b]0;a\xc2\x9d52;c;?\x07b", b"\x1b\\\x1b\\b"),
        (b"\x1b]0;a\r\nb\xc2\x85c\xff\x07", b"\x1b]0;abc\x07"),
        (b"\x1bPtmux;\x1b\x1b]52;c;?\x07\x1b\\b", b"\x1b\\\x1b\\\x1b\\b"),
        (b"\x1bP\x1b]7;/tmp\x07\x1b\\b", b"\x1b\\\x1b\\\x1b\\b"),
        (b"\x1b\x1b]7;/\x07]52;c;?\x07b", b"\x1b\\]52;c;?\x07b"),
        (b"\x1b[3\x1b]7;/\x071mb", b"\x1b[3\x1b\\1mb"),
        (b"\xc2\x1b]7;/\x07\x9d52;c;?\x07b", b"\xc2\x1b\\\xef\xbf\xbd52;c;?\x07b"),
        (b"\x1b]52;c;\x18b", b"\x1b\\b"),
        (b"\x1b]0;a\x1ab", b"\x1b\\b"),
        (b"\x1b]52;c;AA\x1b[1mb", b"\x1b\\\x1b[1mb"),
        (b"\x1b(0\x1b[0 q\x1b7\x1bcx\xc2\x9b1m", b"\x1b(0\x1b[0 q\x1b7\x1bcx\xc2\x9b1m"),
        (b"caf\xe9 \xff\r\n\t\x07", b"caf\xe9 \xff\r\n\t\x07"),
    ],
)
def test_whatever_its_spelling(sent: bytes, seen: bytes) -> None:
    assert passed(sent) == seen
    assert passed(*(sent[at : at + 1] for at in range(len(sent)))) == seen


@pytest.mark.parametrize("string", [b"\x1b]52;c;", b"\x1b]0;", b"\x1b_G", b"\x1bX", b"\xc2\x90"])
def test_a_string_that_does_not_end_swallows_no_more_than_a_limit(string: bytes) -> None:
    assert passed(string + b"a" * (LONGEST - 20) + b"\x1b[mshown").endswith(b"\x1b\\\x1b[mshown")
    pieces = [b"a" * 1000] * (LONGEST // 1000 + 1)
    seen = passed(string, *pieces, b"\x07 shown")
    assert seen == passed(string + b"".join(pieces) + b"\x07 shown")
    assert seen.startswith(ST + b"a")
    assert seen.endswith(b"a\x07 shown")
    assert len(seen) < 1100


PIECES = [
    *(b"\x1b", b"\x1b", b"]", b"P", b"X", b"^", b"_", b"\\", b"\x07", b"\x18", b"\x1a", b"\xc2"),
    *(b"\x9d", b"\x90", b"\x98", b"\x9e", b"\x9f", b"\x9c", b"\x9b", b"\xe2", b"\xf0", b"\xc1"),
    *(
        b"\x00",
        b"\x7f",
        b"\n",
        b"0",
        b"2",
        b"5",
        b"52",
        b"7",
        b";",
        b"c;?",
        b"tmux;",
        b"+q",
        b"[1m",
    ),
    *(
        b"\x1b]",
        b"\x1bP",
        b"\x1b_",
        b"\xc2\x9d",
        b"\xc2\x9c",
        b"\x1b\\",
        b"0;",
        b"8;;",
        b"52;",
        b"7;",
    ),
    *(b"[1m", b"7;", b"G", b"\xff", b"a", b"(", b"%@", b"k", b" "),
]


def strings_seen(data: bytes) -> list[str]:
    """The control strings that a terminal finds, whatever ends or interrupts them.

    A separate state machine: after an escape controls are ignored, and what begins a string
    counts within another one, too.
    """
    text = data.decode("utf-8", "replace")
    found, state, body = list[str](), "ground", ""
    eight = {"\x90": "P", "\x98": "X", "\x9d": "]", "\x9e": "^", "\x9f": "_"}
    for one in text:
        if one in eight:
            found += [body] if state.startswith("string") else []
            state, body = "string", eight[one]
        elif state.endswith("escape"):
            if one == "\x1b" or (ord(one) < 32 and one not in "\x18\x1a") or one == "\x7f":
                continue
            found += [body] if state.startswith("string") else []
            state = "string" if one in "P]X^_" else "ground"
            body = one
        elif one == "\x1b":
            state = "string escape" if state == "string" else "escape"
        elif state == "string":
            if one in "\x07\x18\x1a\x9c":
                found.append(body)
                state = "ground"
            elif ord(one) >= 32 and one != "\x7f":
                body += one
    return found + ([body] if state.startswith("string") else [])


@pytest.mark.parametrize("seed", range(20))
def test_no_mix_of_pieces_makes_another_string(seed: int) -> None:
    """What reaches the terminal does not depend on how the program's output was cut, either."""
    chance = random.Random(seed)
    for _ in range(500):
        data = b"".join(chance.choices(PIECES, k=chance.randint(1, 30)))
        whole = passed(data)
        cuts = sorted(chance.choices(range(len(data) + 1), k=chance.randint(0, 6)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert passed(*pieces) == whole, data
        for string in strings_seen(whole):
            number = string[1:].partition(";")[0]
            assert string[0] == "]" or string.startswith("P+q"), (data, whole)
            assert string[0] == "P" or number in ("0", "2", "5", "8"), (data, whole)


def test_a_builds_output_is_not_slowed_down() -> None:
    """Megabytes, coloured and not in English, take a small part of a second."""
    line = "\x1b[32m✔\x1b[0m compiling some/module.c → ok, no warnings at all here\r\n".encode()
    data = (line * 1000)[:65536]
    strings = ControlStrings()
    start = time.process_time()
    for _ in range(160):
        strings.passed(data)
    assert time.process_time() - start < 5
