"""Which key is used, and that it goes nowhere else. No keyring is needed for any of this."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.config.credentials import FoundKey, KeyDoor, ending
from rebyte_cli.config.settings import Config, Settings, resolve
from rebyte_cli.errors import KeyProblem, MissingKey

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


def find(env: dict[str, str], profile: str | None = None, document: Any = None) -> FoundKey:
    return KeyDoor(env).find(settle(env, profile, document))


def store(env: dict[str, str], profile: str | None, key: str) -> None:
    settings = settle(env, profile)
    KeyDoor(env).store(settings, key, insecure=True)


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


def test_the_variable_goes_to_named_profiles_of_its_own_service_only(env: dict[str, str]) -> None:
    env["REBYTE_API_KEY"] = "rbk_variable"
    assert find(env, "work") == ("rbk_variable", "REBYTE_API_KEY")
    with pytest.raises(MissingKey) as problem:
        find(env, "staging")
    assert f"export REBYTE_API_URL={STAGING}/v1" in str(problem.value.hint)
    env["REBYTE_API_URL"] = f"{STAGING}/other"
    assert find(env, "staging").key == "rbk_variable"
    with pytest.raises(MissingKey):
        find(env, "work")


def test_case_54_the_variable_does_not_follow_the_base_url_of_a_profile(
    env: dict[str, str],
) -> None:
    store(env, "staging", "rbk_staging")
    env["REBYTE_API_KEY"] = "rbk_variable"
    document = {**DOCUMENT, "default_profile": "staging"}
    with pytest.raises(KeyProblem) as problem:
        find(env, document=document)
    assert problem.value.exit_status == 3
    assert problem.value.message == (
        f"REBYTE_API_KEY is not sent to {STAGING}, which profile staging names"
    )
    assert problem.value.hint == (
        f"export REBYTE_API_URL={STAGING}/v1  (if REBYTE_API_KEY is for it)\n"
        "rebyte profile set staging env_key=true  (if it always is)"
    )
    assert find(env, "staging", document).key == "rbk_staging"
    assert find(env, "work", document).key == "rbk_variable"
    assert find({**env, "REBYTE_API_URL": f"{STAGING}/v1"}, document=document).key == "rbk_variable"


def test_a_profile_may_take_the_variable_when_it_says_so(env: dict[str, str]) -> None:
    env["REBYTE_API_KEY"] = "rbk_variable"
    staging = {"base_url": f"{STAGING}/v1", "env_key": True}
    document = {"default_profile": "staging", "profiles": {"staging": staging}}
    assert find(env, document=document) == ("rbk_variable", "REBYTE_API_KEY")
    assert find(env, "staging", document).key == "rbk_variable"
    staging["env_key"] = False
    with pytest.raises(KeyProblem):
        find(env, document=document)


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
        "Get one at https://app.rebyte.ai/settings/api-keys, then use one of these:",
        "rebyte auth login  (stores it)",
        "export REBYTE_API_KEY=…  (for this shell)",
        "Without an account, `rebyte -P local …` runs tasks on this machine",
    ]
    with pytest.raises(MissingKey) as problem:
        find(env, "work")
    assert "rebyte -P work auth login" in str(problem.value.hint)
    with pytest.raises(MissingKey) as problem:
        find(env, "staging")
    way = f"export REBYTE_API_URL={STAGING}/v1 REBYTE_API_KEY=…"
    assert str(problem.value.hint).splitlines()[2] == f"{way}  (for this shell)"
    env.update(REBYTE_API_URL=f"{STAGING}/v1", REBYTE_API_KEY="rbk_staging")
    assert find(env, "staging").key == "rbk_staging"
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
    assert KeyDoor(env).forget("work") == [CLOUD]
    assert KeyDoor(env).forget("work") == []
    assert KeyDoor(env).source(settle(env, "staging")) == "file credentials.json"
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
    ("key", "shown"), [("rbk_0123456789abcdef", "…cdef"), ("rbk_short", None), ("", None)]
)
def test_little_of_a_key_is_shown_and_nothing_of_a_short_one(key: str, shown: str | None) -> None:
    assert ending(key) == shown


@pytest.mark.parametrize(
    "url", ["http://staging.example/v1", "staging.example", "https://u:p@staging.example/v1", "\n"]
)
def test_a_variable_beside_a_url_that_is_refused_is_not_used(env: dict[str, str], url: str) -> None:
    """It names the host of the profile, but nothing may be believed of such a URL."""
    env |= {"REBYTE_API_KEY": "rbk_variable", "REBYTE_API_URL": url}
    with pytest.raises(MissingKey):
        KeyDoor(env).find(settle(env, "staging"))
    env["REBYTE_API_URL"] = "https://staging.example/v1"
    assert KeyDoor(env).find(settle(env, "staging")).key == "rbk_variable"


def test_the_place_of_a_stored_key_is_reported(env: dict[str, str]) -> None:
    where = KeyDoor(env).store(settle(env, "staging"), "rbk_secret", insecure=True)
    assert where == str(Path(env["REBYTE_CONFIG_DIR"]) / "credentials.json")
    assert "rbk_secret" in Path(where).read_text()


def test_four_of_sixteen_characters_are_shown() -> None:
    assert ending("rbk_123456789abc") == "…9abc"
    assert ending("rbk_123456789ab") is None
