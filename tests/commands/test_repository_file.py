"""`.rebyte.toml`: a repository says how, and is obeyed once the user trusts what it says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done
from tests.patch_farm import PatchFarm, patch_of
from tests.repositories import git, introduce, with_answer
from tests.servers import json_reply
from tests.tools import need_jail

Local = Callable[..., Done]

RIGHT = "echo right > answer.txt"
CHECK = """check = "sh tests/run.sh"\nprotect = ["tests"]\n"""


@pytest.fixture
def repository(home: Path) -> Path:
    """A repository that says how to check the work, of a user whom git knows."""
    need_jail()
    introduce(home)
    folder = with_answer(home / "repository")
    (folder / "tests").mkdir()
    (folder / "tests/run.sh").write_text("grep -q right answer.txt || { echo wrong; exit 3; }\n")
    say(folder, CHECK)
    return folder


def say(repository: Path, text: str) -> None:
    """Commit this `.rebyte.toml`."""
    (repository / ".rebyte.toml").write_text(text)
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "Say how")


def create(agents: Local, repository: Path, prompt: str, *words: str) -> Done:
    more = () if "--no-wait" in words else ("--wait",)
    words = tuple(word for word in words if word != "--no-wait")
    return agents(
        "create", prompt, "-x", "mine", "-g", ".", "-o", "json", *more, *words, cwd=repository
    )


def trust(agents: Local, repository: Path) -> None:
    done = agents("local", "trust", cwd=repository)
    assert done.status == 0, done


@pytest.mark.slow
def test_it_is_obeyed_once_it_is_trusted(agents: Local, repository: Path) -> None:
    done = create(agents, repository, "true")
    assert done.status == 0
    assert "asks for: check `sh tests/run.sh`; protect tests" in done.err
    assert f"until you trust it: `rebyte local trust {repository}`" in done.err
    assert "check" not in done.json
    shown = agents("local", "trust", cwd=repository)
    assert shown.status == 0
    assert CHECK.strip() in shown.err
    done = create(agents, repository, "true", "--tries", "1")
    assert done.status == 10, done
    assert "From .rebyte.toml: check `sh tests/run.sh`; protect tests" in done.err
    done = create(agents, repository, RIGHT)
    assert (done.status, done.json["check"]["status"]) == (0, "passed"), done


@pytest.mark.slow
def test_changed_content_is_not_trusted(agents: Local, repository: Path) -> None:
    trust(agents, repository)
    say(repository, CHECK + "# changed\n")
    done = create(agents, repository, "true")
    assert (done.status, "not obeyed until" in done.err) == (0, True), done
    git(repository, "checkout", "-q", "HEAD~")
    assert create(agents, repository, "true", "--tries", "1").status == 10


@pytest.mark.slow
def test_what_is_not_committed_is_not_read(agents: Local, repository: Path) -> None:
    trust(agents, repository)
    (repository / ".rebyte.toml").write_text('check = "false"\n')
    assert create(agents, repository, RIGHT, "--with-changes").status == 0
    shown = agents("local", "trust", cwd=repository)
    assert "false" not in shown.err


@pytest.mark.slow
def test_another_repository_with_the_same_content(
    agents: Local, repository: Path, home: Path
) -> None:
    """A check such as `./test.sh` runs what is beside it."""
    trust(agents, repository)
    git(home, "clone", "-q", str(repository), "copy")
    done = create(agents, home / "copy", "true")
    assert (done.status, "not obeyed until" in done.err) == (0, True), done


@pytest.mark.slow
def test_options_win(agents: Local, repository: Path) -> None:
    trust(agents, repository)
    done = create(agents, repository, "true", "--check", "true")
    assert (done.status, done.json["check"]["command"]) == (0, "true"), done
    assert "From .rebyte.toml: protect tests\n" in done.err
    done = create(agents, repository, "true", "--no-check")
    assert (done.status, ".rebyte.toml" in done.err, "check" in done.json) == (0, False, False)
    for words in (("--check", "true", "--no-check"), ("--no-check", "--tries", "2")):
        assert create(agents, repository, "true", *words).status == 2


@pytest.mark.slow
def test_an_agent_that_edits_it_changes_nothing(agents: Local, repository: Path) -> None:
    """Neither the command nor what it protects, now and in the follow-up."""
    trust(agents, repository)
    cheat = "echo 'check = \"true\"' > .rebyte.toml; echo true > tests/run.sh"
    done = create(agents, repository, cheat, "--tries", "1")
    assert done.status == 10, done
    words = ("follow-up", "@last", "git add -A; git commit -qm x", "--wait", "--tries", "1")
    done = agents(*words, "-o", "json", cwd=repository)
    assert done.status == 10, done
    assert agents("check", "@last", cwd=repository).status == 10
    done = agents("follow-up", "@last", RIGHT, "--wait", "-o", "json", cwd=repository)
    assert (done.status, done.json["check"]["command"]) == (0, "sh tests/run.sh"), done


@pytest.mark.slow
def test_check_without_a_command(agents: Local, repository: Path) -> None:
    create(agents, repository, RIGHT)
    done = agents("check", "@last", cwd=repository)
    assert (done.status, "nothing says how to check" in done.err) == (2, True), done
    trust(agents, repository)
    done = agents("check", "@last", "-o", "json", cwd=repository)
    assert (done.status, done.json["command"]) == (0, "sh tests/run.sh"), done
    assert agents("check", "@last", "--no-jail", cwd=repository).status == 2


@pytest.mark.slow
def test_trust_by_a_task(agents: Local, repository: Path) -> None:
    """The commit that it started from counts, not the one of now."""
    create(agents, repository, RIGHT)
    say(repository, 'check = "false"\n')
    done = agents("local", "trust", "@last", cwd=repository)
    assert (done.status, CHECK.strip() in done.err) == (0, True), done
    assert agents("check", "@last", cwd=repository).status == 0
    done = create(agents, repository, "true")
    assert "not obeyed until" in done.err


def test_list_and_remove(agents: Local, repository: Path) -> None:
    git(repository, "remote", "add", "origin", "git@example.com:acme/shop.git")
    trust(agents, repository)
    listed = agents("local", "trust", "--list", "-o", "json").json["data"]
    assert {row["repository"] for row in listed} == {
        str(repository / ".git"), "example.com/acme/shop"
    }  # fmt: skip
    assert {row["asks"] for row in listed} == {"check `sh tests/run.sh`; protect tests"}
    (repository / ".rebyte.toml").write_text("[")
    git(repository, "commit", "-qam", "Break it")
    assert agents("local", "trust", "--remove", cwd=repository).status == 0
    assert agents("local", "trust", "--list", "-o", "json").json["data"] == []
    assert "It was not trusted" in agents("local", "trust", "--remove", cwd=repository).err


@pytest.mark.slow
def test_a_file_that_says_nonsense(agents: Local, repository: Path) -> None:
    """It stops no one: it may be of another version, and of someone else."""
    say(repository, 'check = "true"\nchck = "true"\n')
    done = create(agents, repository, "true")
    assert done.status == 0
    assert ".rebyte.toml, line 2: 'chck' means nothing here" in done.err
    done = agents("local", "trust", cwd=repository)
    assert (done.status, "line 2" in done.err) == (1, True), done


def test_without_a_file(agents: Local, repository: Path) -> None:
    git(repository, "rm", "-q", ".rebyte.toml")
    git(repository, "commit", "-qm", "Nothing")
    done = create(agents, repository, "true", "--tries", "2")
    assert (done.status, "--tries requires --check" in done.err) == (2, True), done
    done = agents("local", "trust", cwd=repository)
    assert (done.status, "has no .rebyte.toml at HEAD" in done.err) == (4, True), done


@pytest.mark.slow
def test_a_batch_checks_each_line(agents: Local, repository: Path, home: Path) -> None:
    trust(agents, repository)
    (home / "lines.jsonl").write_text(
        '{"key": "good", "prompt": "echo right > answer.txt"}\n{"key": "bad", "prompt": "true"}\n'
    )
    words = ("batch", str(home / "lines.jsonl"), "-x", "mine", "-g", ".", "--wait")
    done = agents(*words, "--tries", "1", cwd=repository)
    assert done.status == 10, done
    rows = {row["key"]: row for row in done.documents}
    assert (rows["good"]["status"], rows["bad"]["status"]) == ("completed", "failed")
    assert rows["bad"]["check"]["output"] == "wrong"


@pytest.mark.slow
def test_land_uses_what_the_branch_begins_with(agents: Local, repository: Path) -> None:
    trust(agents, repository)
    tasks = [
        create(agents, repository, script, "--no-check").json["id"]
        for script in ("echo wrong > answer.txt; echo 'check = \"true\"' > .rebyte.toml", RIGHT)
    ]
    words = ("land", *tasks, "--branch", "all", "--rerun", "0", "-o", "jsonl")
    done = agents(*words, cwd=repository)
    assert done.status == 10, done
    assert [row["status"] for row in done.documents] == ["left out", "landed"]
    assert (
        agents(*words, "--no-check", "--force", cwd=repository).documents[0]["status"] == "landed"
    )


@pytest.mark.slow
def test_a_simulated_run_is_checked_too(agents: Local, repository: Path) -> None:
    trust(agents, repository)
    words = ("create", "[[write=answer.txt:right]]", "-g", ".", "--wait", "-o", "json")
    done = agents(*words, cwd=repository)
    assert (done.status, done.json["check"]["status"]) == (0, "passed"), done


@pytest.mark.slow
def test_a_run_takes_the_setup(agents: Local, repository: Path) -> None:
    """Said where it is created; `--no-setup` takes none, and what is kept can be deleted."""
    say(repository, 'setup = "mkdir -p lib; echo hi > lib/made"\ncache = ["lib"]\n')
    trust(agents, repository)
    done = create(agents, repository, "cat lib/made")
    assert (done.status, done.json["finalResult"]) == (0, "hi\nDone."), done
    assert "From .rebyte.toml: setup `mkdir -p lib; echo hi > lib/made`; cache lib" in done.err
    assert "setup" in agents("logs", "@last").out
    assert agents("local", "status", "-o", "json").json["setupCaches"] > 0
    assert agents("local", "reset", "--cache").status == 0
    assert agents("local", "status", "-o", "json").json["setupCaches"] == 0
    done = create(agents, repository, "test ! -e lib", "--no-setup")
    assert (done.status, ".rebyte.toml" in done.err) == (0, False), done
    done = create(agents, repository, "test ! -e lib", "--no-jail")
    assert (done.status, "Not without a sandbox, of .rebyte.toml: setup" in done.err) == (0, True)


@pytest.mark.slow
def test_a_setup_that_fails(agents: Local, repository: Path) -> None:
    say(repository, 'setup = "echo no such package; exit 7"\n')
    trust(agents, repository)
    done = create(agents, repository, "true")
    assert done.status == 10
    assert "The setup of the repository failed: it exited with status 7" in done.err
    assert "no such package" in done.err


@pytest.mark.slow
def test_doctor_tells_what_it_asks_for(agents: Local, repository: Path) -> None:
    def found() -> dict[str, str]:
        rows = agents("doctor", "-o", "json", cwd=repository).json["data"]
        return next(row for row in rows if row["name"] == "repository")

    row = found()
    assert (row["status"], "local trust" in row["hint"]) == ("warning", True), row
    assert (
        row["message"]
        == "not trusted: .rebyte.toml asks for: check `sh tests/run.sh`; protect tests"
    )
    trust(agents, repository)
    assert found()["status"] == "ok"
    say(repository, 'check = "true"\nchck = "true"\n')
    row = found()
    assert (row["status"], row["message"][:23]) == ("warning", ".rebyte.toml, line 2: '"), row


@pytest.mark.slow
def test_a_workspace_has_its_own_start(agents: Local, repository: Path) -> None:
    """Another task in it is checked as the commit says that the workspace began with."""
    trust(agents, repository)
    first = create(agents, repository, RIGHT, "--no-check")
    git(repository, "rm", "-q", ".rebyte.toml")
    git(repository, "commit", "-qm", "Nothing")
    words = (
        "create",
        "true",
        "-x",
        "mine",
        "-w",
        first.json["workspaceId"],
        "--wait",
        "-o",
        "json",
    )
    done = agents(*words, cwd=repository)
    assert (done.status, done.json["check"]["status"]) == (0, "passed"), done


@pytest.mark.slow
def test_a_clone_of_a_url(agents: Local, repository: Path, home: Path) -> None:
    """It is read when it is there, and trusted by the task."""
    git(home, "clone", "-q", "--bare", str(repository), "bare.git")
    words = ("create", RIGHT, "-x", "mine", "-g", f"file://{home}/bare.git", "--wait", "-o", "json")
    done = agents(*words)
    assert (done.status, "check" in done.json) == (0, False), done
    assert "asks for: check `sh tests/run.sh`" in done.err
    assert agents("local", "trust", done.json["id"]).status == 0
    done = agents(*words)
    assert (done.status, done.json["check"]["status"]) == (0, "passed"), done


@pytest.mark.slow
def test_a_task_that_the_history_lacks(agents: Local, repository: Path, home: Path) -> None:
    """What made it is another program, or the history is off or lost: the service knows it."""
    trust(agents, repository)
    with (home / ".config/rebyte/config.toml").open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write("history = false\n" + text)
    task = create(agents, repository, "true", "--no-check").json["id"]
    words = ("follow-up", task, "true", "--wait", "--tries", "1", "-o", "json")
    done = agents(*words)
    assert (done.status, done.json["check"]["status"]) == (10, "failed"), done
    assert agents("check", task).status == 10
    assert (Path(agents("workspace", "path", task).out.strip()) / "answer.txt").exists()
    plain = agents("create", "true", "-x", "mine", "--wait", "-o", "id").out.strip()
    done = agents("follow-up", plain, "true", "--wait", cwd=repository)
    assert (done.status, done.err.count("\n")) == (0, 1), done


@pytest.mark.slow
def test_a_line_whose_start_is_gone(agents: Local, repository: Path, home: Path) -> None:
    """It is not taken for one that passed."""
    trust(agents, repository)
    line = f'{{"prompt": "true", "githubUrl": "{repository}"}}\n{{"prompt": "true"}}\n'
    (home / "lines.jsonl").write_text(line)
    words = ("batch", str(home / "lines.jsonl"), "-x", "mine")
    assert agents(*words, "--no-wait").status == 0
    for task in agents("list", "-o", "id").out.split():
        agents("wait", task)
    state = home / ".local/state/rebyte"
    shutil.rmtree(state / "local/workspaces")
    (state / "history.db").unlink()
    done = agents(*words)
    assert done.status == 1, done
    assert [row["status"] for row in done.documents] == ["unchecked", "completed"]


def test_a_task_made_elsewhere(inside: Local, repository: Path, home: Path) -> None:
    """As far as its service tells where it started; else a check that may be its own is missed."""
    patch = patch_of(repository, lambda: (repository / "answer.txt").write_text("no\n"))
    assert inside("local", "trust", cwd=repository).status == 0
    start = git(repository, "rev-parse", "HEAD").strip()
    with PatchFarm() as farm:
        ended = [{"id": "p1", "status": "completed"}]
        told = farm.add("Told", patch, prompts=ended, baseCommit=start)
        other = farm.add("Other", patch, prompts=ended)
        farm.fields[other]["workspaceId"] = None

        def wait(task: str, cwd: Path) -> Done:
            words = ("follow-up", task, "Again", "--wait", "--timeout", "20s")
            return inside(*words, cwd=cwd, env=farm.env)

        changes = farm.hook
        farm.hook = lambda request: (
            json_reply({"promptId": "p1"}, 201) if request.method == "POST" else changes(request)
        )
        assert wait(told, repository).status == 10
        done = wait(other, repository)
        assert (done.status, "--base REV" in done.err) == (2, True), done
        assert wait(other, home).status == 0


def test_a_trusted_check_of_a_start_that_is_not_known_here(
    inside: Local, repository: Path, home: Path
) -> None:
    """Nothing is sent whose check would be missed."""
    git(repository, "remote", "add", "origin", "https://github.com/acme/shop.git")
    (home / "lines.jsonl").write_text('{"prompt": "Hi", "githubUrl": "acme/shop"}\n')
    with PatchFarm() as farm:

        def ends(*words: str) -> tuple[Done, Done]:
            create = ("create", "Hello", "-g", "acme/shop", "--wait", *words)
            batch = ("batch", "lines.jsonl", *words)
            return (
                inside(*create, cwd=home, env=farm.env),
                inside(*batch, cwd=home, env=farm.env),
            )

        assert inside("local", "trust", cwd=repository).status == 0
        for done in ends():
            assert (done.status, "its repository's check: the commit" in done.err) == (2, True), (
                done
            )
        assert farm.made.total() == 0
        assert [done.status for done in ends("--no-check")] == [0, 0]
