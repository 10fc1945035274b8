"""Texts and files that were written to stop their readers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from rebyte_cli.local.gateway.gateway_server import STACK
from rebyte_cli.system.untrusted import (
    DEEPEST_READ,
    read_file,
    read_json,
    read_settings,
    read_toml,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1} // b', {"a": 1}),
        ('{/* "x": 1, */ "a": [1, 2, ], }', {"a": [1, 2]}),
        (r'{"a": "// \" /* , ] */"}', {"a": '// " /* , ] */'}),
        ('{"a": 1', {}),
        ('{"a": "1', {}),
        ("[1]", {}),
        ("", {}),
        ("[" * 100_000, {}),
    ],
)
def test_comments_and_trailing_commas(text: str, found: dict[str, object]) -> None:
    assert read_settings(text) == found


@pytest.mark.parametrize("piece", [r"\"", '"', "/*", ",  ", "/", '",', "\\", '"\\'])
@pytest.mark.parametrize("start", ['{"', ""])
def test_no_text_takes_more_time_than_its_length(piece: str, start: str) -> None:
    assert_linear(lambda count: read_settings(start + piece * count))


@pytest.mark.parametrize(("opening", "closing"), ["[]", ('{"]\\"}": ', "}")])
def test_json_that_is_nested_too_deeply_is_not_decoded(opening: str, closing: str) -> None:
    """No decoder has to know how large the stack of its thread is."""

    def nested(levels: int) -> str:
        return opening * levels + "1" + closing * levels

    assert read_json(f'[{nested(DEEPEST_READ - 1)}, "{"[" * 5000}", {"[], " * 5000} 1]')
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(f"[[], [], {nested(DEEPEST_READ)}")


def test_no_json_ends_the_process_of_the_gateway() -> None:
    """As of Python 3.13, the decoder asks for more of the stack than the gateway's threads have."""
    script = (
        "import threading\n"
        "from rebyte_cli.system.untrusted import read_json\n"
        "def read():\n"
        "    for opening in ('[', '{\"a\":'):\n"
        "        for levels in (800, 801, 5000, 9000, 40000):\n"
        "            try: read_json(opening * levels)\n"
        "            except ValueError: pass\n"
        f"threading.stack_size({STACK})\n"
        "thread = threading.Thread(target=read)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("piece", ["[", '{"a":', '"', "]", "[]", '["",', "\\"])
@pytest.mark.parametrize("start", ["[" * 1000, '"'])
def test_no_json_takes_more_time_than_its_length(piece: str, start: str) -> None:
    def read(count: int) -> None:
        with suppress(ValueError):
            read_json(start + piece * count)

    assert_linear(read)


@pytest.mark.parametrize("piece", ["a.", '"a".', "a . ", "[a.", "[", "{a=", "'", '"\\'])
def test_a_key_of_toml_with_many_parts_is_refused(piece: str) -> None:
    def read(count: int) -> None:
        for text in (piece * count + "a=1", "a=" + piece * count):
            with suppress(ValueError):
                read_toml(text)

    assert_linear(read)


def test_toml_is_read() -> None:
    names = ".".join(["a"] * 100)
    assert read_toml(f'{names} = "{"b." * 200}"\n[c."d e"]\n')["c"] == {"d e": {}}
    with pytest.raises(ValueError, match="line 2"):
        read_toml(f"x = 1\n{names}.a = 1")
    with pytest.raises(ValueError, match="line 2"):
        read_toml("x = 1\ny\nz = 1")


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(3 << 30)
    assert read_file(str(file), 1000) is None
    file.write_bytes(b"text")
    assert read_file(str(file), 4) == b"text"
    assert read_file(str(file), 3) is None
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name in ("link", "pipe", "socket", ".", "missing", "/dev/zero"):
        assert read_file(str(tmp_path / name), 1000) is None


def assert_linear(read: Callable[[int], object]) -> None:
    def seconds(count: int) -> float:
        began = time.process_time()
        read(count)
        return time.process_time() - began

    assert seconds(20_000) < 30 * seconds(2_000) + 0.5
