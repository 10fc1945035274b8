"""`rebyte completion --install`: a new shell completes, and afterwards nothing of ours is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.completion import install
from rebyte_cli.completion.install import script_of
from tests.conftest import Done
from tests.shells import Shell

STARTS = {"bash": ".bashrc", "zsh": ".zshrc"}


@pytest.fixture
def rebyte(inside: Callable[..., Done]) -> Callable[..., Done]:
    """The command, without a process for each call."""
    return inside


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_new_shell_completes_after_the_install(
    name: str, home: Path, rebyte: Callable[..., Done]
) -> None:
    """The shell reads its own start files, as it does for a user."""
    if name in STARTS:
        (home / STARTS[name]).write_text("MINE=1  # without an end of line")
    done = rebyte("completion", name, "--install")
    assert done.status == 0
    assert str(home) in done.err
    shell = Shell(name, home, ["-i"])
    if name != "fish":
        shell.run("PS1='READY> '")
    for command in ("rebyte-cli", "rebyte"):
        assert shell.completed(f"{command} crea") == [command, "create"]
    shell.close()


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_uninstall_removes_what_install_wrote(
    name: str, home: Path, rebyte: Callable[..., Done]
) -> None:
    """And nothing else; both can be repeated."""
    start = home / STARTS.get(name, "unrelated")
    start.write_text("alias a=b\nexport C=d\n")
    start.chmod(0o600)
    before = files(home)
    assert rebyte("completion", name, "--install").status == 0
    installed = files(home)
    assert len(installed) > len(before)
    start.write_text(start.read_text() + "later=1\n")
    again = rebyte("completion", name, "--install", "-o", "json")
    assert files(home) == {**installed, start.name: start.read_text()}
    assert again.documents[0]["changed"] is False
    removed = rebyte("completion", name, "--uninstall").err.splitlines()
    assert removed[0] == f"Removed {again.documents[0]['path']}"
    if name != "fish":
        assert removed[-1] == f"Removed the lines of rebyte from {start}"
    assert files(home) == {**before, start.name: before[start.name] + "later=1\n"}
    assert start.stat().st_mode & 0o777 == 0o600
    nothing = rebyte("completion", name, "--uninstall").err.splitlines()
    assert all(line.startswith("Not installed: ") for line in nothing)
    assert rebyte("completion", name, "--uninstall", "-o", "json").status == 0


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_home_is_left_as_empty_as_it_was(
    name: str, home: Path, rebyte: Callable[..., Done]
) -> None:
    """Start file and folders that were made for the script go with it; an empty file stays."""
    assert rebyte("completion", name, "--install").status == 0
    assert rebyte("completion", name, "--install").status == 0
    assert rebyte("completion", name, "--uninstall").status == 0
    assert list(home.rglob("*")) == []
    start = home / STARTS.get(name, "unrelated")
    start.touch()
    assert rebyte("completion", name, "--install").status == 0
    assert rebyte("completion", name, "--uninstall").status == 0
    assert list(home.rglob("*")) == [start]


@pytest.mark.slow
def test_the_other_name_is_completed_where_another_program_has_the_first(home: Path) -> None:
    """`rebyte-cli` is for machines where something else is called `rebyte`."""
    shell = Shell("zsh", home, ["-f", "-i"])
    (home / "bin" / "rebyte").write_text("#!/bin/sh\nexit 3\n")
    script = home / "_rebyte"
    script.write_text(script_of("zsh"))
    shell.run("PS1='READY> '; autoload -Uz compinit && compinit -u -D; source ./_rebyte")
    assert shell.completed("rebyte-cli crea") == ["rebyte-cli", "create"]
    shell.close()


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("[ -f /etc/bash_completion ] && . /etc/bash_completion", True),
        ("# . /usr/share/bash-completion/bash_completion", False),
        ("", False),
    ],
)
def test_bash_completion_helps_where_bash_reads_it(
    line: str, reads: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package may be there and unused, as it is for root on Debian: then ours is read by
    itself. (The package is played by a file: it cannot be installed for one test.)"""
    package = home / "bash_completion"
    package.touch()
    monkeypatch.setattr(install, "_BASH_COMPLETION", (str(package),))
    monkeypatch.setattr(install, "_BASH_STARTS", ())
    start = home / ".bashrc"
    start.write_text(f"{line}\n")
    install.install("bash", {"HOME": str(home)})
    assert (start.read_text() == f"{line}\n") == reads
    install.install("bash", {"HOME": str(home)})  # our own lines name the package's folder too
    assert (start.read_text() == f"{line}\n") == reads


@pytest.mark.parametrize("present", ["", ".bash_login", ".profile", ".bash_profile .profile"])
def test_a_mac_starts_bash_as_a_login_shell(
    present: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login shell reads only the first of its files, and .bashrc only through that."""
    monkeypatch.setattr(install, "_BASH_COMPLETION", ())
    for name in present.split():
        (home / name).write_text(f"export SEEN={name}\n")
    before = files(home)
    with monkeypatch.context() as mac:
        mac.setattr(sys, "platform", "darwin")
        install.install("bash", {"HOME": str(home)})
    assert not (home / ".bashrc").exists()
    read = (present or ".bash_profile").split()[0]
    sh = subprocess.run(
        ["sh", "-c", f". ./{read}"], cwd=home, capture_output=True, text=True, check=False
    )
    assert read != ".profile" or (sh.returncode, sh.stderr) == (0, "")
    shell = Shell("bash", home, ["-l", "-i"])
    # /etc/profile sets PATH.
    shell.run(f"PS1='READY> '; PATH={home}/bin:$PATH; echo \"$SEEN\" > seen")
    assert shell.completed("rebyte crea") == ["rebyte", "create"]
    shell.close()
    assert (home / "seen").read_text() == (f"{read}\n" if present else "\n")
    (home / ".bash_profile").touch()  # made since: what stands in the others goes all the same
    monkeypatch.setattr(sys, "platform", "darwin")
    install.uninstall("bash", {"HOME": str(home)})
    left = files(home)
    assert {name: left[name] for name in before} == before
    assert not any(install.MARK in text or install.BEGIN in text for text in left.values())
    assert install.fresh("bash") == "bash -l"
    monkeypatch.setattr(sys, "platform", "linux")
    assert install.fresh("bash") == "bash"


def test_a_foreign_file_is_left_alone(home: Path, rebyte: Callable[..., Done]) -> None:
    """Neither overwritten nor deleted."""
    own = home / ".config/fish/completions/rebyte.fish"
    own.parent.mkdir(parents=True)
    own.write_text("complete -c rebyte -a mine\n")
    assert rebyte("completion", "fish", "--install").status == 2
    assert rebyte("completion", "fish", "--uninstall").status == 0
    assert own.read_text() == "complete -c rebyte -a mine\n"
    own.unlink()
    own.symlink_to(home / "script")  # as pipx makes one, to the script in its environment
    (home / "script").write_text(script_of("fish"))
    assert rebyte("completion", "fish", "--install", "-o", "json").documents[0]["changed"] is False
    removed = rebyte("completion", "fish", "--uninstall", "-o", "json").documents
    assert [file["changed"] for file in removed] == [False, True]
    assert own.is_symlink()


def test_half_a_block_takes_nothing_with_it(home: Path, rebyte: Callable[..., Done]) -> None:
    """If the last line of the block is gone, the user's lines follow."""
    start = home / ".zshrc"
    assert rebyte("completion", "zsh", "--install").status == 0
    half = start.read_text().partition("# <<<")[0] + "mine=1\n"
    start.write_text(half)
    for _ in range(2):
        assert rebyte("completion", "zsh", "--install").status == 0
        assert start.read_text().startswith(half)
    assert rebyte("completion", "zsh", "--uninstall").status == 0
    assert start.read_text() == half


def test_a_start_file_that_is_a_link_stays_one(home: Path, rebyte: Callable[..., Done]) -> None:
    """Many keep theirs in a repository."""
    kept = home / "dotfiles"
    kept.mkdir()
    (kept / "zshrc").write_bytes(b"# caf\xe9\nM=\r\r\n")
    (home / ".zshrc").symlink_to(kept / "zshrc")
    assert rebyte("completion", "zsh", "--install").status == 0
    assert os.readlink(home / ".zshrc") == str(kept / "zshrc")
    text = (kept / "zshrc").read_bytes()
    assert text.startswith(b"# caf\xe9\nM=\r\r\n")
    assert b"rebyte completion" in text


def test_the_shell_has_to_be_known(
    rebyte: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the argument, or from $SHELL where no shell started the command."""
    monkeypatch.setattr("rebyte_cli.completion.install.parent_shell", lambda _shells: None)
    assert rebyte("completion", env={"SHELL": "/bin/ksh"}).status == 2
    assert rebyte("completion", env={"SHELL": "/bin/fish"}).out.startswith("# Completion")
    assert rebyte("completion", "tcsh").status == 2


def test_installing_and_removing_at_once_is_refused(rebyte: Callable[..., Done]) -> None:
    done = rebyte("completion", "bash", "--install", "--uninstall")
    assert (done.status, "cannot be used together" in done.err) == (2, True)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_under_any_umask_no_other_user_can_change_what_was_installed(
    home: Path, rebyte: Callable[..., Done], mask: int
) -> None:
    """A start file is a program that runs with every shell, a skill one that agents follow."""
    before = os.umask(mask)
    try:
        for shell in ("bash", "zsh", "fish"):
            assert rebyte("completion", shell, "--install").status == 0
        assert rebyte("skill", "--install").status == 0
        assert rebyte("man", "--install").status == 0
    finally:
        os.umask(before)
    made = {path: path.stat().st_mode & 0o777 for path in home.rglob("*") if path.is_file()}
    assert {".bashrc", ".zshrc", "rebyte.fish", "SKILL.md", "rebyte.1"} <= {p.name for p in made}
    assert set(made.values()) == {0o644 & ~mask}
    assert not any(path.stat().st_mode & 0o022 for path in home.rglob("*") if path.is_dir())
