"""`batch --check`: a line is completed when a command passes, however often the batch is killed."""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.batch.state import LineState, LineTable, check_record
from tests.conftest import COMMAND, Done
from tests.repositories import CHECK, HINT, WRONG, with_answer
from tests.tools import need_jail
from tests.waiting import eventually

Local = Callable[..., Done]

# A schema that does the same, and an answer that does not fit it.
SCHEMA = {"type": "integer", "$comment": "[[say=7]]"}
SAID = "[[say=seven]]"
# How many lines, and how often the batch is killed.
FEW, MANY = (4, 3), (30, 20)


@pytest.fixture
def repository(home: Path) -> Path:
    need_jail()
    return with_answer(home / "repository")


@pytest.fixture
def batch(inside_local: Local, repository: Path, home: Path) -> Local:
    """`batch --check` with these prompts, or on the file of the last call (None)."""

    def run(prompts: list[str] | None, check: str, *words: str) -> Done:
        file = home / "t.jsonl"
        if prompts is not None:
            file.write_text("".join(json.dumps({"prompt": each}) + "\n" for each in prompts))
        given = ("batch", str(file), "-g", ".", "--check", check, *words)
        return inside_local("-P", "local", *given, cwd=repository)

    return run


def rows(done: Done) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in done.out.splitlines()]
    return sorted(found, key=lambda row: int(row["line"]))


@pytest.mark.slow
def test_lines_are_checked_and_mended(batch: Local) -> None:
    done = batch([HINT, WRONG, "[[fail]]"], CHECK)
    assert done.status == 10, done
    first, second, third = rows(done)
    assert (first["status"], first["check"]["status"], first["check"]["tries"]) == (
        "completed", "passed", 1
    )  # fmt: skip
    assert (second["status"], second["check"]["tries"]) == ("completed", 2)
    assert (third["status"], "check" in third) == ("failed", False)
    again = batch(None, CHECK)
    assert rows(again) == [first, second, third]


@pytest.mark.slow
def test_a_line_that_never_passes_has_failed(batch: Local) -> None:
    done = batch([WRONG, HINT], "ls | grep ^ans | xargs cat; exit 4", "--tries", "2")
    assert done.status == 10
    for row in rows(done):
        assert (row["status"], row["error"]["code"]) == ("failed", "check_failed")
        assert (row["check"]["tries"], row["check"]["exit"]) == (2, 4)
    assert (
        "2 lines failed: did not pass its check: `ls | grep ^ans | xargs cat; exit 4` exited"
        in done.err
    )
    # With another try for each, in a new task.
    assert batch(None, CHECK, "--retry-failed").status == 0


def test_without_a_commit_to_start_from_nothing_is_sent(batch: Local, inside_local: Local) -> None:
    assert batch([HINT], " ").status == 2
    assert batch([HINT], "true", "--no-wait").status == 2
    assert inside_local("-P", "local", "list", "-o", "id").out == ""


def test_a_record_of_a_check_is_sound() -> None:
    """A journal may be damaged: what decides about a line is looked at."""
    for record in (
        {"line": 1, "is": "mending", "tries": 1},
        {"line": 1, "is": "mended"},
        {"line": 1, "is": "mending", "prompt": "No", "tries": "1"},
        {"line": 1, "is": "ended", "status": "failed", "check": []},
    ):
        with pytest.raises(ValueError, match="not a record"):
            check_record(record)


def test_the_states_of_a_check() -> None:
    table = LineTable([0])
    task = {"line": 1, "is": "created", "id": "t"}
    table.replay(0, task)
    table.move(0, "running")
    table.apply(0, {"line": 1, "is": "checking"})
    assert table[0].tries == 0  # one that is cut off does not count
    told = {"is": "mending", "tries": 1, "prompt": "No", "check": {"status": "failed"}}
    table.apply(0, {"line": 1, **told})
    entry: LineState = table[0]
    assert (entry.told, entry.tries) == ("No", 1)
    table.apply(0, {"line": 1, "is": "mended", "prompt": "p2"})
    assert (entry.state, entry.prompt) == ("created", "p2")


def schema_batch(local: Local, home: Path, lines: list[Any], *words: str) -> Done:
    file = home / "t.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return local("-P", "local", "batch", str(file), *words)


def test_answers_of_lines_fit_their_schemas(inside_local: Local, home: Path) -> None:
    """One for all lines, or that of a line: as it is, or in a file; null is none."""
    (home / "s.json").write_text(json.dumps(SCHEMA))
    (home / "word.json").write_text(json.dumps({"type": "string"}))
    lines: list[Any] = [
        {"prompt": f"{SAID} one"},
        {"prompt": "[[say=[1\\u005d]] two", "outputSchema": {"type": "array"}},
        {"prompt": '[[say="hi"]] three', "outputSchema": str(home / "word.json")},
        {"prompt": "[[say=four]]", "outputSchema": None},
        {"prompt": "[[say=null]] five", "outputSchema": {}},
    ]
    words = ("--schema", str(home / "s.json"))
    done = schema_batch(inside_local, home, lines, *words)
    assert done.status == 0, done
    found = rows(done)
    assert [row.get("output", "none") for row in found] == [7, [1], "hi", "none", None]
    assert rows(schema_batch(inside_local, home, lines, *words)) == found
    # What a prompt asks for is a part of the input, so that no line can be sent twice for it.
    (home / "word.json").write_text('{"type": "string", "minLength": 1}')
    done = schema_batch(inside_local, home, lines, *words)
    assert (done.status, "the template or a schema have changed" in done.err) == (2, True)


def test_lines_whose_answers_never_fit(inside_local: Local, home: Path) -> None:
    (home / "s.json").write_text('{"type": "integer"}')
    words = ("--schema", str(home / "s.json"), "--tries", "2")
    done = schema_batch(inside_local, home, [{"prompt": "[[say=x]]"}] * 2, *words)
    assert done.status == 10
    for row in rows(done):
        assert (row["status"], row["error"]["code"]) == ("failed", "schema_mismatch")
        content = inside_local("-P", "local", "api", "GET", f"/tasks/{row['id']}/content").json
        assert len(content["prompts"]) == 2
    assert "2 lines failed: gave no answer that fits the schema: not JSON" in done.err
    # Without a wait, they are only asked for it.
    one = schema_batch(inside_local, home, [{"prompt": "[[say=y]]"}], *words[:2], "--no-wait",
                       "--journal", str(home / "other"))  # fmt: skip
    assert one.status == 0, one


def test_lines_whose_schemas_cannot_be_used(inside_local: Local, home: Path) -> None:
    schemas = [{"type": "strin"}, "none.json", 5, " "]
    lines = [{"prompt": "Hi", "outputSchema": schema} for schema in schemas]
    done = schema_batch(inside_local, home, lines)
    assert done.status == 2
    for problem in (
        "line 1: outputSchema: the value is not a JSON Schema: $.type",
        "line 2: outputSchema: no such file: none.json",
        "line 3: outputSchema: must be an object or the path of a file, not a number",
        "line 4: outputSchema: is empty",
    ):
        assert problem in done.err
    assert inside_local("-P", "local", "list", "-o", "id").out == ""


@pytest.fixture
def served(repository: Path) -> Iterator[None]:
    """A local service that outlives the commands."""
    words = [*COMMAND, "-P", "local", "local", "serve", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize(("count", "kills"), [FEW, pytest.param(*MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["check", "schema"])
def test_kill_9_at_any_moment_sends_each_follow_up_once(
    served: None, repository: Path, home: Path, local: Local, what: str, count: int, kills: int
) -> None:
    file, journal = home / "t.jsonl", home / "t.jsonl.journal"
    schema = home / "s.json"
    schema.write_text(json.dumps(SCHEMA))
    lines = ({"prompt": f"{WRONG}{SAID} Task {n}", "key": f"k{n}"} for n in range(count))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [*COMMAND, "-P", "local", "batch", str(file), "-g", "."]
    words += ["--check", CHECK] if what == "check" else ["--schema", str(schema)]
    luck, ended = random.Random(7), 0
    for number in range(kills):
        with subprocess.Popen(
            words, cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            # The first when every line has its task (test_session.py kills creates), the others
            # once so much more is in the journal: anywhere in the checks and the follow-ups.
            size = journal.stat().st_size if number else 0
            enough = size + luck.randrange(100, (20_000 // kills + 1000) * count // 30)

            def has_done_enough(
                process: Any = process, number: int = number, enough: int = enough
            ) -> bool:
                if process.poll() is not None or not journal.exists():
                    return process.poll() is not None
                if number == 0:
                    return journal.read_text().count('"is":"created"') == count
                return journal.stat().st_size >= enough

            eventually(has_done_enough)
            ended += process.poll() is not None
            process.kill()
    assert ended == 0
    for _ in range(8):  # a follow-up that was lost may need another run
        done = subprocess.run(words, cwd=repository, capture_output=True, text=True, check=False)
        if done.returncode != 6:
            break
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({row["id"] for row in found}) == count
    for row in found:
        assert row["status"] == "completed", row
        if what == "check":
            assert (row["check"]["status"], row["check"]["tries"]) == ("passed", 2)
        else:
            assert row["output"] == 7
        content = local("api", "GET", f"/tasks/{row['id']}/content").json
        told = [prompt["userPrompt"] for prompt in content["prompts"]]
        assert len(told) == 2, told
        assert "(try 2 of 3)" in told[1]
    assert Counter(row["key"] for row in found) == Counter(f"k{n}" for n in range(count))
