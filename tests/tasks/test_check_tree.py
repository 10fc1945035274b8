"""The files that a check runs on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rebyte_cli.tasks import check_tree
from rebyte_cli.tasks.patch import PatchUnusable
from tests.patch_farm import patch_of
from tests.repositories import Repository, git


@pytest.mark.slow
def test_git_reads_the_index_once_for_any_number_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch of some megabytes can add a protected file to each of many thousand folders."""
    root = tmp_path / "root"
    for number in range(2000):
        (root / f"{number}").mkdir(parents=True)
        (root / f"{number}/conftest.py").write_text("right\n")
    (root / "link").symlink_to("0/conftest.py")
    for words in ("init -q", "add -A", "commit -q -m Start", "rm -q -r 0 1"):
        git(root, *words.split())
    (root / "0").write_text("in the way\n")
    for number in range(2, 2000):
        (root / f"{number}/conftest.py").write_text("wrong\n")
        (root / f"{number}/pytest.ini").write_text("wrong\n")
    git(root, "add", "-A")
    patch = git(root, "diff", "--cached", "--binary", "--full-index", "HEAD").encode()
    head = git(root, "rev-parse", "HEAD").strip()

    program, log = tmp_path / "bin/git", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >> \'{log}\'\nexec {shutil.which("git")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    code = tmp_path / "scratch/code"
    code.mkdir(parents=True)
    restored = check_tree.make(code, check_tree.Base(root, head), patch, "pytest", ["link"])

    assert len(restored) == 1 + 2000 + 1998
    assert {path.read_text() for path in code.glob("[0-9]*/conftest.py")} == {"right\n"}
    assert len(list(code.glob("[0-9]*/*"))) == 2000
    assert os.readlink(code / "link") == "0/conftest.py"
    assert len(log.read_text().splitlines()) < 30


@pytest.mark.parametrize("key", ["process", "clean smudge"])
@pytest.mark.parametrize("scope", ["--global", "-c"])
def test_no_filter_of_the_user_runs_in_a_tree_that_an_agent_wrote(
    home: Path, monkeypatch: pytest.MonkeyPatch, scope: str, key: str
) -> None:
    """Its attributes choose the filter, and its files may be what that runs."""
    repository, mark, longest = Repository(home), home / "mark", "x" * 255
    repository.write("all/a.txt", "base\n")
    repository.write("kept/.gitattributes", "*.txt filter=upper\n")
    repository.write("kept/a.txt", "base\n")
    repository.commit("Attributes")
    base = check_tree.Base(repository.path, repository("rev-parse", "HEAD").strip())

    def folder(name: str) -> Path:
        (home / name / "code").mkdir(parents=True)
        return home / name / "code"

    def change() -> None:
        repository.write(".gitattributes", "*.txt filter=upper\n")
        repository.write("new.txt", "agent\n")
        repository.write(longest, "as long as a name may be\n")

    good = patch_of(repository.path, change)
    bad = good.replace(longest.encode(), longest.encode() + b"x")
    end = "false" if key == "process" else "tr a-z A-Z"
    values = dict.fromkeys(key.split(), f'touch "{mark}"; {end}') | {"required": "true"}
    if scope == "-c":  # as an alias of `git -c` inherits it
        given = (f"'filter.upper.{each}'='{value}'" for each, value in values.items())
        monkeypatch.setenv("GIT_CONFIG_PARAMETERS", " ".join(given))
    else:
        for each, value in values.items():
            repository("config", scope, f"filter.upper.{each}", value)
    check_tree.make(folder("good"), base, good, "true", ["kept"])
    assert (home / "good/code/new.txt").read_text() == "agent\n"
    with pytest.raises(PatchUnusable, match="name"):
        check_tree.make(folder("bad"), base, bad, "true", ["kept"])
    for each in ("good", "bad"):
        assert (home / each / "code/kept/a.txt").read_text() == "base\n"
    assert not mark.exists()
