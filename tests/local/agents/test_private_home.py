"""What an earlier run left in the private HOME: sessions stay, and nothing else does."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rebyte_cli.local.agents import agent_files
from rebyte_cli.local.agents.adapters import built_in, opencode_database
from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.opencode import OpenCode

from .bench import PYTHON, Bench

SESSIONS = (
    ".claude/projects/-code/fe552eb0.jsonl",
    ".codex/sessions/2026/11/27/rollout-2026-11-27T15-39-31-01a21da9.jsonl",
    ".gemini/tmp/code/.project_root",
    ".gemini/tmp/code/chats/session-2026-11-27T15-40-c99a7ef1.jsonl",
)
PLANTED = (
    ".bash_profile", ".cache/pip/x", ".claude.json", ".claude/.config.json",
    ".claude/.credentials.json", ".claude/projects/-code/memory/MEMORY.md",
    ".claude/skills/x/SKILL.md", ".codex/.env", ".codex/auth.json", ".codex/hooks.json",
    ".codex/sessions/2026/config.toml", ".gemini/agents/x.md", ".gemini/oauth_creds.json",
    ".gemini/projects.json", ".gemini/tmp/code/settings.json", ".local/share/opencode/auth.json",
    ".local/share/opencode/snapshot/config", "\nname of\ttwo lines",
)  # fmt: skip


def fill(home: Path, *names: str) -> None:
    """Write files with their names as text."""
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)


def found(home: Path) -> set[str]:
    """Everything below `home` that is no folder."""
    return {str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir()}


@pytest.mark.slow
def test_a_run_finds_the_sessions_of_earlier_runs_and_nothing_else(bench: Bench) -> None:
    """Its own agent is a different one, without sessions."""
    bench.run(["true"])
    home = bench.workspace().home
    fill(home, *SESSIONS, *PLANTED)
    bench.run(["sh", "-c", "find ~ -type f | sort > /code/seen"])
    seen = (bench.workspace().code / "seen").read_text().splitlines()
    assert {line.removeprefix("/home/agent/") for line in seen} == {*SESSIONS, ".gitconfig"}


def test_nothing_outside_is_removed_through_a_link(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    fill(outside, "-code/a.jsonl", "precious")
    (home / ".claude").mkdir(parents=True)
    (home / ".claude/projects").symlink_to(outside)
    (home / ".codex").symlink_to(outside)
    fill(home, ".gemini/tmp/code/.project_root")
    (home / ".gemini/tmp/code/chats").mkdir()
    (home / ".gemini/tmp/code/chats/a.json").symlink_to(outside / "precious")
    os.mkfifo(home / ".gemini/tmp/code/chats/b.json")
    agent_files.keep_only(home, built_in.SESSIONS)
    assert found(home) == {".gemini/tmp/code/.project_root"}
    assert found(outside) == {"-code/a.jsonl", "precious"}


def test_modes_keep_nothing_in_the_home(tmp_path: Path) -> None:
    """As root this passes whatever the modes are."""
    session = ".claude/projects/-code/a.jsonl"
    fill(tmp_path, session, ".claude/projects/-code/x", ".codex/sessions/x", ".x/y")
    for name in (".x", ".codex/sessions", ".claude/projects/-code", ".claude", "."):
        (tmp_path / name).chmod(0o500 if name.startswith(".c") else 0)
    agent_files.keep_only(tmp_path, built_in.SESSIONS)
    assert found(tmp_path) == {session}


PLENTY = 1 << 30  # bytes of the disk


def database(folder: Path, *statements: str) -> Path:
    """A database like OpenCode's, with one session, one account, and what is done to them."""
    path = folder / opencode_database.NAME
    with closing(sqlite3.connect(path)) as db:
        columns = "`id` text PRIMARY KEY, `directory` text, `path` text, `workspace_id` text"
        db.execute(f"CREATE TABLE `session` ({columns})")
        db.execute('CREATE TABLE "account" (`url` text)')
        db.execute("CREATE INDEX `account_url_idx` ON `account` (`url`)")
        db.execute("INSERT INTO session VALUES ('ses_1', '/code/evil', 'evil', 'wrk_1')")
        db.execute("INSERT INTO account VALUES ('http://evil.example')")
        for statement in statements:
            db.execute(statement)
        db.commit()
    return path


def test_opencode_keeps_sessions_and_no_accounts(tmp_path: Path) -> None:
    opencode_database.clean(tmp_path, "/code", PLENTY)  # there is none yet
    path = database(tmp_path)
    opencode_database.clean(tmp_path, "/code", PLENTY)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT * FROM session").fetchall() == [("ses_1", "/code", "", None)]
        assert db.execute("SELECT url FROM account").fetchall() == []


RENAMED = "UPDATE sqlite_schema SET name = 'todo', tbl_name = 'todo' WHERE name = 'account'"


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(
            ["CREATE TRIGGER t DELETE ON account BEGIN INSERT INTO account VALUES ('x'); END"],
            id="trigger",
        ),
        pytest.param(["CREATE VIEW credential AS SELECT url FROM account"], id="view"),
        pytest.param(["PRAGMA writable_schema = ON", RENAMED], id="another name in the schema"),
    ],
)
def test_an_opencode_database_that_keeps_its_accounts_is_removed(
    tmp_path: Path, statements: list[str]
) -> None:
    path = database(tmp_path, *statements)
    opencode_database.clean(tmp_path, "/code", PLENTY)
    assert not path.exists()


COSTLY = "instr(zeroblob(200000000), zeroblob(100000000) || x'01' || directory)"


@pytest.mark.slow
@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(
            [
                "DROP TABLE session",
                "CREATE TABLE session (id, path, workspace_id,"
                f" directory CHECK (directory = '/code/evil' OR {COSTLY} = 0))",
                "INSERT INTO session (directory) VALUES ('/code/evil')",
            ],
            id="constraint",
        ),
        pytest.param(
            [f"CREATE INDEX i ON session (path) WHERE directory = '/code' AND {COSTLY} = 0"],
            id="index",
        ),
    ],
)
def test_an_opencode_database_that_takes_long_is_removed(
    tmp_path: Path, statements: list[str]
) -> None:
    """SQLite itself cannot be interrupted in a function: these would take it hours."""
    path = database(tmp_path, *statements)
    opencode_database.clean(tmp_path, "/code", PLENTY, cpu_seconds=2)
    assert list(tmp_path.iterdir()) == []
    assert not path.exists()


WAL = "PRAGMA journal_mode = WAL"
MANY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"


def test_an_opencode_database_that_would_fill_the_disk_is_removed(tmp_path: Path) -> None:
    filled = f"{MANY} INSERT INTO session SELECT i, '/code/evil', hex(zeroblob(2000)), '' FROM n"
    database(tmp_path, WAL, filled)
    assert opencode_database.clean(tmp_path, "/code", 400_000) == opencode_database.REMOVED
    assert list(tmp_path.iterdir()) == []


def test_an_opencode_database_may_be_larger_than_what_is_written(tmp_path: Path) -> None:
    """What is beyond that cannot be written, and stays in the log, where OpenCode reads it."""
    path = tmp_path / opencode_database.NAME
    with closing(sqlite3.connect(path)) as db:
        db.execute(WAL)
        db.execute("CREATE TABLE todo (id, text)")
        db.execute(f"{MANY} INSERT INTO todo SELECT i, hex(zeroblob(2000)) FROM n")
        db.execute("CREATE TABLE session (id, directory, path, workspace_id)")  # at the end
        db.execute("INSERT INTO session VALUES ('ses_1', '/code/evil', 'evil', 'wrk_1')")
        db.commit()
    assert path.stat().st_size > 1_000_000
    assert opencode_database.clean(tmp_path, "/code", 400_000) == ""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT * FROM session").fetchall() == [("ses_1", "/code", "", None)]
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_disk_removes_no_session(tmp_path: Path) -> None:
    path = database(tmp_path)
    with pytest.raises(OSError, match="keep_free"):
        opencode_database.clean(tmp_path, "/code", 0)
    assert path.exists()


@pytest.mark.slow
def test_the_transcript_says_that_sessions_were_removed(bench: Bench) -> None:
    agent = OpenCode(command=(PYTHON, "-c", "print(open)"), extra_paths=(sys.base_prefix,))
    bench.run(["true"])
    folder = bench.workspace().home / ".local/share/opencode"
    folder.mkdir(parents=True)
    (folder / opencode_database.NAME).write_text("damaged")
    run = bench.run(agent)
    assert opencode_database.REMOVED in bench.said(run.prompt)
    assert not (folder / opencode_database.NAME).exists()


@pytest.mark.slow
def test_a_memory_file_that_cannot_be_read_is_left_out(bench: Bench, user_home: Path) -> None:
    """The transcript says so, and the run has the others."""
    fill(user_home, ".claude/rules/a.md", ".claude/rules/z.md")
    (user_home / ".claude/rules/odd.md").symlink_to("/proc/self/mem")  # root cannot, either
    agent = Claude(command=(PYTHON, "-c", "print(open)"), extra_paths=(sys.base_prefix,))
    run = bench.run(agent)
    said = "Not used, since it cannot be read: ~/.claude/rules/odd.md (Input/output error)"
    assert said in bench.said(run.prompt)
    rules = bench.workspace().home / ".claude/rules"
    assert {path.name for path in rules.iterdir()} == {"a.md", "z.md"}


def test_a_file_that_is_no_database_is_removed(tmp_path: Path) -> None:
    path = tmp_path / opencode_database.NAME
    path.write_bytes(b"x" * 10_000)
    opencode_database.clean(tmp_path, "/code", PLENTY)
    assert not path.exists()
