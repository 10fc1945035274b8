"""The files that a check runs on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rebyte_cli.tasks import check_tree
from tests.repositories import git


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
    assert len(log.read_text().splitlines()) < 20
