"""`[[write=PATH:TEXT]]`: a simulated run leaves a patch of the commit that its task is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import Done
from tests.repositories import git, name_bare_ones

Local = Callable[..., Done]


@pytest.fixture
def repository(home: Path) -> Path:
    folder = home / "repository"
    folder.mkdir()
    (folder / "run.sh").write_text("true\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "no-end.txt").write_bytes(b"no line break")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True])
def test_the_patch_applies_to_the_commit(
    inside_local: Local, repository: Path, home: Path, named: bool
) -> None:
    """Files that are there keep their mode; the last text of a file counts; escapes are read."""
    if named:
        name_bare_ones(home)
    prompt = (
        "Do it [[write=run.sh:false]] [[write=src/a b.txt:x]]\n"
        "[[write=no-end.txt:one\\ntwo \\u00e9]] [[write=run.sh:exit 3]]"
    )
    words = ("-P", "local", "create", prompt, "-g", ".", "--wait")
    assert inside_local(*words, cwd=repository).status == 0
    patch = inside_local("-P", "local", "diff", "@last").out
    assert "old mode" not in patch
    inside_local("-P", "local", "follow-up", "@last", "[[write=b.txt:more]]", "--wait")
    done = inside_local("-P", "local", "apply", "@last", "--yes", cwd=repository)
    assert done.status == 0, done
    assert (repository / "run.sh").read_text() == "exit 3\n"
    assert (repository / "src/a b.txt").read_text() == "x\n"
    assert (repository / "no-end.txt").read_text() == "one\ntwo é\n"
    assert (repository / "b.txt").read_text() == "more\n"


def test_without_a_repository_there_is_none(inside_local: Local) -> None:
    inside_local("-P", "local", "create", "[[write=a.txt:x]]", "--wait")
    assert inside_local("-P", "local", "diff", "@last").status == 4


@pytest.mark.parametrize("word", ["a.txt", "/etc/passwd:x", "../a:x", ".GIT/config:x", "a/../b:x"])
def test_a_path_that_no_repository_has_is_refused(inside_local: Local, word: str) -> None:
    done = inside_local("-P", "local", "create", f"[[write={word}]]", "-g", "acme/shop")
    assert done.status == 1
    assert "PATH:TEXT" in done.err


def test_another_key_reads_no_folder_of_the_user(service: Any, repository: Path) -> None:
    """Every user of the machine reaches the port, and any key may simulate."""
    headers = {"API_KEY": "rbk_stranger"}
    body = {
        "prompt": "[[run=1ms]] [[write=run.sh:false]]",
        "localRepository": str(repository),
        "githubUrl": "acme/shop",
    }
    base = service.base_url
    made = requests.post(f"{base}/tasks", json=body, headers=headers, timeout=10).json()
    assert "workspaceId" in made, made
    place = f"{base}/workspaces/{made['workspaceId']}/artifacts/changes.patch"
    found = requests.get(place, headers=headers, timeout=10)
    while found.status_code == 404:
        found = requests.get(place, headers=headers, timeout=10)
    assert "+false" in found.text
    assert "true" not in found.text
