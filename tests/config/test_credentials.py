"""Which key is used, and that it goes nowhere else. No keyring is needed for any of this."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.config.credentials import (
    Found,
    ending,
    find_key,
    forget_keys,
    run,
    source_of_key,
    store_key,
)
from rebyte_cli.config.settings import Config, Settings, resolve
from rebyte_cli.errors import KeyProblem, MissingKey
from tests.keyring_daemon import eventually

CLOUD, STAGING = "https://api.rebyte.ai", "https://staging.example"
DOCUMENT = {
    "profiles": {
        "default": {},
        "work": {},
        "staging": {"base_url": f"{STAGING}/v1"},
        "command": {"key_command": [sys.executable, "-c", "print('rbk_command\\nrest')"]},
    }
}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"REBYTE_CONFIG_DIR": str(tmp_path / "config"), "HOME": str(tmp_path)}


def settle(env: dict[str, str], profile: str | None = None, document: Any = None) -> Settings:
    return resolve({"profile": profile}, env, Config(document or DOCUMENT, path=Path("c.toml")))


def find(env: dict[str, str], profile: str | None = None, document: Any = None) -> Found:
    return find_key(settle(env, profile, document), env, interactive=False)


def store(env: dict[str, str], profile: str | None, key: str) -> None:
    settings = settle(env, profile)
    store_key(settings, key, env, interactive=False, insecure=True)


def test_the_variable_wins_when_no_profile_is_named(env: dict[str, str]) -> None:
    store(env, None, "rbk_stored")
    assert find(env) == ("rbk_stored", "file credentials.json")
    env["REBYTE_API_KEY"] = "rbk_variable\r\n"
    assert find(env) == ("rbk_variable", "REBYTE_API_KEY")
    assert find(env, document={**DOCUMENT, "default_profile": "command"}).key == "rbk_variable"
    env["REBYTE_API_KEY"] = " "
    assert find(env).key == "rbk_stored"


def test_a_named_profile_uses_its_own_key_and_not_the_variable(env: dict[str, str]) -> None:
    env["REBYTE_API_KEY"] = "rbk_variable"
    store(env, "work", "rbk_work")
    assert find(env, "work") == ("rbk_work", "file credentials.json")
    assert find(env, "command") == ("rbk_command", "key_command of profile command")
    env["REBYTE_PROFILE"] = "work"
    assert find(env).key == "rbk_work"


def test_the_variable_goes_to_a_named_profile_of_its_own_service_only(env: dict[str, str]) -> None:
    env["REBYTE_API_KEY"] = "rbk_variable"
    assert find(env, "work") == ("rbk_variable", "REBYTE_API_KEY")
    with pytest.raises(MissingKey) as problem:
        find(env, "staging")
    assert f"export REBYTE_API_URL={STAGING}/v1" in str(problem.value.hint)
    env["REBYTE_API_URL"] = f"{STAGING}/other"
    assert find(env, "staging").key == "rbk_variable"
    with pytest.raises(MissingKey):
        find(env, "work")


def test_the_variable_is_for_the_default_profiles_service(env: dict[str, str]) -> None:
    env["REBYTE_API_KEY"] = "rbk_variable"
    document = {**DOCUMENT, "default_profile": "staging"}
    assert find(env, "staging", document).key == "rbk_variable"
    with pytest.raises(MissingKey):
        find(env, "work", document)


def test_local_takes_no_variable(env: dict[str, str]) -> None:
    env["REBYTE_API_KEY"] = "rbk_variable"
    assert find(env, "local") == ("rbk_local", "built in")


def test_case_11_a_key_stays_with_the_origin_it_was_stored_for(env: dict[str, str]) -> None:
    store(env, "staging", "rbk_staging")
    for moved in ("https://elsewhere.example/v1", f"{STAGING}:8443/v1", f"{CLOUD}/v1"):
        document = {"profiles": {"staging": {"base_url": moved}}}
        with pytest.raises(MissingKey) as problem:
            find(env, "staging", document)
        assert f"the key stored for {STAGING} is not sent to" in str(problem.value.hint)
    document = {"profiles": {"staging": {"base_url": f"{STAGING}:443/another/path"}}}
    assert find(env, "staging", document).key == "rbk_staging"


def test_a_key_command_is_for_its_profiles_own_service(env: dict[str, str]) -> None:
    document = {**DOCUMENT, "default_profile": "command"}
    assert find(env, document=document).key == "rbk_command"
    env["REBYTE_API_URL"] = f"{STAGING}/v1"
    with pytest.raises(MissingKey):
        find(env, document=document)


def test_without_any_key_each_way_out_is_a_line(env: dict[str, str]) -> None:
    with pytest.raises(MissingKey) as problem:
        find(env)
    assert problem.value.message == f"no API key for {CLOUD} (profile default)"
    assert str(problem.value.hint).splitlines() == [
        "get one at https://app.rebyte.ai/settings/api-keys",
        "export REBYTE_API_KEY=…",
        "rebyte auth login",
        "or try `rebyte -P local …` with no account",
    ]
    with pytest.raises(MissingKey) as problem:
        find(env, "work")
    assert "rebyte -P work auth login" in str(problem.value.hint)
    assert not os.path.exists(env["REBYTE_CONFIG_DIR"])


@pytest.mark.parametrize("key", ["rbk_one\nrbk_two", "rbk_ünique", "rbk_with space"])
def test_case_13_a_key_that_cannot_be_sent_is_refused_and_not_repeated(
    env: dict[str, str], key: str
) -> None:
    env["REBYTE_API_KEY"] = key
    with pytest.raises(KeyProblem) as problem:
        find(env)
    shown = problem.value.message + str(problem.value.hint)
    assert problem.value.message.startswith("REBYTE_API_KEY: ")
    assert "rbk_one" not in shown
    assert "nique" not in shown
    assert "with" not in problem.value.message.replace("without", "")


def test_the_insecure_file_is_private_and_refused_when_others_can_read_it(
    env: dict[str, str],
) -> None:
    before = os.umask(0)
    try:
        store(env, "work", "rbk_work")
    finally:
        os.umask(before)
    file = Path(env["REBYTE_CONFIG_DIR"]) / "credentials.json"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    file.chmod(0o644)
    with pytest.raises(KeyProblem) as problem:
        find(env, "work")
    assert problem.value.hint == f"chmod 600 {file}"


def test_keys_of_profiles_are_removed_one_by_one(env: dict[str, str]) -> None:
    store(env, "work", "rbk_work")
    store(env, "staging", "rbk_staging")
    assert forget_keys("work", env, interactive=False) == [CLOUD]
    assert forget_keys("work", env, interactive=False) == []
    assert source_of_key(settle(env, "staging"), env) == "file credentials.json"
    file = Path(env["REBYTE_CONFIG_DIR"]) / "credentials.json"
    assert list(json.loads(file.read_text())["keys"]) == ["staging"]


@pytest.mark.parametrize(
    "text",
    [
        "rbk_secret",
        '{"keys": {"default": {"https://api.rebyte.ai": "rbk_secret"}}}',
        '{"keys": {"default": {"https://api.rebyte.ai": {"store": "file", "key": 7}}}}',
        "[]",
        '{"keys": 1}',
        "[" * 100_000,
    ],
)
def test_a_damaged_record_is_one_line_and_not_repeated(env: dict[str, str], text: str) -> None:
    folder = Path(env["REBYTE_CONFIG_DIR"])
    folder.mkdir(mode=0o700)
    (folder / "credentials.json").write_text(text)
    with pytest.raises(KeyProblem) as problem:
        find(env)
    assert problem.value.message == f"{folder}/credentials.json is damaged"
    assert "rbk_secret" not in str(problem.value.hint)


@pytest.mark.parametrize(
    ("key", "shown"), [("rbk_0123456789abcdef", "…cdef"), ("rbk_short", "…"), ("", "…")]
)
def test_little_of_a_key_is_shown_and_nothing_of_a_short_one(key: str, shown: str) -> None:
    assert ending(key) == shown


# -- The program that prints the key: what it may do, and what is shown of it.

SECRET = "rbk_from_a_vault"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_first_line_is_the_key(tmp_path: Path) -> None:
    assert run(python(f"print('{SECRET}'); print('url: x')"), interactive=False) == SECRET


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    argv = [*python("import sys; print(sys.argv[1])"), f"$(touch {trap})"]
    assert run(argv, interactive=False) == f"$(touch {trap})"
    assert not trap.exists()


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (f"print('{SECRET}'); raise SystemExit(3)", "ended with status 3", None),
        ("raise SystemExit('locked: x')", "ended with status 1", "locked: x"),
        (f"raise SystemExit('not {SECRET}')", "ended with status 1", "not rbk_…"),
        ("print()", "printed no key on its first line", None),
        ("pass", "printed no key on its first line", None),
        ("while True: print('x' * 9999)", "ended with status -9", None),
    ],
)
def test_a_failure_is_one_line_without_what_it_printed(
    code: str, message: str, hint: str | None
) -> None:
    with pytest.raises(KeyProblem) as problem:
        run(python(code), interactive=False)
    assert problem.value.message == f"key_command: {sys.executable} {message}"
    assert problem.value.hint == hint


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(KeyProblem, match="key_command: cannot run no-such-program: No such file"):
        run(["no-such-program"], interactive=False)


def test_a_program_that_hangs_is_given_up_and_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    argv = ["sh", "-c", f"echo $$ > '{pid}'; exec sleep 60"]
    began = time.monotonic()
    with pytest.raises(KeyProblem, match=r"key_command: sh did not end within 1 s"):
        run(argv, interactive=False, seconds=1)
    assert time.monotonic() - began < 10
    eventually(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists(), what="its end")


def test_without_a_terminal_it_cannot_eat_our_stdin() -> None:
    assert run(python("import sys; print(repr(sys.stdin.read()))"), interactive=False) == "''"
