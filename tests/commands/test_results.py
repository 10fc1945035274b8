"""`schema --results` against what every command prints: nothing else, and nothing less."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace
from rebyte_cli.local.gateway import request_record
from rebyte_cli.local.gateway.request_record import RequestEntry, RequestRecord, now
from rebyte_cli.local.store import Store
from tests.conftest import Done
from tests.repositories import git, introduce

from .test_answer import parked
from .test_webhook import deliver, listening

Run = Callable[..., Done]

# In order. FORM is the format, WEBHOOK the one that was made; `!` before what is to fail.
SESSION = """
! create "Go wrong [[run=2ms]] [[fail]]" --wait
create "Say hello [[run=2ms]]"
create "Say hello [[run=2ms]]" --wait
create "Say hello [[run=2ms]]" --stream
create "Say hello [[run=2ms]] [[usage=900:80]]" --wait
create "Say hello" --dry-run -s pdf -f a.txt
create "Say hello [[run=2ms]]" --once FORM
create "Say hello [[run=2ms]]" --once FORM
follow-up @1 "And again [[run=2ms]]"
follow-up @1 "And again [[run=2ms]]" --wait
follow-up @1 "And again [[run=2ms]]" --stream
follow-up @1 "And again" --dry-run
get @1 @2
wait @1 @2
list
list --status completed --all
list --since 1h --limit 1
rerun @1
rerun @1 --wait
rerun @1 --stream
rerun @1 --dry-run
cancel @1
label @1 run=7
label --list
list --label run=7
get @1
logs @1
logs @1 --follow
share @1 --shared
credits
usage
usage --by model --fields name,tokens
list --all --fields id,usage,tokens,cost
doctor
file upload a.txt
workspace create --name shop --wait
list --fields id,title
list --fields id,title,executor --no-status
get @1 --fields title,finalResult
workspace list
workspace show shop
workspace name @1 FORM
artifact put shop a.txt
artifact list shop
artifact get shop a.txt -d out --force
artifact delete shop a.txt
artifact put shop a.txt
artifact delete shop --all --yes
workspace delete shop --yes
webhook create https://example.com/x --event task.completed
webhook list
webhook show WEBHOOK
webhook delete WEBHOOK
batch tasks.jsonl --journal FORM.journal
batch tasks.jsonl --journal FORM.journal --status
batch tasks.jsonl --dry-run
delete @1 @2
profile create FORM base_url=https://api.example/v1
profile list
profile show FORM
profile set FORM timeout=5
profile unset FORM timeout
profile use FORM
profile use default
auth login --with-key --insecure-storage
auth status
local status
local agents
completion bash --install
man --install pages
skill --install skills
skill list
mcp --install codex
"""
FORMS = ("json", "jsonl")
PATCH = """\
diff --git a/new.txt b/new.txt
new file mode 100644
index 0000000..ce01362
--- /dev/null
+++ b/new.txt
@@ -0,0 +1 @@
+hello
"""
# What they print is text, nothing, or what the user asks for (`api`, `schema`).
SILENT = {
    "api", "attach", "auth logout", "diff", "help", "local connect", "local key", "local reset",
    "local serve", "open", "profile delete", "result", "schema", "webhook public-key",
    "workspace forget", "workspace git", "workspace path", "workspace run",
}  # fmt: skip


def played(run: Run, tmp: Path) -> Iterator[tuple[str, str, list[Any]]]:
    """Each command line of the session with its format and the documents that it printed."""
    (tmp / "a.txt").write_text("first")
    skill = tmp / ".agents" / "skills" / "pdf" / "SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("---\nname: pdf\ndescription: Read PDF files.\n---\n")
    (tmp / "tasks.jsonl").write_text('{"prompt": "Say hello [[run=2ms]]"}\n')
    for form in FORMS:
        webhook = ""
        for line in SESSION.strip().splitlines():
            given = line.removeprefix("! ").replace("FORM", form).replace("WEBHOOK", webhook)
            done = run(*shlex.split(given), "-o", form, stdin="rbk_0123456789\n")
            assert (done.status != 0) == line.startswith("!"), (given, done)
            webhook = done.json["id"] if line.startswith("webhook create") else webhook
            yield given, form, done.documents
        yield "apply", form, applied(run, tmp, form).documents
        yield "check", form, checked(run, tmp, form).documents
        yield "land", form, landed(run, tmp, form).documents
        yield "local prune", form, pruned(run, tmp, form).documents
        yield "local trust", form, trusted(run, tmp, form).documents
        yield "answer", form, run("answer", parked(run, "[[ask]]"), "--option", "1").documents
        with listening("--count", "1", "-o", form) as (process, url):
            deliver(url, {"taskId": "t1", "event": "task.completed"})
            yield "webhook listen", form, [json.loads(process.stdout.read())]
    for form in FORMS:  # in the end: what it makes is no workspace that could be pruned
        yield "logs", form, recorded(run, tmp, form).documents


def patched(run: Run, tmp: Path) -> tuple[str, Path]:
    """A task with a patch that was put into its workspace, and a new repository."""
    repository = tmp / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    subprocess.run(["git", "init", "-q", repository], check=True)
    (tmp / "changes.patch").write_text(PATCH)
    task = run("create", "Say hello [[run=2ms]]", "-o", "id").out.strip()
    run("artifact", "put", task, str(tmp / "changes.patch"))
    return task, repository


def applied(run: Run, tmp: Path, form: str) -> Done:
    """`apply` of a patch."""
    task, repository = patched(run, tmp)
    done = run("apply", task, "-o", form, cwd=repository)
    assert done.status == 0, done
    return done


def checked(run: Run, tmp: Path, form: str) -> Done:
    """`check` of a patch; what runs the command is tried in test_check.py."""
    task, repository = patched(run, tmp)
    git(repository, "commit", "-q", "--allow-empty", "-m", "Start")
    return run(
        "check", task, "test -e new.txt", "--base", "HEAD", "--no-jail", "-o", form, cwd=repository
    )


def landed(run: Run, tmp: Path, form: str) -> Done:
    """`land` of a patch, and of a task that has none."""
    task, repository = patched(run, tmp)
    git(repository, "commit", "-q", "--allow-empty", "-m", "Start")
    introduce(tmp)
    other = run("create", "Say hello [[run=2ms]]", "-o", "id").out.strip()
    done = run("land", task, other, "--branch", "all", "-o", form, cwd=repository)
    assert done.status == 10, done
    return done


def recorded(run: Run, home: Path, form: str) -> Done:
    """`logs --network` of a run whose gateway has refused a request."""
    here = ("-P", "local")
    made = run(*here, "create", "Say hello [[run=2ms]]", "--wait", "-o", "json").json
    (prompt,) = made["prompts"]
    store = Store(home / ".local/state/rebyte/local")
    folder = Workspace(store.folder, made["workspaceId"]).run_folder(prompt["id"])
    folder.mkdir(parents=True)
    refused = RequestEntry(now(), "a.example", 443, "CONNECT", "", refused="not on the list")
    RequestRecord(str(folder / request_record.FILE)).add(refused)
    with store.write() as db:
        db.execute(
            "INSERT INTO runs (prompt, task, workspace, agent, options, queued, ended)"
            " VALUES (?, ?, ?, 'mine', '{}', 0, 0)",
            (prompt["id"], made["id"], made["workspaceId"]),
        )
    store.close()
    done = run(*here, "logs", made["id"], "--network", "-o", form)
    assert done.status == 0, done
    return done


def trusted(run: Run, tmp: Path, form: str) -> Done:
    """`local trust` of a repository that says how it is checked."""
    _, repository = patched(run, tmp)
    (repository / ".rebyte.toml").write_text('check = "true"\n')
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", form)
    return run("local", "trust", "-o", form, cwd=repository)


def pruned(run: Run, home: Path, form: str) -> Done:
    """`local prune` where there is a workspace that an agent has worked in."""
    store = Store(home / ".local/state/rebyte/local")
    (store.folder / "workspaces/old").mkdir(parents=True)
    with store.write() as db:
        db.execute(
            "INSERT OR REPLACE INTO runs (prompt, task, workspace, agent, options, queued, ended)"
            """ VALUES ('p', 't', 'old', 'mine', '{"source": ["/shop", null, false]}', 0, 0)"""
        )
    store.close()
    return run("local", "prune", "--older", "1d", "-o", form)


def closed(schema: Any) -> Any:
    """The same schema, where an object has no key that is not described."""
    definitions = {
        name: {"additionalProperties": False, **definition}
        if "data" not in definition.get("properties", ()) and "properties" in definition
        else definition
        for name, definition in schema["$defs"].items()
    }
    return {**schema, "$defs": definitions}


def names(commands: Any, path: str) -> set[str]:
    return {re.sub(".*/", "", each["$ref"]) for each in commands[path]["anyOf"]}


@pytest.mark.slow
def test_every_command_prints_what_its_schema_says(inside_local: Run, home: Path) -> None:
    """Each document meets one of the definitions of its command, with no key besides; and of
    each definition there is a document, so that none promises what never comes."""
    results = closed(inside_local("schema", "--results").json)
    commands = results["commands"]
    met: dict[str, set[str]] = {}
    strange = []
    for line, form, documents in played(inside_local, home):
        words = line.split()
        path = next(path for path in (" ".join(words[:2]), words[0]) if path in commands)
        assert documents, line
        for document in documents:
            valid = {
                name
                for name in names(commands, path)
                if Draft202012Validator({**results, "$ref": f"#/$defs/{name}"}).is_valid(document)
            }
            met.setdefault(path, set()).update(valid)
            strange += [] if valid else [f"{line} -o {form}: {document}"]
    assert not strange, "\n".join(strange)
    assert met == {path: names(commands, path) for path in commands}
    described = {node["path"] for node in leaves(inside_local("schema").json)}
    assert described == set(commands) | SILENT


def leaves(node: Any) -> Iterator[Any]:
    for command in node["commands"]:
        if command["prints"] or not command["commands"]:
            yield command
        yield from leaves(command)
