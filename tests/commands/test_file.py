"""`rebyte file upload`, and `-f` of `create` and `follow-up`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done

Run = Callable[..., Done]


@pytest.fixture
def data(home: Path) -> Path:
    """Three tables, a report and a folder, in the current folder of the command."""
    folder = home / "data"
    (folder / "inner").mkdir(parents=True)
    for name in ("b.csv", "a.csv", "c.csv"):
        (folder / name).write_text(name)
    (home / "report.pdf").write_bytes(b"%PDF")
    return folder


def test_prints_the_id_and_the_name_that_a_task_takes(inside_local: Run, data: Path) -> None:
    done = inside_local("file", "upload", "report.pdf", "data/a.csv", "-o", "jsonl")
    first, second = map(json.loads, done.out.splitlines())
    assert set(first) == set(second) == {"id", "filename"}
    assert first["filename"] != "report.pdf"
    assert first["filename"].startswith("report")
    assert second["filename"].endswith(".csv")


def test_the_output_is_valid_in_a_request_body(inside_local: Run, data: Path) -> None:
    file = inside_local("file", "upload", "report.pdf").json
    body = json.dumps({"prompt": "Read [[run=1ms]]", "files": [file]})
    inside_local("api", "POST", "/tasks", "-d", "-", stdin=body)
    task = inside_local("list", "-o", "id").out.strip()
    assert f"/code/{file['filename']}, 4 bytes" in inside_local("result", task).out


def test_create_takes_what_the_shell_makes_of_a_pattern(inside_local: Run, data: Path) -> None:
    words = ["-f", "report.pdf", "-f", "data/a.csv", "data/b.csv", "data/c.csv"]
    inside_local("create", *words, "Read [[run=1ms]]")
    text = inside_local("result", "@last").out
    assert "Prompt: Read" in text
    found = [line for line in text.splitlines() if line.startswith("File: ")]
    digest = hashlib.sha256(b"c.csv").hexdigest()
    assert [line.split("/code/")[1][0] for line in found] == ["r", "a", "b", "c"]
    assert digest in found[3]


def test_a_pattern_that_came_through_is_expanded(inside_local: Run, data: Path) -> None:
    done = inside_local("create", "Read", "-f", "data/*.csv", "--dry-run").json
    assert [Path(file["path"]).name for file in done["files"]] == ["a.csv", "b.csv", "c.csv"]


def test_follow_up_takes_files_too(inside_local: Run, data: Path) -> None:
    inside_local("create", "One [[run=1ms]]")
    inside_local("follow-up", "@last", "-f", "data/a.csv", "data/b.csv", "-p", "Two [[run=1ms]]")
    assert inside_local("result", "@last").out.count("File: /code/") == 2


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("data", 2, "data is a folder"),
        ("missing.pdf", 4, "no such file: missing.pdf"),
        ("report.pdf/x", 4, "no such file"),
        ("data/*.xls", 4, "no file matches data/*.xls"),
        ("/dev/null", 2, "not a regular file"),
    ],
)
def test_a_bad_path_ends_it_before_anything_is_sent(
    inside_local: Run, service: Any, data: Path, path: str, status: int, says: str
) -> None:
    for words in (
        ["file", "upload", "report.pdf", path],
        ["create", "Go", "-f", "report.pdf", "-f", path],
    ):
        done = inside_local(*words, "-v")
        assert done.status == status
        assert says in json.loads(done.err.splitlines()[-1])["error"]["message"]
        assert "POST" not in done.err


def test_the_key_never_goes_to_the_signed_url(inside_local: Run, service: Any, data: Path) -> None:
    from rebyte_cli.local.local_service import status

    inside_local("file", "upload", "report.pdf", "data/a.csv")
    service.stop()
    assert status(data.parent / "served")["keyLeaks"] == 0


def test_verbose_shows_no_signature(inside_local: Run, data: Path) -> None:
    done = inside_local("file", "upload", "report.pdf", "--debug")
    assert "PUT" in done.err
    assert "signature=" not in done.err.replace("signature=[hidden]", "")
