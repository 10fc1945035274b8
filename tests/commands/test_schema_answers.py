"""`--schema` and `result --json-schema`: answers in JSON that fit, or else status 10."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.repositories import with_answer
from tests.tools import need_jail

from .conftest import prompts_of

Local = Callable[..., Done]

# The simulation answers as the first of these words in a prompt says: at first that of the prompt,
# and after a follow-up, which repeats the schema, that of the schema.
HINT = "[[say=7]]"
SCHEMA = {"type": "integer", "minimum": 5, "$comment": HINT}
NEVER = {"type": "integer", "minimum": 5}
WRONG = "[[say=four]]"


@pytest.fixture
def schema(tmp_path: Path) -> Callable[..., str]:
    """The path of a file with this schema."""

    def write(value: Any = SCHEMA) -> str:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        file.write_text(json.dumps(value))
        return str(file)

    return write


def create(local: Local, prompt: str, *words: str) -> Done:
    return local("create", prompt, "--wait", "-o", "json", *words)


@pytest.mark.slow
def test_an_answer_that_fits(local: Local, schema: Callable[..., str]) -> None:
    done = create(local, "How many? [[say=5]]", "--schema", schema())
    assert (done.status, done.json["output"]) == (0, 5), done
    (prompt,) = prompts_of(local)
    assert prompt.startswith("How many? [[say=5]]\n\nYour final answer must be JSON")
    assert prompt.endswith(json.dumps(SCHEMA))
    only = create(local, "[[say=\\u0060\\u0060\\u0060]]", "--schema", schema({}), "--tries", "1")
    assert (only.status, "output" in only.json) == (10, False)
    null = create(local, "[[say=null]]", "--schema", schema({}), "--fields", "output")
    assert (null.status, null.json) == (0, {"output": None})


@pytest.mark.slow
def test_an_answer_that_does_not_is_told_so(local: Local, schema: Callable[..., str]) -> None:
    done = create(local, WRONG, "--schema", schema())
    assert (done.status, done.json["output"]) == (0, 7), done
    first, second = prompts_of(local)
    assert first.startswith(WRONG)
    assert "(try 2 of 3):\n\n- not JSON: " in second
    assert second.endswith(json.dumps(SCHEMA))


@pytest.mark.slow
def test_one_that_never_fits(local: Local, schema: Callable[..., str]) -> None:
    done = create(local, WRONG, "--schema", schema(NEVER))
    assert (done.status, "output" in done.json) == (10, False)
    error = json.loads(done.err.splitlines()[-1])["error"]
    assert (error["code"], error["exit"]) == ("schema_mismatch", 10)
    assert "fits the schema: not JSON: Expecting value" in error["message"]
    assert len(prompts_of(local)) == 3
    assert create(local, "[[fail]]", "--schema", schema()).status == 10
    assert len(prompts_of(local)) == 1


@pytest.mark.slow
def test_follow_up_rerun_and_attempts(local: Local, schema: Callable[..., str]) -> None:
    words = ("--wait", "-o", "json", "--schema")
    local("create", WRONG)
    done = local("follow-up", "@last", "Again [[say=x]]", *words, schema())
    assert (done.status, done.json["output"], len(done.json["prompts"])) == (0, 7, 3), done
    create(local, WRONG, "--schema", schema({"type": "string"}), "--tries", "1")
    done = local("rerun", "@last", *words, schema())
    assert (done.status, done.json["output"]) == (0, 7), done
    assert prompts_of(local)[0].count("Your final answer must be") == 1
    several = local("rerun", "@1", "@2", "--wait", "-o", "jsonl", "--schema", schema())
    assert [json.loads(line)["output"] for line in several.out.splitlines()] == [7, 7], several
    done = create(local, WRONG, "--attempts", "2", "--schema", schema())
    assert (done.status, done.json["output"]) == (0, 7), done


@pytest.mark.slow
def test_without_a_wait_it_is_only_asked_for(local: Local, schema: Callable[..., str]) -> None:
    done = local("create", WRONG, "--schema", schema(), "--dry-run")
    assert done.json["prompt"].endswith(json.dumps(SCHEMA))
    assert local("create", WRONG, "--schema", schema()).status == 0
    done = local("result", "@last", "--json-schema", schema(), "--wait")
    assert (done.status, done.out) == (10, "")
    assert len(prompts_of(local)) == 1


@pytest.mark.slow
def test_result(local: Local, schema: Callable[..., str]) -> None:
    answer = "Here:\\u000a\\u0060\\u0060\\u0060\\u000a[5,\\u00206]\\u000a\\u0060\\u0060\\u0060"
    for said in (answer, "true", "word"):
        create(local, f"[[say={said}]]")
    integers = schema({"type": "array", "items": {"type": "integer"}})
    done = local("result", "@3", "@2", "@1", "--json-schema", integers)
    assert (done.status, done.out) == (10, "[5,6]\n")
    assert "$: True is not of type 'array'" in done.err
    assert "not JSON" in done.err
    assert done.err.count("shows the whole answer") == 2


@pytest.mark.slow
def test_with_a_check(inside_local: Local, home: Path, schema: Callable[..., str]) -> None:
    """Both count, and one follow-up tells of both."""
    need_jail()
    repository = with_answer(home / "repository")

    def local(*words: str, **options: Any) -> Done:
        return inside_local("-P", "local", *words, cwd=repository, **options)

    write = "[[write=answer.txt:right]]"
    tell = "printf '[[write=%s.txt:right]]\\n' answer"  # or the file would be protected
    check = f"ls | grep ^ans | xargs grep -q right || {{ {tell}; exit 3; }}"
    words = ("-g", ".", "--check", check, "--schema", schema())
    done = create(local, WRONG + "[[write=answer.txt:wrong]]", *words)
    assert done.status == 0, done
    assert (done.json["output"], done.json["check"]["tries"]) == (7, 2)
    assert "with exit status 3" in prompts_of(local)[1]
    assert "- not JSON" in prompts_of(local)[1]
    done = create(local, f"{WRONG}{write}", *words, "--tries", "1")
    assert (done.status, done.json["check"]["status"], "output" in done.json) == (
        10, "passed", False
    )  # fmt: skip


@pytest.mark.slow
def test_usage(local: Local, schema: Callable[..., str], tmp_path: Path) -> None:
    for words in (
        ("create", "Hi", "--wait", "--schema", schema({"type": "strin"})),
        ("create", "Hi", "--wait", "--schema", str(tmp_path)),
        ("create", "Hi", "--wait", "--tries", "2"),
        ("create", "Hi", "--schema", schema(), "--protect", "x"),
        ("create", "x" * 99_000 + " " * 900, "--schema", schema()),
    ):
        assert local(*words).status == 2, words
    assert local("create", "Hi", "--schema", str(tmp_path / "none")).status == 4
    assert local("list", "-o", "id").out == ""
