"""`rebyte schema --config` accepts and refuses what reading the file does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rebyte_cli.config.fields import FIELDS
from rebyte_cli.config.json_schema import config_schema
from rebyte_cli.config.settings import Config, resolve
from rebyte_cli.config.toml import schema_line
from rebyte_cli.errors import RebyteError
from rebyte_cli.local.agents.config import ConfigError, load
from rebyte_cli.system import repository_file
from rebyte_cli.system.permissions import SCHEMA_NAME
from tests.conftest import Done
from tests.node_tools import install as node_tools

VALUES: tuple[Any, ...] = (
    *("", " ", "x", "json", "https://api.example/v1", "ftp://x", "1h", 0, 1, 2.5, -1, 86401),
    *(True, False, [], [""], ["pass", "show"], [1], {}),
)


@pytest.fixture
def rebyte(inside: Callable[..., Done]) -> Callable[..., Done]:
    """The command, without a process for each call."""
    return inside


def fits(document: Any) -> bool:
    return Draft202012Validator(config_schema()).is_valid(document)


def reads(document: Any) -> bool:
    """Whether the client reads every setting of the profile `work`."""
    try:
        config = Config(document, path=Path("config.toml"))
        if config.unknown is not None:
            raise config.unknown
        for name in FIELDS:
            config.value("work", name)
        resolve({"profile": "work"}, {}, config)
    except RebyteError:
        return False
    return True


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_fits_the_schema_when_it_can_be_used(name: str) -> None:
    for value in VALUES:
        document = {"profiles": {"work": {name: value}}}
        assert fits(document) == reads(document), value


@pytest.mark.parametrize(
    "text",
    [
        "parallel = 2",
        "parallel = 0",
        "parallel = 65",
        'limit = "90s"\nstall = 0',
        'tools = ["~/.cargo/bin", "/opt/x/bin"]\ncaches = ["~/.npm"]',
        'tools = ["bin"]',
        'caches = "~/.npm"',
        'limit = "long"',
        "stall = -1",
        'jail = "off"',
        "jail = true",
        'network = "none"\nallow = ["pypi.org", "*.example.com", "m.example:8443", "[::1]:80"]',
        'network = "all"',
        'allow = ["https://pypi.org"]',
        'allow = "pypi.org"',
        'agents.mine = { command = ["x"], model = "openai", key_env = "K", base_url_env = "U" }',
        'agents.mine = { command = ["x"], model = "openai", key_env = "a b" }',
        'agents.mine = { command = ["x"], model = "llama" }',
        'agents.mine = { command = ["x"], key_env = "K" }',
        'agents.mine = { command = ["x"], env = ["A"], read = ["/x"] }',
        'agents.mine = { command = "x" }',
        'agents.mine = { command = ["x"], env = [1] }',
        'launcher = ["srun", "--x={prompt}"]\nlauncher_stop = ["sh", "-c", "stop ${prompt} {{}}"]',
        'launcher = ["srun", \'{"a": "{workspace}"}\']\nlauncher_stop = ["x"]',
        'launcher = ["srun"]\nlauncher_stop = ["scancel", "{run}"]',
        'launcher = ["a\\n{run}"]\nlauncher_stop = ["x"]',
        'launcher = ["srun"]',
        'launcher_stop = ["scancel"]',
        "launcher = []\nlauncher_stop = []",
        'launcher = "srun"\nlauncher_stop = ["x"]',
        'launcher = ["srun", ""]\nlauncher_stop = ["x"]',
        'agents.claude = { env = ["A"] }',
        'agents."a b" = { command = ["x"] }',
        'agents.mine = { comand = ["x"] }',
        "paralel = 2",
        "agents.mine = 1",
        "agents = 1",
    ],
)
def test_what_the_local_service_reads_fits_the_schema(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[local]\n{text}\n")
    try:
        load(file)
        is_usable = True
    except ConfigError:
        is_usable = False
    assert fits(tomllib.loads(file.read_text())) == is_usable


@pytest.mark.parametrize(
    ("document", "is_known"),
    [
        ({"profiles": {"local": {"executor": "claude"}}}, True),
        ({"profiles": {"local": {"base_url": "https://api.example/v1"}}}, False),
        ({"profile": {}}, False),
        ({"profiles": {"work": {"api_key": "x"}}}, False),
    ],
)
def test_a_name_that_is_not_known_fits_no_schema(document: Any, is_known: bool) -> None:
    assert fits(document) == is_known
    assert (Config(document, path=Path("config.toml")).unknown is None) == is_known


def test_the_command_prints_it(rebyte: Callable[..., Done]) -> None:
    assert rebyte("schema", "--config").json == config_schema()
    assert rebyte("schema", "--config", "--results").status == 2
    assert rebyte("schema", "--repository").json == repository_file.schema()


@pytest.mark.slow
def test_another_checker_takes_a_file_that_the_command_wrote(
    rebyte: Callable[..., Done], home: Path
) -> None:
    """check-jsonschema, which reads TOML as editors do."""
    rebyte(
        "profile", "create", "work", "base_url=https://api.example/v1", "timeout=5", "skills=a,b"
    )
    rebyte("profile", "use", "work")
    config, schema = home / ".config/rebyte/config.toml", home / ".config/rebyte" / SCHEMA_NAME

    def check(*words: str | Path) -> int:
        command = [sys.executable, "-m", "check_jsonschema", *map(str, words)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert check("--check-metaschema", schema) == 0
    assert check("--schemafile", schema, config) == 0
    config.write_text(config.read_text().replace("timeout = 5", "timeout = -5"))
    assert check("--schemafile", schema, config) == 1


@pytest.mark.slow
def test_an_editor_finds_the_schema(rebyte: Callable[..., Done], home: Path) -> None:
    """Taplo is what Even Better TOML and other editors run; nothing tells it of a schema here."""
    taplo = node_tools.need("taplo")
    config = home / ".config/rebyte/config.toml"
    rebyte("profile", "create", "work", "timeout=5")
    (config.parent / "bad.toml").write_text(config.read_text().replace("= 5", "= -5"))
    lint = [*taplo, "lint", "--colors=never", "bad.toml", "config.toml"]
    done = subprocess.run(lint, cwd=config.parent, capture_output=True, text=True, check=False)
    assert "-5 is less than" in done.stderr
    assert "invalid file" in done.stderr
    assert re.findall(r"path=.*/(\w+\.toml)", done.stderr) == ["bad.toml"]


def test_a_written_file_names_its_schema(rebyte: Callable[..., Done], home: Path) -> None:
    """At every change, without a word about a lost comment, and readable by its owner alone."""
    config, schema = home / ".config/rebyte/config.toml", home / ".config/rebyte" / SCHEMA_NAME
    for name in ("work", "play"):
        done = rebyte("profile", "create", name)
        assert (done.status, done.err.count("omments")) == (0, 0)
        assert config.read_text().count("#:schema") == 1
        assert config.read_text().startswith(f"#:schema ./{SCHEMA_NAME}\n\n[profiles")
        assert json.loads(schema.read_text()) == config_schema()
        assert {path.stat().st_mode & 0o777 for path in (config, schema)} == {0o600}
        schema.write_text("{}")  # of another version


def test_another_schema_keeps_its_place(rebyte: Callable[..., Done], home: Path) -> None:
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True)
    theirs = "#:schema https://schemas.example/rebyte.json"
    config.write_text(f"\n# mine\n{theirs}\nhistory = true\n")
    done = rebyte("profile", "create", "work")
    assert "Comments in" in done.err
    assert config.read_text() == f"{theirs}\n\nhistory = true\n\n[profiles.work]\n"
    assert not (config.parent / SCHEMA_NAME).exists()


@pytest.mark.parametrize(
    "text", ["", "x = 1\n#:schema ./x.json\n", "#:schema\n", "# see #:schema ./x.json\n"]
)
def test_a_schema_is_named_at_the_top_or_not_at_all(text: str) -> None:
    tomllib.loads(text)
    assert schema_line(text) == ""


@pytest.mark.parametrize("end", ["", "\n", " \r\n", "\t\n[profiles]\n"])
def test_the_name_of_a_schema_ends_before_white_space(end: str) -> None:
    assert schema_line(f"# mine\n\n#:schema ./x.json{end}") == "#:schema ./x.json"
