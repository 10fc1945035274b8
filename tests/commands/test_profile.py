"""`rebyte profile`: named sets of settings."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Done

Rebyte = Callable[..., Done]


@pytest.fixture
def rebyte(inside: Callable[..., Done]) -> Callable[..., Done]:
    """The command, without a process for each call."""
    return inside


@pytest.fixture
def file(home: Path) -> Path:
    return home / ".config" / "rebyte" / "config.toml"


def sources(done: Done) -> dict[str, tuple[Any, str]]:
    return {row["name"]: (row["value"], row["source"]) for row in done.json["data"]}


def test_a_profile_from_its_making_to_its_end(rebyte: Rebyte, file: Path) -> None:
    made = rebyte(
        "profile", "create", "work", "executor=opencode", "skills=pdf,deep-research",
        "timeout=90", "history=false", "key_command=pass show 'a b'", "--use",
    )  # fmt: skip
    assert made.status == 0
    assert tomllib.loads(file.read_text()) == {
        "default_profile": "work",
        "profiles": {
            "work": {
                "executor": "opencode",
                "skills": ["pdf", "deep-research"],
                "timeout": 90,
                "history": False,
                "key_command": ["pass", "show", "a b"],
            }
        },
    }
    assert rebyte("profile", "unset", "work", "skills", "history", "key_command").status == 0
    changed = rebyte("profile", "set", "work", "base_url=https://Work.example/v1/", "model=lite")
    assert changed.json == {
        "name": "work",
        "default": True,
        "baseUrl": "https://work.example/v1",
        "executor": "opencode",
        "model": "lite",
        "timeout": 90.0,
        "base_url": "https://work.example/v1",
    }
    assert rebyte("profile", "list", "-o", "id").out == "default\nwork\nlocal\n"
    gone = rebyte("profile", "delete", "work")
    assert (gone.status, gone.out) == (0, "")
    assert gone.err == "The default profile is `default` again\nDeleted profile work\n"
    assert tomllib.loads(file.read_text()) == {"profiles": {}}


def test_a_profile_of_another_machine_has_no_base_url(rebyte: Rebyte) -> None:
    made = rebyte("profile", "create", "box", "ssh=me@box", "remote_command=/opt/rebyte -q")
    row = {"baseUrl": None, "ssh": "me@box", "remoteCommand": ["/opt/rebyte", "-q"]}
    assert made.json == {"name": "box", "default": False, **row, "base_url": None}
    lines = rebyte("profile", "list", "-o", "table").out.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["NAME", "DEFAULT", "BASE", "URL", "SSH"],
        ["box", "no", "me@box"],
    ]


def test_a_service_is_at_a_url_or_behind_ssh(rebyte: Rebyte) -> None:
    both = rebyte("profile", "create", "box", "ssh=me@box", "base_url=https://box.example/v1")
    assert both.status == 2
    assert rebyte("profile", "create", "box", "ssh=me@box").status == 0
    later = rebyte("profile", "set", "box", "base_url=https://box.example/v1")
    assert (later.status, "profile unset box" in later.err) == (2, True)
    [box] = [row for row in rebyte("profile", "list").json["data"] if row["name"] == "box"]
    assert box["ssh"] == "me@box"


def test_show_prints_each_value_with_its_source(rebyte: Rebyte, file: Path) -> None:
    rebyte("profile", "create", "work", "base_url=https://work.example/v1", "output=csv")
    environment = {
        "REBYTE_PROFILE": "work",
        "REBYTE_API_KEY": "rbk_0123456789abcdef",
        "REBYTE_REQUEST_TIMEOUT": "7",
        "REBYTE_API_URL": "https://work.example/v1",
    }
    done = rebyte("profile", "show", "-o", "json", env=environment)
    assert sources(done) == {
        "profile": ("work", "REBYTE_PROFILE"),
        "key": (None, "REBYTE_API_KEY"),
        "base_url": ("https://work.example/v1", "profile work"),
        "executor": (None, "default"),
        "model": (None, "default"),
        "skills": ([], "default"),
        "output": ("json", "option -o"),
        "key_command": (None, "default"),
        "env_key": (False, "default"),
        "ca_bundle": (None, "default"),
        "timeout": (7.0, "REBYTE_REQUEST_TIMEOUT"),
        "history": (True, "default"),
        "ssh": (None, "default"),
        "remote_command": (["rebyte"], "default"),
    }
    assert "rbk_" not in done.out + done.err


def test_show_of_a_name_is_show_with_that_profile(rebyte: Rebyte, file: Path) -> None:
    rebyte("profile", "create", "work", "output=csv")
    shown = rebyte(
        "profile", "show", "work", "-o", "jsonl", env={"REBYTE_API_URL": "http://[::1]/v1"}
    )
    named = rebyte("profile", "show", "-P", "work", "-o", "jsonl")
    assert shown.out == named.out
    assert json.loads(shown.out.splitlines()[1]) == {"name": "key", "value": None, "source": "none"}
    local = sources(rebyte("profile", "show", "local"))
    assert (local["base_url"], local["key"]) == ((None, "built in"), (None, "built in"))


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["set", "work", "outptu=json"], 2, "Did you mean 'output'?"),
        (["set", "work", "output=yaml"], 2, "output must be one of auto, table"),
        (["set", "work", "timeout=soon"], 2, "timeout must be a number of seconds"),
        (["set", "work", "history=maybe"], 2, "history must be true or false"),
        (["set", "work", "skills="], 0, ""),
        (["set", "work", "key_command=pass 'show"], 2, "key_command has an unclosed quote"),
        (["set", "work", "base_url=http://example.com/v1"], 2, "must be https"),
        (["set", "work", "api_key=rbk_secret"], 2, "config.toml cannot contain API keys"),
        (["set", "work", "rbk_secret"], 2, "a setting is given as KEY=VALUE"),
        (["set", "work", "rbk_secret=1"], 2, "no such setting"),
        (["set", "wrok", "output=json"], 4, "Did you mean 'work'?"),
        (["set", "home", "output=json"], 4, "`rebyte profile create NAME` adds one"),
        (["set", "local", "base_url=https://example.com/v1"], 2, "`local` is built in"),
        (["set", "local", "executor=claude"], 0, ""),
        (["unset", "work", "colour"], 2, "no such setting: colour"),
        (["use", "home"], 4, "`rebyte profile create NAME` adds one"),
        (["use", "wrok"], 4, "no such profile: wrok"),
        (["create", "work"], 2, "profile work already exists"),
        (["create", "local"], 2, "`local` is built in"),
        (["create", "../x"], 2, "a profile name has at most 64"),
        (["delete", "local"], 2, "`local` is built in"),
        (["delete", "absent"], 4, "no such profile: absent"),
        (["delete", "default"], 4, "profile default has no settings and no key"),
        (["delete", "work", "absent"], 4, "no such profile: absent"),
        (["show", "wrok"], 4, "Did you mean 'work'?"),
    ],
)
def test_impossible_changes_are_refused(
    rebyte: Rebyte, file: Path, words: list[str], status: int, says: str
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("[profiles.work]\n")
    done = rebyte("profile", *words)
    assert done.status == status
    assert says in done.err
    assert "rbk_secret" not in done.err
    assert status == 0 or file.read_text() == "[profiles.work]\n"


def test_rewriting_loses_comments_with_a_note(rebyte: Rebyte, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("# mine\n[profiles.work]\n")
    done = rebyte("profile", "set", "work", "output=json")
    assert done.err == f"Comments in {file} will be lost: the file is rewritten\n"
    assert tomllib.loads(file.read_text()) == {"profiles": {"work": {"output": "json"}}}


MISSPELLED = """[profiles.work]
base_ulr = "https://work.example/v1"

[local]
paralel = 4
"""


@pytest.mark.parametrize(
    "words",
    [
        ["list"], ["-P", "work", "create", "Say hello"], ["-P", "local", "list"],
        ["auth", "status"], ["local", "serve", "--port", "0"],
        ["local", "agents"], ["batch", "tasks.jsonl"],
    ],
)  # fmt: skip
def test_a_misspelled_name_is_an_error_of_every_command(
    rebyte: Rebyte, service: Any, file: Path, words: list[str]
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(MISSPELLED)
    (file.parents[2] / "tasks.jsonl").write_text('{"prompt": "Say hello"}\n')
    done = rebyte(*words)
    assert (done.status, done.out) == (2, "")
    assert f"{file}, line 2: profiles.work.base_ulr: no such setting; line 5: local.par" in done.err
    assert "Did you mean 'base_url'?" in done.err


def test_profile_commands_mend_a_misspelled_name(rebyte: Rebyte, file: Path) -> None:
    """They print and change what they are asked to, and say what is left to mend."""
    file.parent.mkdir(parents=True)
    file.write_text(MISSPELLED)
    for words in (["list"], ["show", "work"], ["list", "--fields", "name", "-o", "csv"]):
        done = rebyte("profile", *words)
        assert done.status == 2
        assert "work" in done.out
        assert "line 2: profiles.work.base_ulr: no such setting; line 5: local" in done.err
    done = rebyte("profile", "set", "work", "base_url=https://work.example/v1")
    assert (done.status, done.json["base_url"]) == (0, "https://work.example/v1")
    assert "Warning: " in done.err
    done = rebyte("profile", "unset", "work", "base_ulr")
    assert done.status == 0
    assert done.err.startswith(f"Warning: {file}, line 7: local.paralel: no such setting")
    assert rebyte("profile", "use", "work").status == 0
    assert rebyte("profile", "delete", "work").status == 0
    assert tomllib.loads(file.read_text()) == {"profiles": {}, "local": {"paralel": 4}}
    assert rebyte("list").status == 2


def test_profile_commands_mend_an_unknown_default(rebyte: Rebyte, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text('default_profile = "wrok"\n[profiles.work]\n')
    done = rebyte("list")
    assert done.status == 4
    assert f"{file}, line 1: default_profile: no such profile: wrok" in done.err
    assert "Did you mean 'work'?" in done.err
    assert [row["default"] for row in rebyte("profile", "list").json["data"]] == [False] * 3
    assert rebyte("profile", "use", "work").json["default"] is True


def test_a_file_that_is_not_toml_is_an_error_of_every_command(rebyte: Rebyte, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("[profiles.work\n")
    for words in (["profile", "list"], ["profile", "set", "work", "output=json"], ["list"]):
        done = rebyte(*words)
        assert done.status == 2
        assert f"{file}, line 1, column 15: not valid TOML" in done.err
        assert "Traceback" not in done.err


def test_a_named_profile_cannot_act_on_another_account(
    rebyte: Rebyte, service: Any, file: Path
) -> None:
    """The variables point to a service that answers; `-P` must not reach it."""
    assert rebyte("list").status == 0
    rebyte("profile", "create", "staging", "base_url=http://127.0.0.1:1/v1")
    done = rebyte("-P", "staging", "list")
    assert done.status == 3
    assert "REBYTE_API_URL=http://127.0.0.1:1/v1" in done.err


def test_deleting_a_profile_deletes_its_key(rebyte: Rebyte, service: Any, file: Path) -> None:
    rebyte("profile", "create", "work", f"base_url={service.base_url}")
    rebyte(
        "-P", "work", "auth", "login", "--with-key", "--insecure-storage", stdin="rbk_of_work"
    )  # fmt: skip
    stored = file.with_name("credentials.json")
    assert "rbk_of_work" in stored.read_text()
    done = rebyte("profile", "delete", "work")
    assert done.err == "Deleted profile work and its key\n"
    assert json.loads(stored.read_text()) == {"keys": {}}


def test_the_names_of_the_version_before_are_still_taken(rebyte: Rebyte) -> None:
    """Keys are in camel case, as everywhere; the old ones stay in JSON and in `--fields`."""
    rebyte("profile", "create", "work", "key_command=pass x", "env_key=true", "ca_bundle=/ca.pem")
    row = rebyte("profile", "list", "-o", "jsonl").documents[1]
    assert (row["keyCommand"], row["envKey"], row["caBundle"]) == (["pass", "x"], True, "/ca.pem")
    for old, new in (("base_url", "baseUrl"), ("key_command", "keyCommand"), ("env_key", "envKey")):
        assert row[old] == row[new]
        done = rebyte("profile", "list", "--fields", f"name,{old}", "-o", "csv")
        assert done.out.splitlines()[0] == f"name,{old}"
        assert rebyte("profile", "list", "--fields", old, "-o", "json").json["data"][1] == {
            old: row[new]
        }
    assert "_" not in rebyte("profile", "list", "-o", "csv").out.splitlines()[0]
    assert "_" not in rebyte("profile", "set", "work", "model=m", "-o", "table").out
    status = rebyte("local", "status", "-o", "json").json
    for old, new in (("agents_running", "agentsRunning"), ("key_leaks", "keyLeaks")):
        assert status[old] == status[new] == 0
    properties = rebyte("schema", "--results").json["$defs"]["local"]["properties"]
    assert properties["key_leaks"] == {"type": "integer", "deprecated": True}
