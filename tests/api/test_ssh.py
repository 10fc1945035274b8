"""`[profiles.box] ssh = "…"`: the service of a user on another machine, over a real sshd."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rebyte_cli.api.ssh import SshConnector
from tests.conftest import Done
from tests.fork_server import commands
from tests.local.agents.bench import need_jail
from tests.repositories import git, introduce, small_repository
from tests.ssh_host import SshHost
from tests.waiting import eventually

Run = Callable[..., Done]


@pytest.fixture
def box(tmp_path: Path, home: Path) -> Iterator[SshHost]:
    """The machine, a profile for it, and a user whom git knows."""
    introduce(home)
    host = SshHost(tmp_path / "host")
    host.start()
    (home / ".config/rebyte").mkdir(parents=True)
    (home / ".config/rebyte/config.toml").write_text('[profiles.box]\nssh = "box"\n')
    yield host
    host.stop()


@pytest.fixture
def on_box(rebyte: Run, box: SshHost) -> Run:
    """The command with `-P box`."""

    def run(*words: str, **options: object) -> Done:
        return rebyte("-P", "box", *words, env=box.env, timeout=300, **options)

    return run


def tasks_of(box: SshHost, rebyte: Run) -> list[dict[str, str]]:
    """What the other machine has, by its own command."""
    env = {"HOME": str(box.home), "XDG_STATE_HOME": str(box.home / "state")}
    return list(rebyte("-P", "local", "list", "--all", "-o", "jsonl", env=env).documents)


@pytest.mark.slow
def test_tasks_live_on_the_other_machine(on_box: Run, box: SshHost, rebyte: Run) -> None:
    done = on_box("create", "Say hello", "--wait", "-o", "json")
    assert (done.status, done.json["status"]) == (0, "completed"), done.err
    assert [task["id"] for task in tasks_of(box, rebyte)] == [done.json["id"]]
    assert rebyte("-P", "local", "list").json["data"] == []
    done = on_box("follow-up", "@last", "And again", "--stream")
    assert "Prompt: And again" in done.out, done.err
    assert [row["title"] for row in on_box("list").json["data"]] == ["Say hello"]
    assert on_box("doctor", "-o", "json").status == 0
    one, two = (on_box("create", "Once", "--once", "k", "-o", "id").out for _ in range(2))
    assert one == two


@pytest.mark.slow
def test_files_travel_both_ways(on_box: Run, home: Path) -> None:
    (home / "a.txt").write_text("first")
    done = on_box("create", "Read it", "-f", "a.txt", "--wait", "-o", "id")
    assert done.status == 0, done.err
    (home / "b.bin").write_bytes(bytes(range(256)) * 100_000)  # more than goes through the API
    assert on_box("artifact", "put", "@last", "b.bin").status == 0
    done = on_box("artifact", "get", "@last", "b.bin", "-d", "out")
    assert done.status == 0, done.err
    assert (home / "out/b.bin").read_bytes() == (home / "b.bin").read_bytes()


@pytest.mark.slow
def test_a_question_is_answered_from_here(on_box: Run) -> None:
    done = on_box("create", "Say hello [[ask]]", "--wait")
    assert done.status == 12, done.err
    assert on_box("answer", "@last", "--option", "1").status == 0
    assert on_box("wait", "@last").status == 0


@pytest.mark.slow
def test_an_agent_there_works_on_the_commits_here(
    on_box: Run, box: SshHost, tmp_path: Path, rebyte: Run
) -> None:
    """They travel as a bundle; of those that are there already, nothing is sent again."""
    need_jail()
    script = "git log --format=%s; cat a.txt; echo new > made.txt"
    (box.home / "config/rebyte").mkdir(parents=True)
    (box.home / "config/rebyte/config.toml").write_text(
        f"[local.agents.mine]\ncommand = {json.dumps(['sh', '-c', script])}\n"
    )
    work = small_repository(tmp_path / "work")
    (work / "a.txt").write_text("of here\n")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "Only here")
    done = on_box("create", "Do it", "-g", ".", "-x", "mine", "--wait", cwd=work)
    assert done.status == 0, done.err
    assert "Only here" in done.json["finalResult"]
    assert "of here" in done.json["finalResult"]
    assert done.json["baseCommit"] == git(work, "rev-parse", "HEAD").strip()
    assert "+++ b/made.txt" in on_box("diff", "@last", cwd=work).out
    assert on_box("check", "@last", "test -e made.txt", cwd=work).status == 0
    assert on_box("apply", "@last", "--commit", "-m", "Apply it", cwd=work).status == 0
    assert (work / "made.txt").read_text() == "new\n"
    done = on_box("create", "Again", "-g", ".", "-x", "mine", "--wait", "-v", cwd=work)
    assert "Apply it" in done.json["finalResult"]
    done = on_box("create", "And again", "-g", ".", "-x", "mine", "--wait", "-v", cwd=work)
    assert "POST /v1/files" not in done.err  # nothing was missing there


@pytest.mark.slow
def test_commits_of_another_repository_do_not_travel(
    on_box: Run, box: SshHost, tmp_path: Path
) -> None:
    """A download can borrow them from any folder here."""
    (box.home / "config/rebyte").mkdir(parents=True)
    (box.home / "config/rebyte/config.toml").write_text("[local.agents.mine]\ncommand = ['true']\n")
    private, bare = small_repository(tmp_path / "private"), tmp_path / "bare.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(bare))
    (bare / "objects/info/alternates").write_text(f"{private}/.git/objects\n")
    git(bare, "update-ref", "refs/heads/main", git(private, "rev-parse", "HEAD").strip())
    done = on_box("create", "Do it", "-g", str(bare), "-x", "mine")
    assert done.status != 0
    assert "its objects are those" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "status", "problem"),
    [
        ('ssh = "box"\nremote_command = ["/nowhere/rebyte"]', 1, "box has no /nowhere/rebyte"),
        ('ssh = "nowhere.invalid"', 5, "Could not resolve hostname"),
        (
            'ssh = "box"\nremote_command = ["sh", "-c", "echo rebyte-connect 9 3.2.1; sleep 9"]',
            1,
            "box has rebyte 3.2.1, which speaks protocol 9",
        ),
        (
            'ssh = "box"\nremote_command = ["sh", "-c", "echo Hi; echo broken >&2; exit 3"]',
            1,
            "broken",
        ),
        ('ssh = "-oProxyCommand=x"', 2, "must be a host for ssh"),
        ('ssh = "box"\nbase_url = "https://a.example"', 2, "cannot be set together with base_url"),
    ],
)
def test_a_machine_that_cannot_be_used(
    rebyte: Run, box: SshHost, home: Path, settings: str, status: int, problem: str
) -> None:
    (home / ".config/rebyte/config.toml").write_text(f"[profiles.odd]\n{settings}\n")
    done = rebyte("-P", "odd", "create", "x", env=box.env, timeout=300)
    assert done.status == status, done
    assert problem in done.err
    assert len(done.err.strip().splitlines()) <= 2


@pytest.mark.slow
def test_a_machine_that_never_ends_its_line(tmp_path: Path, home: Path) -> None:
    """What it says on standard error is kept for a message, and must not fill the memory."""
    endless = "echo rebyte-connect 1 x; head -c 200M /dev/zero >&2; exit 3"
    (tmp_path / "ssh").write_text(f"#!/bin/sh\n{endless}\n")
    (tmp_path / "ssh").chmod(0o755)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        to_box = SshConnector("box", ["rebyte"], folders=[], interactive=False, note=said.append)
        tracemalloc.start()
        with to_box.connect(("127.0.0.1", 1), 60.0) as wire:
            assert wire.recv(1) == b""
            eventually(lambda: not is_being_read(), what="the end of what it says")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    to_box.stop()
    assert most < 20 << 20
    assert all(len(line) < 10_000 for line in said)


def is_being_read() -> bool:
    """Whether a thread still reads what an ssh says."""
    return any(thread.name == "rebyte-ssh" for thread in threading.enumerate())


@pytest.mark.slow
def test_what_is_only_for_this_machine_says_so(on_box: Run) -> None:
    on_box("create", "Say hello")
    for words in (("attach", "@last"), ("open", "@last"), ("workspace", "path", "@last")):
        done = on_box(*words)
        assert done.status == 4, (words, done)
        assert "elsewhere" in done.err or "box" in done.err or "no folder" in done.err


@pytest.mark.slow
def test_a_connection_that_is_cut_is_an_outage(on_box: Run, box: SshHost, home: Path) -> None:
    """A batch continues, and creates no task twice."""
    lines = "".join(f"Line {number} [[run=100ms]]\n" for number in range(60))
    (home / "prompts.txt").write_text(lines)
    process = subprocess.Popen(
        [commands() / "rebyte", "-P", "box", "batch", "--text", "prompts.txt", "-o", "jsonl"],
        cwd=home,
        env={**os.environ, **box.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    cuts = 0
    try:
        assert process.stdout is not None
        assert process.stdout.readline()  # a machine that never answered is no outage
        while process.poll() is None and cuts < 5:
            cuts += box.cut()
            time.sleep(0.5)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert cuts, "nothing was cut"
    assert process.returncode in (0, 6, 10), err
    again = on_box("batch", "--text", "prompts.txt", "-o", "jsonl")
    # A create that the cut may have left on its way is unknown for a while, and not sent again.
    states = [row["status"] for row in again.documents]
    unknown = states.count("unknown")
    assert again.status == (6 if unknown else 0), again.err
    assert states.count("completed") == 60 - unknown > 50, again.err
    titles = [row["title"].partition(" [[")[0] for row in on_box("list", "--all").json["data"]]
    assert len(set(titles)) == len(titles) >= 60 - unknown, out
