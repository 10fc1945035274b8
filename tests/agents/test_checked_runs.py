"""`--check` and `--schema` with the real agents: what the model is told, and what it cannot fake.

The check and the follow-up tell the scripted model what to do next, as they tell a real one.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import Done
from .conftest import write
from .scripted_model import Model

Run = Callable[..., Done]

MEND = "[[write answer.txt right]]"
CHECK = f"ls | grep ^ans | xargs grep -q right || {{ echo wrong answer; echo '{MEND}'; exit 3; }}"
TEST = "grep -q right answer.txt || { echo wrong answer; exit 3; }\n"
CHEATS = {
    "edits the test": "echo true > tests/run.sh",
    "deletes the test": "rm -r tests",
    "adds a conftest.py": "echo skip > conftest.py",
    "adds a target above": "sed -i '1i test: ; true' Makefile",
    "adds a makefile that is read first": "echo 'test: ; true' > GNUmakefile",
}
# In place of pytest, which the sandbox need not have: a conftest.py can make it skip tests.
PYTEST = "pytest() { test -e conftest.py || sh tests/run.sh; }; make test && pytest tests"


def create(run: Run, agent: str, prompt: str, *words: str, status: int = 0) -> Done:
    return run("create", prompt, "-x", agent, "-g", ".", "--wait", "-o", "json", *words,
               status=status)  # fmt: skip


def told(model: Model) -> list[str]:
    """Every prompt that the model has read, whichever agent sent it."""
    return [text for turn in model.turns for kind, text in turn.said if kind == "user"]


def test_the_model_mends_what_the_check_printed(run: Run, model: Model, agent: str) -> None:
    done = create(run, agent, "[[write answer.txt wrong]]", "--check", CHECK)
    assert (done.json["check"]["status"], done.json["check"]["tries"]) == ("passed", 2)
    assert [prompt["status"] for prompt in done.json["prompts"]] == ["succeeded"] * 2
    assert any("(try 2 of 3)" in text and f"wrong answer\n{MEND}" in text for text in told(model))
    assert "+right" in run("diff", done.json["id"]).out


@pytest.mark.parametrize("how", CHEATS)
def test_an_agent_that_cheats_does_not_pass(run: Run, repository: Path, how: str) -> None:
    write(repository / "answer.txt", "wrong\n")
    write(repository / "tests/run.sh", TEST)
    write(repository / "Makefile", "test: ; sh tests/run.sh\n")
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    for words in (("add", "."), (*author, "commit", "-qm", "Test")):
        subprocess.run(["git", *words], cwd=repository, check=True)
    check = ("--check", PYTEST, "--protect", "tests", "--tries", "1")
    done = create(run, "claude", f"[[shell {CHEATS[how]}]]", *check, status=10)
    assert (done.json["check"]["status"], done.json["check"]["exit"]) == ("failed", 2)
    assert "wrong answer" in done.json["check"]["output"]
    assert done.json["check"]["restored"] != []


def test_an_answer_that_fits_a_schema(run: Run, model: Model, agent: str, tmp_path: Path) -> None:
    """The first is in prose; the second, in a fenced block, fits."""
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"required": ["files"], "type": "object"}))
    prompt = '[[say Three of them. || Here:\n```json\n{"files": 3}\n```]]'
    done = create(run, agent, prompt, "--schema", str(schema))
    assert done.json["output"] == {"files": 3}
    assert any("- not JSON: " in text for text in told(model))
    printed = run("result", done.json["id"], "--json-schema", str(schema)).out
    assert printed == '{"files":3}\n'
