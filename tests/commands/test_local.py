"""`rebyte local`: what a reset removes, and what is said of a state folder in disorder."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.local.store import SCHEMA_VERSION
from tests.conftest import COMMAND, Done
from tests.tools import need_jail

Run = Callable[..., Done]


@pytest.fixture
def rebyte(inside: Run) -> Run:
    """The command, without a process for each call."""
    return inside


def test_a_reset_forgets_what_was_made_with_the_service(rebyte: Run) -> None:
    """Else `@last`, an alias and a key of --once would lead to tasks that are gone."""

    def local(*words: str) -> Done:
        return rebyte("-P", "local", *words)

    task = local("create", "Say hello", "--once", "hello", "-o", "json").json
    assert local("workspace", "name", task["id"], "shop").status == 0
    assert rebyte("local", "reset", "--yes").status == 0
    assert local("get", "@last").status == 4
    assert local("workspace", "list").json["data"] == []
    again = local("create", "Say hello", "--once", "hello", "-o", "json")
    assert again.json["id"] != task["id"]
    assert "already" not in again.err


@pytest.mark.usefixtures("service")
def test_a_reset_leaves_the_history_of_other_services_alone(rebyte: Run) -> None:
    task = rebyte("create", "Say hello", "-o", "json").json
    assert rebyte("local", "reset", "--yes").status == 0
    assert rebyte("get", "@last", "-o", "id").out.strip() == task["id"]


def test_a_reset_without_a_history_makes_none(home: Path, rebyte: Run) -> None:
    assert rebyte("local", "reset", "--yes").status == 0
    assert not list(home.rglob("history.db"))


@pytest.mark.parametrize("words", [("local", "reset"), ("-P", "local", "workspace", "delete")])
def test_files_that_cannot_be_removed_are_told(
    home: Path, rebyte: Run, words: tuple[str, ...]
) -> None:
    """Such as a place where something is mounted."""
    need_jail()
    task = rebyte("-P", "local", "create", "Say hello", "-o", "json").json
    state = home / ".local/state/rebyte/local"
    mounted = state / "workspaces" / task["workspaceId"] / "code"
    mounted.mkdir(parents=True)
    bwrap = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", str(mounted)]
    words += () if "reset" in words else (task["workspaceId"],)
    line = [*bwrap, *COMMAND, *words, "--yes"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    (left,) = (state / "trash").iterdir()
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr)["error"]["message"] == f"files stay in {left}"
    assert rebyte(*words, "--yes").status == (0 if "reset" in words else 4)
    assert left.exists() == ("reset" not in words)


def garbage(file: Path) -> None:
    file.write_bytes(b"not a database" * 1000)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def holes(file: Path) -> None:
    """Every page but the first is zeros, as after a disk that lost them."""
    file.write_bytes(file.read_bytes()[:4096].ljust(file.stat().st_size, b"\0"))


def sql(statement: str) -> Callable[[Path], None]:
    def act(file: Path) -> None:
        db = sqlite3.connect(file)
        db.execute(statement)
        db.commit()
        db.close()

    return act


DAMAGE = {
    "garbage": garbage,
    "cut": cut,
    "holes": holes,
    "no table": sql("DROP TABLE tasks"),
    "no plan": sql("UPDATE prompts SET plan = 'x'"),
    "half a plan": sql("UPDATE prompts SET plan = '{}'"),
    "odd title": sql("UPDATE tasks SET title = '{'"),
    "odd secret": sql("UPDATE meta SET value = 'x' WHERE name = 'secret'"),
}


@pytest.fixture
def state(home: Path, inside: Run) -> Path:
    """The state folder of a local service with one task."""
    assert inside("-P", "local", "create", "Say hello", "--wait").status == 0
    folder = home / ".local" / "state" / "rebyte" / "local"
    db = sqlite3.connect(folder / "service.db")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    for name in ("service.db-wal", "service.db-shm"):
        (folder / name).unlink(missing_ok=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_case_66_a_damaged_file_is_named_and_reset_mends_it(
    inside: Run, state: Path, kind: str
) -> None:
    DAMAGE[kind](state / "service.db")
    for words in (
        ["-P", "local", "list"],
        ["-P", "local", "create", "Say hello"],
        ["local", "status"],
    ):
        done = inside(*words)
        assert "internal error in rebyte" not in done.err
        if done.status != 0:  # what a command does not touch does not hurt it
            assert done.status in (1, 5), (words, done.err)
            assert "rebyte local reset" in done.err or "Internal server error" in done.err
    assert inside("local", "reset", "--yes").status == 0
    assert inside("local", "status").json["tasks"] == 0
    assert inside("-P", "local", "create", "Say hello", "--wait").status == 0


def test_reset_removes_the_folders_of_a_damaged_file_however_deep(inside: Run, state: Path) -> None:
    DAMAGE["garbage"](state / "service.db")
    (state / "workspaces").mkdir(exist_ok=True)
    here = os.open(state / "workspaces", os.O_RDONLY)
    for _ in range(1500):  # more than the interpreter's stack takes
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        assert inside("local", "reset", "--yes").status == 0
        assert not (state / "workspaces").exists()
    finally:  # pytest itself cannot remove what is left of it
        subprocess.run(["rm", "-rf", state / "workspaces"], check=True)


@pytest.mark.parametrize("kind", ["garbage", "holes", "no table", "no plan"])
def test_case_66_status_says_what_is_wrong(inside: Run, state: Path, kind: str) -> None:
    DAMAGE[kind](state / "service.db")
    done = inside("local", "status")
    assert done.status == 1
    assert f"{state / 'service.db'}: it is damaged (" in done.err
    assert "`rebyte local reset` empties it" in done.err


USES = (
    ["-P", "local", "list"],
    ["-P", "local", "create", "x"],
    ["local", "status"],
    ["local", "prune", "--older", "1d"],
    ["local", "reset", "--yes"],
    ["local", "serve", "--port", "0"],
)


def test_case_66_a_newer_version_is_left_alone(inside: Run, state: Path) -> None:
    file = state / "service.db"
    sql(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")(file)
    before = file.read_bytes()
    for words in USES:
        done = inside(*words, env={"REBYTE_OUTPUT": "json"})
        assert done.status == 1, words
        assert json.loads(done.err.splitlines()[-1])["error"] == REFUSED | {
            "message": f"{file}: it was written by a newer rebyte (version {SCHEMA_VERSION + 1})",
            "hint": "Update this one",
        }
    assert file.read_bytes() == before


REFUSED = {"code": "error", "status": None, "exit": 1}


@pytest.mark.parametrize("version", [2, SCHEMA_VERSION - 1])
def test_an_unreleased_version_is_left_alone_and_its_hint_loses_nothing(
    inside: Run, state: Path, version: int
) -> None:
    file, kept = state / "service.db", state.with_name(f"local.version{version}")
    task = inside("-P", "local", "get", "@last", "-o", "id").out
    sql("PRAGMA journal_mode = DELETE")(file)
    sql(f"PRAGMA user_version = {version}")(file)
    before = file.read_bytes()
    problem = f"written by an unreleased rebyte (version {version})"
    for words in USES:
        done = inside(*words, env={"REBYTE_OUTPUT": "json"})
        assert done.status == 1, words
        assert json.loads(done.err.splitlines()[-1])["error"] == REFUSED | {
            "message": f"{file}: it was {problem}",
            "hint": "Once its runs and any `rebyte local serve` have ended, keep it:"
            f" mv -n {state} {kept}. A new one knows nothing of its tasks and their runs,"
            " workspaces, files, webhooks, key and trust",
        }
    assert file.read_bytes() == before
    subprocess.run(["mv", "-n", state, kept], check=True)
    assert inside("local", "status").json["tasks"] == 0
    shutil.rmtree(state)
    kept.rename(state)  # as the rebyte that wrote it finds it again
    sql(f"PRAGMA user_version = {SCHEMA_VERSION}")(file)
    assert inside("-P", "local", "get", "@last", "-o", "id").out == task


@pytest.mark.slow
def test_case_66_a_disk_that_is_full_is_named(home: Path) -> None:
    """No file of the process may grow, so SQLite is refused what a full disk refuses."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
    script = f"{limited} from rebyte_cli.cli import run; sys.exit(run(sys.argv[1:]))"
    for words in (["local", "status"], ["local", "reset", "--yes"], ["-P", "local", "list"]):
        done = subprocess.run(
            [COMMAND[0], "-c", script, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done
        assert "internal error in rebyte" not in done.stderr
        assert "Traceback" not in done.stderr
        assert "service.db: " in done.stderr


# On a disk of 16 MiB that an agent has filled. "agent": it is still at work there.
FULL = """
import os, subprocess, sys
from pathlib import Path
from rebyte_cli.local.store import Store
from rebyte_cli.system.locks import flock

state, agent = Path(sys.argv[1]), sys.argv[2]
state.chmod(0o700)
Store(state / "local").close()
code, run = state / "local/workspaces/ws/code", state / "local/workspaces/ws/runs/1"
code.mkdir(parents=True)
run.mkdir(parents=True)
lock = os.open(run / "lock", os.O_RDWR | os.O_CREAT)
flock(lock)
os.write(lock, b"1" if agent == "agent" else b"gone")
with open(code / "fill", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
command = [sys.executable, "-m", "rebyte_cli", "local", "reset", "--yes"]
done = subprocess.run(command, capture_output=True, text=True)
print(done.returncode, (code / "fill").exists(), "is full" in done.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs namespaces of Linux")
@pytest.mark.parametrize(("who", "then"), [("none", "0 False False"), ("agent", "1 True True")])
def test_reset_makes_room_on_a_full_disk(home: Path, who: str, then: str) -> None:
    state = home / ".local/state/rebyte"
    state.mkdir(parents=True)
    mount = 'mount -t tmpfs -o size=16m,mode=700 tmpfs "$1" && shift && exec "$@"'
    words = ["unshare", "-rm", "sh", "-c", mount, "sh", str(state)]
    words += [COMMAND[0], "-c", FULL, str(state), who]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr}")
    assert done.stdout.strip() == then, done
