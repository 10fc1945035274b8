"""`rebyte doctor`: what would be used here, and what to do where it does not work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.tasks import editor
from tests.conftest import COMMAND, Done
from tests.servers import KEY, RawServer, error_reply, json_reply
from tests.terminals import Session

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
NAMES = [
    *("version", "programs", "config", "profile", "variables", "key", "api", "proxy", "tls"),
    *("keyring", "state", "editor", "git", "repository", "agents"),
]
PAGE = {"data": [], "total": 0, "limit": 1, "offset": 0}


def findings(done: Done) -> dict[str, dict[str, Any]]:
    found = {row["name"]: row for row in done.json["data"]}
    assert list(found) == NAMES
    assert {row["status"] for row in found.values()} <= {"ok", "warning", "problem"}
    return found


@pytest.fixture
def well(home: Path, service: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where everything works: the home folder."""
    del service
    monkeypatch.setenv("EDITOR", "cat")
    return home


def test_all_checks_pass(inside: Run, well: Path) -> None:
    """Nothing on disk is changed, and the key is not shown."""
    before = {path: path.stat().st_mtime_ns for path in well.rglob("*")}
    done = inside("doctor")
    found = findings(done)
    assert done.status == 0, done.err
    assert done.err.startswith("No problems found, ")
    assert found["key"]["message"] == "REBYTE_API_KEY"
    assert "and accepts the key" in found["api"]["message"]
    assert found["keyring"]["status"] == "ok"  # usable, or not needed
    assert found["editor"]["message"] == "cat (EDITOR)"
    read = ["REBYTE_API_KEY", "REBYTE_API_URL", "REBYTE_LOCAL_AGENTS", "REBYTE_PAGER"]
    assert found["variables"]["details"]["read"] == read
    assert os.environ["REBYTE_API_KEY"] not in done.out + done.err
    assert {path: path.stat().st_mtime_ns for path in well.rglob("*")} == before


def test_the_local_service_needs_nothing(inside: Run, home: Path) -> None:
    done = inside("-P", "local", "doctor")
    found = findings(done)
    assert done.status == 0
    assert found["key"]["message"] == "built in"
    assert found["api"]["status"] == "ok"
    assert list(home.iterdir()) == []


def test_a_key_that_is_rejected_is_a_problem(inside: Run, aim: Aim) -> None:
    with RawServer(error_reply(401, "invalid_api_key", "Invalid API key")) as server:
        aim(server)
        done = inside("doctor")
    found = findings(done)
    assert done.status == 1
    assert "1 problem found" in done.err
    assert found["key"]["status"] == "ok"
    assert found["api"]["status"] == "problem"
    assert KEY not in done.out + done.err


def test_no_key_is_a_problem_and_the_api_is_reached_all_the_same(
    inside: Run, aim: Aim, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(error_reply(401, "invalid_api_key", "Invalid API key")) as server:
        aim(server)
        monkeypatch.delenv("REBYTE_API_KEY")
        found = findings(inside("doctor"))
    assert found["key"]["status"] == "problem"
    assert "rebyte auth login" in found["key"]["hint"]
    assert found["api"]["message"].endswith("answers; no key to try")


@pytest.mark.parametrize("status", [0, 1])
def test_a_key_command_runs_once(
    inside: Run, aim: Aim, home: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """It may ask its user to unlock something."""
    ran = home / "ran"
    with RawServer(lambda _: json_reply(PAGE)) as server:
        base_url = aim(server).base_url
        monkeypatch.delenv("REBYTE_API_KEY")
        monkeypatch.delenv("REBYTE_API_URL")
        command = f"echo x >> {ran}; echo {KEY}; exit {status}"
        made = inside(
            "profile", "create", "work", f"base_url={base_url}", f"key_command=sh -c '{command}'"
        )
        assert made.status == 0, made.err
        found = findings(inside("-P", "work", "doctor"))
    assert ran.read_text() == "x\n"
    assert found["key"]["status"] == ("problem" if status else "ok")


def test_a_configuration_that_cannot_be_read(inside: Run, home: Path) -> None:
    """The rest is reported, in the format of the stream."""
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[profiles\n")
    done = inside("doctor")
    found = findings(done)
    assert done.status == 1
    assert "line 1" in found["config"]["message"]
    assert found["profile"]["status"] == "warning"
    assert found["editor"]["message"]
    assert inside("doctor", "-o", "tsv").out.startswith("name\tstatus\t")


def test_the_variable_of_the_format_holds_without_a_configuration(inside: Run) -> None:
    forms = {"table": "✓ version", "jsonl": '{"name"', "auto": "{\n", "xml": "{\n"}
    for form, start in forms.items():
        done = inside("doctor", env={"REBYTE_OUTPUT": form, "REBYTE_PROFILE": "nope"})
        assert done.status == 1
        assert done.out.startswith(start), form


def test_names_in_the_configuration_that_mean_nothing(inside: Run, home: Path) -> None:
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[profiles.work]\nbase_ulr = "https://work.example/v1"\n')
    done = inside("doctor")
    found = findings(done)
    assert done.status == 1
    assert found["config"]["status"] == "problem"
    assert (
        found["config"]["message"] == f"{config}, line 2: profiles.work.base_ulr: no such setting"
    )
    assert found["config"]["hint"].startswith("Did you mean 'base_url'?\n")
    assert found["profile"]["status"] == "warning"


def test_no_home_and_no_programs(inside: Run) -> None:
    empty = {"HOME": "nowhere", "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": "", "PATH": "/nowhere"}
    done = inside("doctor", env={**empty, "REBYTE_API_URL": "http://127.0.0.1:1/v1"})
    found = findings(done)
    assert done.status == 1
    for name in ("config", "state"):
        assert found[name]["message"] == "cannot find your home folder"
    assert found["editor"]["status"] == found["git"]["status"] == "warning"


def test_a_keyring_that_hangs(rebyte: Run, home: Path) -> None:
    """In a new process, because the library caches the backend."""
    (home / "slowring.py").write_text("import time; time.sleep(600)")
    variables = {"PYTHONPATH": str(home), "PYTHON_KEYRING_BACKEND": "slowring.Keyring"}
    found = findings(rebyte("doctor", env={**variables, "REBYTE_API_URL": "http://127.0.0.1:1/v1"}))
    assert found["keyring"]["status"] == "warning"
    assert "did not answer within" in found["keyring"]["message"]


def test_a_keyring_that_is_not_needed(rebyte: Run, home: Path) -> None:
    variables = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    variables |= {"REBYTE_API_URL": "http://127.0.0.1:1/v1", "REBYTE_API_KEY": "rbk_x"}
    found = findings(rebyte("doctor", env=variables))
    assert found["keyring"]["status"] == "ok"
    words = "none needed, the key comes from REBYTE_API_KEY: "
    assert found["keyring"]["message"].startswith(words)


def test_variables_of_other_tools(inside: Run, well: Path) -> None:
    done = inside("doctor", env={"REBYTE_BASE_URL": "x", "REBYTE_API_KYE": "rbk_0123456789abcdef"})
    found = findings(done)["variables"]
    assert found["status"] == "warning"
    assert found["message"] == "not read by this command: REBYTE_API_KYE, REBYTE_BASE_URL"
    first, second = found["hint"].splitlines()
    assert first.startswith("REBYTE_API_KYE: Did you mean 'REBYTE_API_KEY'")
    assert second == "REBYTE_BASE_URL is for other tools: use REBYTE_API_URL"
    assert "0123456789abcdef" not in done.out


def test_another_program_of_that_name(inside: Run, well: Path) -> None:
    folders = [well / name for name in ("first", "second")]
    for folder, text in zip(folders, ("#!/usr/bin/env node\n", "import rebyte_cli\n"), strict=True):
        folder.mkdir()
        (folder / "rebyte").write_text(text)
        (folder / "rebyte").chmod(0o755)
    both = [f"{folders[0]}:{folders[1]}", f"{folders[1]}:{folders[0]}"]
    found = [findings(inside("doctor", env={"PATH": path}))["programs"] for path in both]
    assert [one["status"] for one in found] == ["warning", "ok"]
    assert found[0]["message"] == f"`rebyte` starts another program: {folders[0]}/rebyte"
    assert found[1]["message"] == f"{folders[1]}/rebyte, before {folders[0]}/rebyte"


def test_the_proxy_without_its_password(inside: Run, home: Path) -> None:
    variables = {"https_proxy": "http://user:hidden@127.0.0.1:1", "NO_PROXY": ""}
    done = inside("doctor", env=variables)
    found = findings(done)
    assert found["proxy"]["message"] == "http://127.0.0.1:1 (HTTPS_PROXY set)"
    assert found["api"]["status"] == "problem"
    assert "hidden" not in done.out


def test_certificates_that_cannot_be_read(inside: Run, well: Path) -> None:
    (well / "ca.pem").write_text("not a certificate")
    done = inside("doctor", env={"REQUESTS_CA_BUNDLE": str(well / "ca.pem")})
    found = findings(done)["tls"]
    assert (done.status, found["status"]) == (1, "problem")
    assert "holds no certificate" in found["message"]


def test_a_history_that_is_damaged(inside: Run, well: Path) -> None:
    path = well / ".local/state/rebyte/history.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database" * 100)
    found = findings(inside("doctor"))["state"]
    assert found["status"] == "problem"
    assert str(path) in found["message"]


def test_an_editor_that_is_missing(inside: Run, well: Path) -> None:
    found = findings(inside("doctor", env={"VISUAL": "nosuch --wait"}))["editor"]
    assert found["status"] == "warning"
    assert found["message"] == "VISUAL=nosuch --wait: no such program"


@pytest.mark.parametrize("installed", [["vim", "nano"], ["editor", "nano"], ["vi", "vim"]])
def test_the_editor_is_the_one_that_create_opens(
    installed: list[str], inside: Run, well: Path
) -> None:
    folder = well / "bin"
    folder.mkdir()
    for name in installed:
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    environment = {"EDITOR": "", "PATH": str(folder)}
    found = findings(inside("doctor", env=environment))["editor"]
    assert found["details"] == {"command": editor.find(environment)}


def test_agents_are_named_with_their_sandbox(inside: Run, well: Path) -> None:
    """One that is installed and does not start is a warning that says why."""
    program = well / "bin" / "codex"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    found = findings(inside("doctor", env={"PATH": path}))["agents"]
    assert found["status"] == "warning"
    assert "codex" in found["message"]
    assert "codex --version" in found["hint"]
    row = next(row for row in found["details"]["agents"] if row["name"] == "codex")
    assert row["program"] == str(program)


def test_no_program_is_taken_from_the_folder_here(rebyte: Run, well: Path) -> None:
    """It may be a stranger's."""
    here, installed = well / "here", well / "bin"
    for folder in (here, installed):
        folder.mkdir()
    for name in ("bwrap", "claude", "codex", "cat", "git"):
        (here / name).write_text(f"#!/bin/sh\necho {name} >> '{well}/ran'\n")
        (here / name).chmod(0o755)
    (installed / "codex").write_text("#!/bin/sh\necho 1.0\n")
    (installed / "codex").chmod(0o755)
    path = os.pathsep.join(["", ".", "../here", str(installed), os.environ["PATH"]])
    found = findings(rebyte("doctor", env={"PATH": path}, cwd=here))
    assert found["git"]["message"].startswith("git version")
    rows = {row["name"]: row["program"] for row in found["agents"]["details"]["agents"]}
    assert (rows["claude"], rows["codex"]) == (None, str(installed / "codex"))
    assert not (well / "ran").exists(), (well / "ran").read_text()


@pytest.mark.parametrize("path", ["", ":."])
def test_a_path_of_the_folder_here_alone_is_the_systems(
    rebyte: Run, aim: Aim, home: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """An empty PATH means the folder here, to the kernel's callers."""
    (home / "cat").write_text("#!/bin/sh\necho rbk_of_a_stranger\n")
    (home / "cat").chmod(0o755)
    (home / "key").write_text(KEY)
    with RawServer(lambda _: json_reply(PAGE)) as server:
        words = [f"base_url={aim(server).base_url}", f"key_command=cat '{home / 'key'}'"]
        assert rebyte("profile", "create", "work", *words).status == 0
        monkeypatch.delenv("REBYTE_API_KEY")
        monkeypatch.delenv("REBYTE_API_URL")
        assert rebyte("-P", "work", "list", env={"PATH": path}).status == 0
    assert server.requests[-1].headers["api_key"] == KEY


def test_an_old_kernel_leaves_a_sandbox_with_gaps(
    inside: Run, well: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rebyte_cli.local.agents.sandbox import jail

    program = well / "bin" / "codex"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho codex-cli 0.1\n")
    program.chmod(0o755)
    monkeypatch.setattr(jail, "probe", lambda _cache: jail.JailCheck(True))
    monkeypatch.setattr(jail, "gaps", lambda **_: "programs can be seen")
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "CODEX_API_KEY": "secret"}
    found = findings(inside("doctor", env=environment))["agents"]
    assert found["status"] == "warning"
    regime = "in a bubblewrap sandbox with a separate network: the model, and hosts on the list"
    assert f"{regime}, keys outside" in found["message"]
    assert "in which programs can be seen" in found["message"]
    listed = inside("-P", "local", "local", "agents", "-o", "table", env=environment)
    assert "Sandbox: programs can be seen" in listed.err
    rows = inside("local", "agents", "-o", "json", env=environment).json["data"]
    assert {row["jailGaps"] for row in rows} == {"programs can be seen"}


def test_a_launcher_is_shown(inside: Run, well: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rebyte_cli.local.agents.sandbox import jail

    program = well / "bin" / "codex"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho codex-cli 0.1\n")
    program.chmod(0o755)
    monkeypatch.setattr(jail, "probe", lambda _cache: jail.JailCheck(True))
    config = well / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[local]\nlauncher = ['nice', '-n 9']\nlauncher_stop = ['true']\n")
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "CODEX_API_KEY": "secret"}
    assert (
        "started by `nice '-n 9'`"
        in findings(inside("doctor", env=environment))["agents"]["message"]
    )
    listed = inside("-P", "local", "local", "agents", "-o", "table", env=environment)
    assert "Launcher: nice '-n 9'" in listed.err


def test_settings_of_agents_that_mean_nothing(inside: Run, well: Path) -> None:
    config = well / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[local]\nparallel = 'many'\n")
    found = findings(inside("doctor"))["agents"]
    assert (found["status"], found["hint"]) == ("problem", "See `rebyte man local-agents`")


@pytest.mark.slow
def test_on_a_terminal_it_is_a_list_with_what_to_do(well: Path) -> None:
    session = Session([*COMMAND, "doctor"], 100, 60, VISUAL="nosuch", COLUMNS="100", NO_COLOR="")
    assert session.finish() == 0
    lines = session.lines
    signs = {line.split()[1]: line[0] for line in lines if line[0] in "✓!✗"}
    assert list(signs) == NAMES
    assert signs["editor"] == "!"
    assert signs["api"] == "✓"
    at = next(number for number, line in enumerate(lines) if line.startswith("! editor"))
    assert lines[at + 1].strip() == (
        "Set VISUAL to a program on PATH, or pass the prompt as an argument"
    )
    assert lines[-1].startswith("No problems found, ")
    assert "\x1b[32m✓\x1b[0m" in session.raw
