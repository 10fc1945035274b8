"""Reading and rewriting the file of settings: who may read it, and what survives."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rebyte_cli.config.json_schema import LINE, edit_config
from rebyte_cli.config.toml import has_comments, line_of, read_toml, schema_line
from rebyte_cli.errors import BadUsage
from rebyte_cli.system.permissions import UnsafeFile


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def add(path: Path, name: str) -> None:
    with edit_config(path, note=print) as document:
        document.setdefault("profiles", {})[name] = {}


WRITER = """
import sys
from pathlib import Path
from rebyte_cli.system.permissions import UnsafeFile
from rebyte_cli.config.json_schema import edit_config
for number in range(5):
    with edit_config(Path(sys.argv[1]), note=print) as document:
        document.setdefault("profiles", {})[f"{sys.argv[2]}{number}"] = {"output": "json"}
"""


def test_case_47_writers_in_several_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in "abcd"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0, 0]
    names = {f"{name}{number}" for name in "abcd" for number in range(5)}
    assert set(tomllib.loads(path.read_text())["profiles"]) == names
    assert sorted(os.listdir(path.parent)) == [".lock", "config.schema.json", "config.toml"]


class TestCase48:
    def test_case_48_a_new_file_is_private_even_under_umask_0(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "config.toml"
        before = os.umask(0)
        try:
            add(path, "work")
        finally:
            os.umask(before)
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)

    def test_case_48_an_old_file_that_all_could_read_becomes_private(self, tmp_path: Path) -> None:
        path = tmp_path / "rebyte" / "config.toml"
        path.parent.mkdir(mode=0o755)
        path.write_text('future = "kept"\n')
        path.chmod(0o644)
        add(path, "work")
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)
        assert tomllib.loads(path.read_text()) == {"future": "kept", "profiles": {"work": {}}}

    def test_case_48_a_folder_that_others_need_is_left_open(self, tmp_path: Path) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o755)
        (shared / "something-else").touch()
        add(shared / "config.toml", "work")
        assert (mode(shared), mode(shared / "config.toml")) == (0o755, 0o600)

    def test_case_48_a_file_that_others_could_replace_is_not_made(self, tmp_path: Path) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        (shared / "something-else").touch()
        shared.chmod(0o777)
        with pytest.raises(UnsafeFile, match="other users can replace"):
            add(shared / "config.toml", "work")
        assert not (shared / "config.toml").exists()

    def test_case_48_a_link_stays_a_link(self, tmp_path: Path) -> None:
        real = tmp_path / "dotfiles" / "rebyte.toml"
        real.parent.mkdir()
        real.write_text("x = 1\n")
        path = tmp_path / "config" / "config.toml"
        path.parent.mkdir()
        path.symlink_to(real)
        add(path, "work")
        assert path.is_symlink()
        assert tomllib.loads(real.read_text()) == {"x": 1, "profiles": {"work": {}}}
        assert (mode(real), os.listdir(real.parent)) == (0o600, ["rebyte.toml"])


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("x = 1\n")

    def fail() -> None:
        with edit_config(path, note=print) as document:
            document["x"] = 2
            raise BadUsage("no")

    with pytest.raises(BadUsage, match="no"):
        fail()
    assert path.read_text() == "x = 1\n"


def test_a_note_comes_before_comments_are_lost(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('# mine\nx = "a # b"\n')
    told: list[str] = []

    def note(text: str) -> None:
        assert "# mine" in path.read_text()
        told.append(text)

    with edit_config(path, note=note) as document:
        document["x"] = "a # b"
    assert (told, "# mine" in path.read_text()) == ([], True)
    with edit_config(path, note=note) as document:
        document["y"] = 1
    assert told == [f"Comments in {path} will be lost: the file is rewritten"]
    assert path.read_text() == f'{LINE}\n\nx = "a # b"\ny = 1\n'
    with edit_config(path, note=note) as document:
        document["y"] = 2
    assert len(told) == 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("x = 1 # here", True),
        ('x = "#"', False),
        ("x = '#'", False),
        ('x = "\\"#"', False),
        ('x = """\n# no\n"" "\\""" #"""', False),
        ("x = '''\n# no'''\ny = '' # yes", True),
        ("", False),
    ],
)
def test_a_hash_in_a_string_is_no_comment(text: str, answer: bool) -> None:
    tomllib.loads(text)
    assert has_comments(text) is answer


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("a",), 1), (("b",), None), (("t",), 2), (("t", "a"), 3), (("t", "b"), None),
        (("t", "u", "a"), 5), (("t", "u", "x"), 6), (("t", "u", "x", "y"), 6), (("u",), None),
    ],
)  # fmt: skip
def test_the_line_of_a_key(keys: tuple[str, ...], line: int | None) -> None:
    text = "a = 1\n[t]\na = 2\n[ t . 'u' ]\n\"a\" = 3\nx = { y = 1 }\nlast = 1\n"
    assert line_of(text, keys) == line


def test_what_a_string_of_several_lines_holds_is_neither_table_nor_key() -> None:
    text = 'a = \'\'\'\n[t]\nb = 1\'\'\'\nc = """\\\n[t]\n\\"""""\n[t]\nb = 1\n'
    tomllib.loads(text)
    assert (line_of(text, ["t"]), line_of(text, ["t", "b"])) == (7, 8)


@pytest.mark.parametrize(
    ("text", "keys", "line"),
    [
        ("a = '''x'''\n[t]\nb = '''y'''\n", ("t",), 2),
        ('a = """x"""\n[t]\nb = """y"""\n', ("t", "b"), 3),
        ("x = 1\n  [t]\n  B-2 = 1\n", ("t", "B-2"), 3),
        ("x = [\n1,\n]\n1 = 2\n", ("1",), 4),  # values of an array are no keys
    ],
)
def test_the_line_of_a_key_in_other_layouts(text: str, keys: tuple[str, ...], line: int) -> None:
    tomllib.loads(text)
    assert line_of(text, keys) == line


def test_a_change_within_a_table_is_written(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[profiles.work]\nhistory = true\n")
    with edit_config(path, note=print) as document:
        document["profiles"]["work"]["history"] = False
    assert path.read_text() == f"{LINE}\n\n[profiles.work]\nhistory = false\n"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfx = 1\n")
    assert read_toml(path) == ("x = 1\n", {"x": 1})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("#:schema a.json", "#:schema a.json"),
        ("  # mine\r\n\r\n \t\n#:schema\ta.json \r\nx = 1\n", "#:schema\ta.json"),
        ("x = 1\n#:schema a.json\n", ""),
        ("#:schema\na.json = 1\n", ""),
        ("", ""),
    ],
)
def test_the_schema_is_named_in_the_comments_at_the_top(text: str, line: str) -> None:
    assert schema_line(text) == line
