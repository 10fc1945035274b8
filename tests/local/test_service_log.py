"""What a fault of the local service leaves in its log."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from rebyte_cli.local import object_store, pages, routes, service_log
from rebyte_cli.local.local_service import Service, status
from tests.conftest import Done
from tests.witness import Caller


def failing(text: str) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise ValueError(text)

    return fail


def set_title(folder: Path, title: str) -> None:
    with closing(sqlite3.connect(folder / "service.db")) as db:
        db.execute("UPDATE tasks SET title = ?", (title,))
        db.commit()


def test_a_fault_leaves_its_traceback_where_the_error_and_the_status_say(
    inside: Callable[..., Done], home: Path
) -> None:
    folder = home / ".local/state/rebyte/local"
    task = inside("-P", "local", "create", "Say hello", "-o", "id").out.strip()
    assert inside("local", "status").json["log"] is None
    set_title(folder, "{")
    error = json.loads(inside("-P", "local", "get", task).err.splitlines()[-1])["error"]
    assert error["message"] == f"{task}: internal server error"
    assert error["hint"] == f"Its traceback is in {folder / 'service.log'}"
    set_title(folder, '"Hello"')
    assert inside("local", "status").json["log"] == str(folder / "service.log")
    text = (folder / "service.log").read_text()
    assert f" GET /v1/tasks/{task}\nTraceback (most recent call last):\n" in text
    assert "JSONDecodeError" in text
    assert (folder / "service.log").stat().st_mode & 0o777 == 0o600


def test_no_key_and_no_sign_that_moves_a_cursor_gets_into_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service(tmp_path) as service:
        caller = Caller(service, service.key)
        monkeypatch.setattr(routes, "match", failing(f"{service.key} sk-ant-0123456789 \x1b[2J"))
        monkeypatch.setattr(pages, "recognize", failing("a page"))
        monkeypatch.setattr(object_store, "check_caller", failing("an object"))
        answers = [caller.call("GET", f"/tasks/{service.key}?key={service.key}", check=False)]
        for url in (f"{service.origin}/?key=", f"{service.storage_url}/a/b/c?signature="):
            with pytest.raises(HTTPError) as caught:
                urlopen(f"{url}lets-one-in")
            answers.append(caught.value)
    assert [answer.status for answer in answers] == [500, 500, 500]
    text = (tmp_path / "service.log").read_text()
    for fault in ("rbk_… sk-…", "a page", "an object"):
        assert text.count(f"ValueError: {fault}") == 1
    assert "GET /v1/tasks/rbk_…\n" in text
    for secret in (service.key.removeprefix("rbk_local_"), "0123456789", "lets-one-in", "\x1b"):
        assert secret not in text


def test_a_log_is_bounded_by_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Service(tmp_path) as service:
        caller = Caller(service)
        monkeypatch.setattr(routes, "match", failing(100_000 * "x" + "end"))
        for _ in range(90):
            assert caller.call("GET", "/tasks", check=False).status == 500
    files = [tmp_path / name for name in ("service.log", "service.log.old")]
    assert sorted(tmp_path.glob("*.log*")) == files
    for file in files:
        most = service_log.LARGEST + service_log.LONGEST + 100
        assert service_log.LARGEST / 2 < file.stat().st_size < most
        assert file.read_text().endswith("xend\n")


def test_a_fault_whose_log_cannot_be_written_is_answered_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "service.log").mkdir()
    with Service(tmp_path) as service:
        monkeypatch.setattr(routes, "match", failing("x"))
        answer = Caller(service).call("GET", "/tasks", check=False)
    assert answer.document == {
        "error": {"code": "internal_error", "message": "Internal server error"}
    }
    assert status(tmp_path)["log"] is None
