"""Folders that are private whatever the umask is, and files that others can change: refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.system import permissions
from rebyte_cli.system.permissions import UnsafeFile, check_private, private_folder, read_private
from tests.conftest import Done

Rebyte = Callable[..., Done]


@pytest.fixture
def rebyte(inside: Rebyte) -> Rebyte:
    """The command, without a process for each call."""
    return inside


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("no_umask")
def test_case_60_every_folder_that_is_made_is_private(tmp_path: Path) -> None:
    private_folder(tmp_path / "a" / "b" / "c")
    assert [mode(tmp_path / part) for part in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_case_60_what_commands_make_is_private(
    home: Path, rebyte: Rebyte, service: Any, no_umask: None
) -> None:
    (home / "t.txt").write_text("Say hello [[run=1ms]]\n")
    for words in (
        ["profile", "create", "work"],
        ["local", "key"],
        ["completion", "bash", "--install"],
        ["man", "--install"],
        ["skill", "--install", str(home / "agent" / "skills")],
        ["batch", "t.txt", "--text", "--report", "r.html"],
    ):
        assert rebyte(*words).status == 0, words
    made = [path for path in home.rglob("*") if path.is_dir()]
    assert home / ".local" / "state" / "rebyte" / "local" in made
    assert {path: mode(path) for path in made} == dict.fromkeys(made, 0o700)
    ours = [home / ".config" / "rebyte", home / ".local" / "state" / "rebyte"]
    files = [path for folder in ours for path in folder.rglob("*") if path.is_file()]
    assert {".lock", "config.toml", "history.db"} <= {path.name for path in files}
    assert [path for path in files if mode(path) & 0o022] == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    return path


def refusal(path: Path, *, shared_folder: bool = False) -> tuple[str, str | None]:
    with pytest.raises(UnsafeFile) as problem:
        check_private(path, shared_folder=shared_folder)
    return problem.value.message, problem.value.hint


def test_case_61_a_file_that_others_can_write(file: Path) -> None:
    check_private(file)
    file.chmod(0o644)
    check_private(file)
    file.chmod(0o646)
    assert refusal(file) == (f"other users can change {file}", f"chmod go-w {file}")


def test_case_61_a_folder_that_others_can_write(file: Path) -> None:
    file.parent.chmod(0o757)
    said = f"other users can replace {file}: they can write to {file.parent}"
    assert refusal(file) == (said, f"chmod go-w {file.parent}")
    file.parent.chmod(0o1777)  # as /tmp: only the owner of a file can replace it
    check_private(file)
    file.parent.chmod(0o700)
    file.parent.parent.chmod(0o707)
    assert refusal(file)[1] == f"chmod o-w {file.parent.parent}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_case_61_a_file_or_a_group_of_another_user(file: Path) -> None:
    os.chown(file, -1, 12345)
    file.chmod(0o664)
    assert refusal(file)[1] == f"chmod go-w {file}"
    file.chmod(0o600)
    os.chown(file, 12345, -1)
    message, hint = refusal(file)
    assert message == f"{file} belongs to another user"
    assert hint == f"sudo chown -h $(id -u) {file}"
    os.chown(file, 0, 0)
    file.chmod(0o664)  # root's own group, which has no other member
    check_private(file)
    os.chown(file.parent, -1, 12345)
    file.parent.chmod(0o770)
    assert refusal(file)[1] == f"chmod go-w {file.parent}"
    check_private(file, shared_folder=True)  # as the journal of a project
    file.parent.chmod(0o755)
    os.chown(file.parent, 12345, -1)
    assert "belongs to them" in refusal(file)[0]


def test_a_file_system_without_modes_is_trusted(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a Windows drive under WSL, where all is 0777 and chmod changes nothing."""
    file.chmod(0o777)
    file.parent.chmod(0o777)
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(permissions, "MOUNTS", mounts)
    line = "36 35 98:0 / {} rw,noatime shared:1 - {} C: rw\n"
    root = line.format("/", "ext4")
    other = line.format("/mnt/a\rb\x1cc", "ext4")  # only "\n" ends a line
    for point, kind in ((file.parent, "9p"), (tmp_path, "drvfs")):
        mounts.write_text(root + other + line.format(point, kind), newline="")
        check_private(file)
    for point, kind in ((file.parent, "ext4"), (f"{tmp_path}/fold", "9p")):
        mounts.write_text(line.format("/", "9p") + root + line.format(point, kind))
        refusal(file)


def test_case_61_a_link_is_as_safe_as_both_its_ends(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "links" / "link"
    link.parent.mkdir(mode=0o700)
    link.symlink_to(file)
    check_private(link)
    file.parent.chmod(0o777)
    assert refusal(link)[1] == f"chmod go-w {file.parent}"
    file.parent.chmod(0o700)
    link.parent.chmod(0o777)
    assert refusal(link)[1] == f"chmod go-w {link.parent}"


def test_case_62_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    for device in ("/dev/zero", "/dev/tty", "/dev/null"):
        link = tmp_path / Path(device).name
        link.symlink_to(device)
        with pytest.raises((UnsafeFile, OSError)):
            read_private(link)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UnsafeFile, match="pipe is not a regular file"):
        read_private(pipe)
    large = tmp_path / "large"
    large.touch(0o600)
    os.truncate(large, (1 << 20) + 1)
    with pytest.raises(UnsafeFile, match="large is larger than 1 MiB"):
        read_private(large)
    os.truncate(large, 1 << 20)
    assert len(read_private(large)) == 1 << 20


def test_case_61_a_configuration_that_others_can_write_is_not_obeyed(
    rebyte: Rebyte, home: Path
) -> None:
    config = home / ".config" / "rebyte" / "config.toml"
    private_folder(config.parent)
    marker = home / "ran"
    config.write_text(f'[profiles.default]\nkey_command = ["touch", "{marker}"]\n')
    config.chmod(0o666)
    done = rebyte("list", "-o", "table")
    assert (done.status, done.err) == (
        2,
        f"Error: other users can change {config}\nHint: chmod go-w {config}\n",
    )
    assert not marker.exists()
    subprocess.run(["sh", "-c", done.err.partition("Hint: ")[2]], check=True)
    assert rebyte("list").status == 3
    assert marker.exists()
    config.parent.chmod(0o777)
    assert rebyte("list").status == 2


def test_case_61_credentials_and_history_that_others_can_write(
    rebyte: Rebyte, home: Path, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rebyte("create", "Say hello [[run=1ms]]").status == 0
    history = home / ".local" / "state" / "rebyte" / "history.db"
    history.chmod(0o666)
    done = rebyte("create", "Say hello [[run=1ms]]", "-o", "json")
    assert done.status == 0
    assert f"other users can change {history}" in done.err
    assert f"chmod go-w {history}" in done.err
    once = rebyte("create", "Say hello", "--once", "key", "-o", "table")
    assert once.status == 1
    assert f"Hint: chmod go-w {history}" in once.err
    monkeypatch.delenv("REBYTE_API_KEY")
    credentials = home / ".config" / "rebyte" / "credentials.json"
    private_folder(credentials.parent)
    credentials.write_text('{"keys": {}}')
    credentials.chmod(0o622)
    done = rebyte("list", "-o", "table")
    assert (done.status, done.err) == (
        3,
        f"Error: other users can change {credentials}\nHint: chmod go-w {credentials}\n",
    )


def test_case_61_a_journal_that_others_can_write(rebyte: Rebyte, home: Path, service: Any) -> None:
    (home / "t.txt").write_text("Say hello [[run=1ms]]\n")
    batch = ("batch", "t.txt", "--text", "-o", "table")
    assert rebyte(*batch).status == 0
    (journal,) = home.glob("*journal*")
    journal.chmod(0o666)
    done = rebyte(*batch)
    assert done.status == 2
    assert f"Error: other users can change {journal}\n" in done.err
    assert f"Hint: chmod go-w {journal}\n" in done.err
    journal.chmod(0o600)
    assert rebyte(*batch).status == 0


def test_a_report_or_a_skill_does_not_overwrite_through_a_link(
    rebyte: Rebyte, home: Path, service: Any
) -> None:
    precious = home / "precious"
    precious.write_text("")
    (home / "t.txt").write_text("Say hello [[run=1ms]]\n")
    (home / "r.html").symlink_to(precious)
    done = rebyte("batch", "t.txt", "--text", "--report", "r.html")
    assert done.status == 0, done.err
    assert not (home / "r.html").is_symlink()
    (home / "skills" / "rebyte").mkdir(parents=True)
    (home / "skills" / "rebyte" / "SKILL.md").symlink_to(precious)
    done = rebyte("skill", "--install", "skills", "-o", "table")
    assert done.status == 2
    assert "SKILL.md is a link" in done.err
    assert precious.read_text() == ""


def test_a_configuration_without_end_is_an_error_of_one_line(rebyte: Rebyte, home: Path) -> None:
    config = home / ".config" / "rebyte" / "config.toml"
    private_folder(config.parent)
    config.symlink_to("/dev/zero")
    done = rebyte("list", "-o", "table")
    assert done.status == 2
    assert done.err == f"Error: {config} is not a regular file\n"


def test_on_a_system_without_groups_by_name_none_is_ours(file: Path) -> None:
    """As in a container whose user has no name."""
    code = (
        "import sys, pwd\n"
        "from pathlib import Path\n"
        "from rebyte_cli.system.permissions import check_private\n"
        "pwd.getpwuid = lambda _uid: {}['no such user']\n"
        "check_private(Path(sys.argv[1]))"
    )
    file.chmod(0o660)
    done = subprocess.run(
        [sys.executable, "-c", code, file], capture_output=True, text=True, check=False
    )
    assert "other users can change" in done.stderr
