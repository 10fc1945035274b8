"""`rebyte rerun`: a new task with the prompt and the options of an earlier one."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.farm import Farm
from tests.repositories import Repository
from tests.servers import Answer, Request, error_reply, json_reply, reply
from tests.terminals import Session

Run = Callable[..., Done]
PROMPT = "Fix the login test\n\nIt fails on Mondays.\n"


def uploads(request: Request) -> Answer | None:
    """Takes any file, and renames it as the vendor's docs say."""
    if request.path == "/v1/files":
        stem, _, ending = request.json["filename"].rpartition(".")
        url = f"http://{request.headers['host']}/put"
        return json_reply(
            {"id": stem, "filename": f"{stem}-ab12.{ending}", "uploadUrl": url}, status=201
        )
    return reply(200) if request.path == "/put" else None


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Farm]:
    """A service that records what it was told to create; the command is pointed at it."""
    del home
    with Farm(hook=uploads) as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running


def rerun(run: Run, farm: Farm, *words: str, **options: Any) -> dict[str, Any]:
    """The body that a rerun of the newest task was created with."""
    before = len(farm.bodies)
    done = run("rerun", "@last", *words, **options)
    assert done.status == 0, done.err
    assert len(farm.bodies) == before + 1
    return farm.bodies[-1]


def test_the_whole_prompt_and_every_option_are_taken_over(
    farm: Farm, inside: Run, home: Path
) -> None:
    (home / "notes.txt").write_text("Mondays")
    words = "-x claude -m big -s pdf,excel -g acme/shop -b next -f notes.txt --label team=web"
    assert inside("create", "-p", PROMPT, *words.split()).status == 0
    other = home / "elsewhere"
    other.mkdir()
    assert rerun(inside, farm, cwd=other) == farm.bodies[0]
    assert farm.bodies[1] == {
        "prompt": PROMPT,
        "executor": "claude",
        "model": "big",
        "skills": ["pdf", "excel"],
        "githubUrl": "acme/shop",
        "branchName": "next",
        "files": [{"id": "notes", "filename": "notes-ab12.txt"}],
    }
    assert len(inside("list", "--label", "team=web", "-o", "id").out.split()) == 2


def test_options_replace_what_is_taken_over(farm: Farm, inside: Run, home: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (home / name).write_text(name)
    words = "-x claude -s pdf,excel -g acme/shop -b next -f a.txt --label run=7 --label team=web"
    assert inside("create", PROMPT, *words.split()).status == 0
    words = "-x codex -m big -s csv -g acme/site -f b.txt --label run=8"
    assert rerun(inside, farm, "-p", "Another", *words.split()) == {
        "prompt": "Another",
        "executor": "codex",
        "model": "big",
        "skills": ["csv"],
        "githubUrl": "acme/site",
        "files": [{"id": "b", "filename": "b-ab12.txt"}],
    }
    assert len(inside("list", "--label", "run=8", "--label", "team=web", "-o", "id").out) > 0
    assert len(inside("list", "--label", "run=7", "-o", "id").out.split()) == 1
    # The newest is now the rerun, whose branch alone is replaced.
    body = rerun(inside, farm, "-b", "topic")
    assert (body["githubUrl"], body["branchName"]) == ("acme/site", "topic")


def test_a_default_that_was_not_sent_is_not_sent_now(
    farm: Farm, inside: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inside("create", PROMPT).status == 0
    assert inside("profile", "set", "default", "executor=claude", "skills=pdf").status == 0
    assert rerun(inside, farm) == {"prompt": PROMPT}


def test_a_workspace_that_is_gone_is_left_out_with_an_option(farm: Farm, inside: Run) -> None:
    assert inside("create", PROMPT).status == 0
    assert inside("create", PROMPT, "-w", "@last").status == 0

    def gone(request: Request) -> Answer | None:
        if request.method == "POST" and request.path == "/v1/tasks":
            return error_reply(404, "not_found", "Workspace not found")
        return None

    farm.hook = gone
    done = inside("rerun", "@last")
    assert done.status == 4
    assert "with --new-workspace, the task gets a new one" in done.err
    done = inside("rerun", "@last", "-w", "@last")
    assert "without -w, the task gets a new one" in done.err


def test_the_workspace_is_used_again_only_if_it_was_chosen(farm: Farm, inside: Run) -> None:
    assert inside("create", PROMPT).status == 0
    assert "workspaceId" not in rerun(inside, farm)
    assert inside("create", "More", "-w", "@last").status == 0
    given = farm.bodies[-1]["workspaceId"]
    assert rerun(inside, farm)["workspaceId"] == given
    assert "workspaceId" not in rerun(inside, farm, "--new-workspace")
    done = inside("rerun", "@last", "--new-workspace", "-w", "@last")
    assert (done.status, len(farm.bodies)) == (2, 5)


def test_a_file_that_is_gone_stops_the_rerun_before_anything_is_sent(
    farm: Farm, inside: Run, home: Path
) -> None:
    (home / "notes.txt").write_text("Mondays")
    assert inside("create", PROMPT, "-f", "notes.txt").status == 0
    (home / "notes.txt").unlink()
    done = inside("rerun", "@last")
    assert done.status == 4
    assert f"cannot be uploaded again; it no longer exists: {home}/notes.txt" in done.err
    assert "Pass the files to upload with -f PATH" in done.err
    assert len(farm.bodies) == 1


def test_a_task_of_a_batch_is_run_again_with_its_files(farm: Farm, inside: Run, home: Path) -> None:
    (home / "notes.txt").write_text("Mondays")
    (home / "t.jsonl").write_text('{"prompt": "One", "files": ["notes.txt"]}')
    assert inside("batch", "t.jsonl", "--no-wait").status == 0
    assert rerun(inside, farm) == farm.bodies[0]


def test_a_task_from_elsewhere_is_run_again_as_far_as_the_service_shows_it(
    farm: Farm, inside: Run, tmp_path: Path
) -> None:
    words = ("create", PROMPT, "-s", "pdf", "-o", "id")
    made = inside(*words, env={"REBYTE_STATE_DIR": str(tmp_path / "other")})
    task = made.out.strip()
    done = inside("rerun", task)
    assert done.status == 0, done.err
    assert f"The history of this machine does not have task {task}" in done.err
    assert farm.bodies[-1] == {"prompt": PROMPT}
    farm.tasks[task] |= {"executor": "claude", "model": "big"}
    farm.hook = lambda request: (
        json_reply({"id": task, "executor": "claude", "model": "big", "status": "completed"})
        if request.path == f"/v1/tasks/{task}"
        else None
    )
    assert inside("rerun", task).status == 0
    assert farm.bodies[-1] == {"prompt": PROMPT, "executor": "claude", "model": "big"}
    assert inside("rerun", "nosuchtask").status == 4


def test_a_prompt_that_the_service_does_not_show_can_be_given(farm: Farm, inside: Run) -> None:
    assert inside("create", PROMPT, "-x", "claude").status == 0
    farm.silent = True
    done = inside("rerun", "@last")
    assert done.status == 1
    assert "does not show the prompt of task task-00001" in done.err
    farm.hook = lambda request: (
        error_reply(404, "not_found", "No") if request.path.endswith("/content") else None
    )
    assert inside("rerun", "@last").status == 1
    calls = len(farm.server.requests)
    assert rerun(inside, farm, "--prompt-file", "-", stdin="Given") == {
        "prompt": "Given",
        "executor": "claude",
    }
    assert len(farm.server.requests) == calls + 1  # nothing but the create


def test_follow_ups_are_named_and_not_sent(inside_local: Run) -> None:
    assert inside_local("create", PROMPT, "--wait").status == 0
    assert inside_local("follow-up", "@last", "And now this", "--wait").status == 0
    done = inside_local("rerun", "@last", "--wait")
    assert done.status == 0
    assert "Its follow-up is not sent again" in done.err
    assert len(done.json["prompts"]) == 1
    assert "Prompt: Fix the login test" in done.json["finalResult"]


def test_uncommitted_changes_are_not_asked_for_twice(farm: Farm, inside: Run, home: Path) -> None:
    repository = Repository(home)
    repository("remote", "set-url", "origin", "https://github.com/acme/shop.git")
    repository.write("a.txt", "one\ntwo\n")
    words = ("-g", ".", "--with-changes")
    assert inside("create", "Finish it", *words, cwd=repository.path).status == 0
    assert "apply the uncommitted changes" in farm.bodies[0]["prompt"]
    done = inside("rerun", "@last", cwd=repository.path)
    assert "Its uncommitted changes are not sent again" in done.err
    assert farm.bodies[1] == {
        "prompt": "Finish it",
        "githubUrl": "acme/shop",
        "branchName": "main",
    }
    assert rerun(inside, farm, *words, cwd=repository.path) == farm.bodies[0]


def test_dry_run_shows_the_body_and_once_holds(farm: Farm, inside: Run) -> None:
    assert inside("create", PROMPT, "-x", "claude").status == 0
    assert inside("rerun", "@last", "--dry-run").json == {"prompt": PROMPT, "executor": "claude"}
    task = inside("list", "-o", "id").out.strip()
    first = inside("rerun", task, "--once", "again")
    assert inside("rerun", task, "--once", "again").json["id"] == first.json["id"]
    assert len(farm.bodies) == 2


def test_a_repository_on_this_machine_is_worked_on_again(home: Path, inside: Run) -> None:
    repository = Repository(home)
    repository("remote", "set-url", "origin", "https://github.com/acme/shop.git")
    words = ("-P", "local", "create", PROMPT, "-x", "claude", "-g", ".", "-o", "id")
    assert inside(*words, cwd=repository.path).status == 0
    body = inside("-P", "local", "rerun", "@last", "--dry-run").json
    assert body["localRepository"] == str(repository.path)
    assert (body["githubUrl"], body["branchName"]) == ("acme/shop", "main")
    repository.path.rename(home / "moved")
    done = inside("-P", "local", "rerun", "@last")
    assert done.status == 4
    assert f"no longer exists: {repository.path}" in done.err
    body = inside("-P", "local", "rerun", "@last", "--dry-run", "-g", "./moved").json
    assert body["localRepository"] == str(home / "moved")


def test_a_prompt_is_not_sent_before_the_editor_has_changed_it(
    farm: Farm, inside: Run, home: Path
) -> None:
    """An editor with a window returns before the user has seen the prompt."""
    inside("create", "Fix it")
    editor = home / "code"
    editor.write_text("#!/bin/sh\n")
    editor.chmod(0o755)
    session = Session([*COMMAND, "rerun", "@last", "--edit"], EDITOR=str(editor), columns=300)
    assert session.finish() == 2
    assert len(farm.bodies) == 1
    shown = " ".join(session.everything)
    assert "the editor did not wait for its window to be closed" in shown
    assert f"export EDITOR='{editor} --wait'" in shown


def test_the_prompt_is_changed_in_the_editor(farm: Farm, inside: Run, home: Path) -> None:
    assert inside("create", PROMPT, "-x", "claude").status == 0
    editor = home / "editor"
    editor.write_text("#!/bin/sh\nprintf 'And write a test.\\n' >> \"$1\"\n")
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    session = Session([*COMMAND, "rerun", "@last", "--edit"], EDITOR=str(editor))
    assert session.finish() == 0, session.everything
    assert farm.bodies[-1] == {"prompt": f"{PROMPT}And write a test.\n", "executor": "claude"}
    assert inside("rerun", "@last", "--edit").status == 2


# Several tasks


def test_several_tasks_are_run_again_in_the_order_given(farm: Farm, inside: Run) -> None:
    for name, executor in (("One", "claude"), ("Two", "codex"), ("Three", "claude")):
        assert inside("create", name, "-x", executor).status == 0
    ids = inside("list", "-o", "id", "--no-status").out
    done = inside("rerun", "@3", "-", "-m", "big", "-o", "id", stdin=ids)
    assert (done.status, len(done.out.split())) == (0, 3)
    sent = [(body["prompt"], body["executor"], body["model"]) for body in farm.bodies[3:]]
    assert sent == [("One", "claude", "big"), ("Three", "claude", "big"), ("Two", "codex", "big")]
    assert done.out.split() == list(farm.tasks)[3:]
    assert inside("rerun", "-", stdin="").out == ""


def test_an_error_of_one_leaves_the_others(farm: Farm, inside: Run) -> None:
    for prompt in ("One", "Two <fail>"):
        assert inside("create", prompt).status == 0
    done = inside("rerun", "@2", "nosuchtask", "@1")
    assert (done.status, len(done.documents)) == (4, 2)
    assert "nosuchtask" in done.err
    done = inside("rerun", "@2", "nosuchtask", "@1", "--wait")
    assert (done.status, len(done.documents)) == (4, 2)
    assert {task["status"] for task in done.documents} == {"completed", "failed"}
    assert done.err.count("Created task ") == 2


def test_a_time_limit_ends_creates_and_the_wait(farm: Farm, inside: Run) -> None:
    for number in range(3):
        assert inside("create", f"Task {number} <run 60>").status == 0
    farm.delay = 0.4
    done = inside("rerun", "@1", "@2", "@3", "--wait", "--timeout", "0.6")
    assert done.status == 124
    assert len(farm.bodies) < 6
    assert farm.tried.total() == len(farm.bodies)


@pytest.mark.parametrize(
    "words",
    [["-p", "x"], ["-e"], ["--stream"], ["--wait", "--attempts", "2"], ["--once", "k"],
     ["--dry-run"]],
)  # fmt: skip
def test_what_is_about_one_task_is_refused_for_several(
    farm: Farm, inside: Run, words: list[str]
) -> None:
    done = inside("rerun", "aaaa1111", "bbbb2222", *words)
    assert (done.status, "can be used with one TASK only" in done.err) == (2, True)
    assert not farm.tried


@pytest.mark.parametrize(
    "shows",
    [
        lambda prompt: prompt[:20] + "…",
        lambda prompt: prompt.replace("'", "&#x27;").replace("test", "&quot;test&quot;"),
        lambda prompt: prompt.replace("login", "***"),
    ],
    ids=["cut", "escaped", "masked"],
)
def test_a_prompt_that_is_shown_differently_is_not_sent(
    farm: Farm, inside: Run, shows: Callable[[str], str]
) -> None:
    assert inside("create", "-p", PROMPT).status == 0
    farm.shows = shows
    done = inside("rerun", "@last")
    assert (done.status, len(farm.bodies)) == (6, 1)
    assert "differently from what was sent" in done.err
    assert "-p TEXT or --prompt-file FILE" in done.err
    assert rerun(inside, farm, "-p", PROMPT)["prompt"] == PROMPT


def test_a_prompt_from_elsewhere_is_taken_as_shown_and_that_is_said(
    farm: Farm, inside: Run
) -> None:
    made = farm._make({"prompt": PROMPT})
    farm.shows = lambda prompt: prompt[:20] + "…"
    done = inside("rerun", str(made["id"]))
    assert done.status == 0
    assert "its prompt is taken as the service shows it" in done.err
    assert farm.bodies[-1]["prompt"] == PROMPT[:20] + "…"
