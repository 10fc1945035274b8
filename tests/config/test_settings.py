"""How a setting gets its value, and what a bad file says."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import __version__
from rebyte_cli.config.fields import FIELDS, LOCAL_FIELDS
from rebyte_cli.config.settings import Config, Setting, Settings, resolve
from rebyte_cli.errors import BadUsage, NotFound

NOWHERE = Path("/nowhere/config.toml")
FILE: dict[str, Any] = {
    "profiles": {
        "default": {"output": "csv"},
        "work": {
            "base_url": "https://work.example/v1/",
            "executor": "opencode",
            "skills": ["pdf", "deep-research"],
            "timeout": 90,
            "key_command": ["pass", "show", "x"],
        },
        "plain": {},
    },
}
URL = {"REBYTE_API_URL": "http://127.0.0.1:8787/v1"}


def settle(options: Any = None, environment: Any = None, document: Any = None) -> Settings:
    config = Config(FILE if document is None else document, path=NOWHERE)
    return resolve(options or {}, environment or {}, config)


@pytest.mark.parametrize(
    ("options", "environment", "profile", "output"),
    [
        ({}, {}, "default", Setting("csv", "profile default")),
        ({}, {"REBYTE_OUTPUT": "tsv"}, "default", Setting("tsv", "REBYTE_OUTPUT")),
        ({"output": "id"}, {"REBYTE_OUTPUT": "tsv"}, "default", Setting("id", "option -o")),
        ({}, {"REBYTE_PROFILE": "work"}, "work", Setting("auto", "default")),
        ({"profile": "plain"}, {"REBYTE_PROFILE": "work"}, "plain", Setting("auto", "default")),
        # A profile that was named beats two variables, and this is not one of them.
        ({"profile": "work"}, {"REBYTE_OUTPUT": "json"}, "work", Setting("json", "REBYTE_OUTPUT")),
        (
            {},
            {"REBYTE_OUTPUT": "", "REBYTE_PROFILE": ""},
            "default",
            Setting("csv", "profile default"),
        ),
    ],
)
def test_option_then_environment_then_profile_then_default(
    options: Any, environment: Any, profile: str, output: Setting
) -> None:
    found = settle(options, environment)
    assert (found.profile, found.output) == (profile, output)


@pytest.mark.parametrize(
    ("options", "environment", "url", "source"),
    [
        ({}, {}, "https://api.rebyte.ai/v1", "default"),
        ({}, URL, "http://127.0.0.1:8787/v1", "REBYTE_API_URL"),
        ({"profile": "work"}, URL, "https://work.example/v1", "profile work"),
        ({}, {**URL, "REBYTE_PROFILE": "work"}, "https://work.example/v1", "profile work"),
        # Named, without its own base URL: still not the variable's.
        ({"profile": "plain"}, URL, "https://api.rebyte.ai/v1", "default"),
        ({"profile": "local"}, URL, None, "built in"),
        # A variable that is not looked at cannot be wrong.
        (
            {"profile": "work"},
            {"REBYTE_API_URL": "nonsense"},
            "https://work.example/v1",
            "profile work",
        ),
    ],
)
def test_a_named_profile_brings_its_own_base_url(
    options: Any, environment: Any, url: str | None, source: str
) -> None:
    assert settle(options, environment).base_url == Setting(url, source)


def test_the_default_profile_gives_way_to_the_variable() -> None:
    document = {**FILE, "default_profile": "work"}
    assert settle(document=document).base_url.value == "https://work.example/v1"
    assert settle(document=document).profile_source == "config.toml"
    assert settle({}, URL, document).base_url.source == "REBYTE_API_URL"


def test_local_takes_no_variable_even_as_the_default() -> None:
    found = settle({}, URL, {"default_profile": "local"})
    assert (found.is_local, found.origin, found.base_url.value) == (True, "local", None)


def test_everything_of_a_profile_arrives_usable() -> None:
    found = settle({"profile": "work"})
    assert found.skills == Setting(["pdf", "deep-research"], "profile work")
    assert found.timeout == Setting(90.0, "profile work")
    assert found.key_command.value == ["pass", "show", "x"]
    assert found.history == Setting(True, "default")
    assert found.origin == found.own_origin == "https://work.example"


def test_history_can_be_switched_off_for_all_profiles_and_on_for_one() -> None:
    document = {"history": False, "profiles": {"loud": {"history": True}}}
    assert settle(document=document).history == Setting(False, "config.toml")
    assert settle({"profile": "loud"}, {}, document).history == Setting(True, "profile loud")


@pytest.mark.parametrize("text", ["soon", "0", "-5", "nan", "inf"])
def test_a_bad_deadline_in_the_environment_is_named(text: str) -> None:
    with pytest.raises(BadUsage, match="REBYTE_REQUEST_TIMEOUT must be a number of seconds"):
        settle({}, {"REBYTE_REQUEST_TIMEOUT": text})


def test_a_bad_base_url_in_the_environment_is_named() -> None:
    with pytest.raises(BadUsage, match=r"^REBYTE_API_URL: .* must be https"):
        settle({}, {"REBYTE_API_URL": "http://example.com/v1"})


@pytest.mark.parametrize("price", [10**400, "inf", "nan", "-1", "true", '"1"'])
def test_a_price_that_is_none_is_named(tmp_path: Path, price: object) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[prices.lite]\ninput = {price}\noutput = 1\n")
    with pytest.raises(BadUsage, match=r"line 2: prices\.lite\.input: must be a number of dollars"):
        Config.load(path).prices()


def test_an_unknown_profile_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFound) as problem:
        settle({"profile": "wrok"})
    assert problem.value.message == "no such profile: wrok"
    assert (
        problem.value.hint == "Did you mean 'work'?\nThe profiles are default, plain, work, local"
    )


@pytest.mark.parametrize(
    ("source", "environment", "document"),
    [
        ("REBYTE_PROFILE", {"REBYTE_PROFILE": "wrok"}, FILE),
        ("/nowhere/config.toml: default_profile", {}, {**FILE, "default_profile": "wrok"}),
    ],
)
def test_an_unknown_profile_that_no_option_names_comes_with_its_source(
    source: str, environment: Any, document: Any
) -> None:
    with pytest.raises(NotFound) as problem:
        settle({}, environment, document)
    assert problem.value.message == f"{source}: no such profile: wrok"
    assert str(problem.value.hint).startswith("Did you mean 'work'?\n")


# What `config.toml` says, where, and what the hint begins with
UNKNOWN = [
    (
        '[profiles.work]\nbase_ulr = "https://work.example/v1"\n',
        ", line 2: profiles.work.base_ulr: no such setting",
        "Did you mean 'base_url'?\n`rebyte profile unset work base_ulr` removes it",
    ),
    (
        '[proflies.work]\nbase_url = "https://work.example/v1"\n',
        ", line 1: proflies: no such table",
        "Did you mean 'profiles' or 'prices'?\n"
        f"This is rebyte {__version__}; a newer version may know it.",
    ),
    ("\n[local]\nparalel = 2\n", ", line 3: local.paralel: no such", "Did you mean 'parallel'?"),
    ("histroy = false\n", ", line 1: histroy: no such setting", "Did you mean 'history'?"),
    (
        "[local]\njail = 'on'\n[local.agents.mine]\ncomand = ['x']\n",
        ", line 4: local.agents.mine.comand: no such setting",
        "Did you mean 'command'?",
    ),
    (
        '[places."MODEL"]\ninput = 1.25\n',
        ", line 1: places: no such table",
        f"Did you mean 'prices'?\nThis is rebyte {__version__}; a newer version may know it. "
        "Known here: default_profile, history, profiles, local, prices",
    ),
    (
        '[profiles.box]\nscp = "user@host"\n',
        ", line 2: profiles.box.scp: no such setting",
        f"This is rebyte {__version__}; a newer version may know it. Known here: base_url, exec",
    ),
    ("[[hooks]]\nx = 1\n", ", line 1: hooks: no such setting", "This is rebyte"),
    (
        '[profiles]\nwork = { base_ulr = "https://work.example/v1" }\n',
        ", line 2: profiles.work.base_ulr: no such setting",
        "Did you mean 'base_url'?",
    ),
    (
        'profiles.work.base_ulr = "https://work.example/v1"\n',
        ", line 1: profiles.work.base_ulr: no such setting",
        "Did you mean 'base_url'?",
    ),
    (
        '[profiles."a b"]\nmodle = "m"\n',
        ", line 2: profiles.a b.modle: no such setting",
        "Did you mean 'model'?\n`rebyte profile unset 'a b' modle` removes it",
    ),
    (
        "[profiles.local]\nbase_url = 'https://work.example/v1'\n",
        ", line 2: profiles.local.base_url: the profile local is built in",
        "It takes only executor, history, model, output, skills, timeout\n",
    ),
    (
        "[profiles.work]\napi_key = 'x'\n",
        ", line 2: profiles.work.api_key: config.toml cannot contain API keys",
        "`rebyte auth login` stores one",
    ),
    (
        "token = 'x'\n",
        ", line 1: token: config.toml cannot contain API keys",
        "`rebyte auth login`",
    ),
    (
        "[profiles.work]\nmodle = 'x'\n[profiles.play]\nskils = []\n",
        ", line 2: profiles.work.modle: no such setting; line 4: profiles.play.skils: no such",
        "Did you mean 'model'?\n`rebyte profile unset work modle` removes it\n"
        "Did you mean 'skills'?\n`rebyte profile unset play skils` removes it",
    ),
]


@pytest.mark.parametrize(("text", "says", "hint"), UNKNOWN)
def test_a_name_that_means_nothing_is_an_error_with_its_line(
    tmp_path: Path, text: str, says: str, hint: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    problem = Config.load(path).unknown
    assert problem is not None
    assert problem.message.startswith(f"{path}{says}")
    assert str(problem.hint).startswith(hint)
    assert "\n" not in problem.message


def test_each_name_of_today_is_known() -> None:
    document = {
        "default_profile": "work",
        "history": True,
        "profiles": {"work": dict.fromkeys(FIELDS), "local": dict.fromkeys(LOCAL_FIELDS)},
        "local": {
            **dict.fromkeys(("parallel", "limit", "stall", "keep_free", "jail", "tools", "caches")),
            "agents": {"mine": dict.fromkeys(("command", "env", "read"))},
        },
    }
    assert Config(document, path=NOWHERE).unknown is None


SECRET = "rbk_0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = 1\nb = =\n", "config.toml, line 2, column 5: not valid TOML: Invalid value"),
        ('x = "abc\n', "line 1, column 9: not valid TOML: Illegal character …"),
        (f"[profiles.work]\nkey = {SECRET}\n", "line 2, column 7: not valid TOML"),
        (f'[profiles.work]\nx = "{SECRET}', "config.toml: not valid TOML: it ends too early"),
        (f"{SECRET} = 1\n{SECRET} = 2\n", "not valid TOML"),
        (f"x = {{ {SECRET} = 1, {SECRET} = 2 }}\n", "line 1, column"),
        (f'x = {{ "a\'{SECRET}" = 1, "a\'{SECRET}" = 2 }}\n', "line 1, column"),
        (f'x = {{ "\'\\"{SECRET}" = 1, "\'\\"{SECRET}" = 2 }}\n', "line 1, column"),
        (f'x = {{ "{SECRET} (at " = 1, "{SECRET} (at " = 2 }}\n', "line 1, column"),
        ("[profiles.work]\n\noutput = 5\n", "line 3: profiles.work.output: must be one of auto"),
        (f'[profiles.work]\noutput = "{SECRET}"\n', "line 2: profiles.work.output: must be one of"),
        ('[profiles.work]\nbase_url = "ftp://x"\n', "line 2: profiles.work.base_url: "),
        ('[profiles.work]\nskills = "pdf"\n', "line 2: profiles.work.skills: must be a list"),
        ("[profiles.work]\nkey_command = []\n", "key_command: must name a program"),
        ("[profiles.work]\ntimeout = true\n", "timeout: must be a number of seconds"),
        ('[profiles.work]\nhistory = "no"\n', "history: must be true or false"),
        ("profiles = 3\n", "line 1: profiles: must be a table"),
        ("[profiles]\nwork = 3\n", "line 2: profiles.work: must be a table"),
        ("default_profile = 3\n", "line 1: default_profile: must be text"),
        ("x = " + "[" * 5000, "config.toml: not valid TOML: nested too deeply"),
        ("x = " + "9" * 5000, "config.toml: not valid TOML: a number that cannot be read"),
        (
            'default_profile = """\n[profiles.work]\noutput = 1\n"""\n'
            "[profiles.work]\noutput = 1\n",
            "line 6: profiles.work.output",
        ),
        ("[profiles.play]\noutput = 1\n[profiles.work]\noutput = 1\n", "line 4: profiles.work.out"),
    ],
)
def test_a_bad_file_is_named_with_the_place_and_not_repeated(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    gc.collect()  # what earlier tests left would end in the depth of a recursion, and say so
    with pytest.raises(BadUsage) as problem:
        resolve({"profile": "work"}, {}, Config.load(path))
    assert problem.value.message.startswith(str(path))
    assert says in problem.value.message
    assert SECRET not in problem.value.message + str(problem.value.hint)
    assert "\n" not in problem.value.message


def test_bytes_that_are_not_text_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b'a = 1\nb = "\xff"\n')
    with pytest.raises(BadUsage, match=r"config\.toml, line 2: not UTF-8 text$"):
        Config.load(path)


def test_a_folder_in_place_of_the_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadUsage) as problem:
        Config.load(tmp_path)
    assert problem.value.message == f"cannot read {tmp_path}: Is a directory"
