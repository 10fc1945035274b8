"""Which program an agent is, and what of the disk its jail has to show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rebyte_cli.local.agents.adapters import programs
from rebyte_cli.local.agents.adapters.adapter import User
from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.codex import Codex
from rebyte_cli.local.agents.adapters.program import ProgramAdapter
from rebyte_cli.local.agents.sandbox import jail, user_tools
from rebyte_cli.local.agents.supervision import admission
from rebyte_cli.local.http import Refusal

from .bench import Bench, script

USER_HOME = "home"  # the kernel takes no path with a space behind `#!`


def found(
    command: str, folder: Path | None = None, **more: tuple[str, ...]
) -> programs.AgentProgram:
    path = f"{folder}:/usr/bin:/bin" if folder else "/usr/bin:/bin"
    program = programs.find(ProgramAdapter(command=(command,), label="x", **more), {"PATH": path})
    assert program is not None
    return program


def test_the_login_that_an_agent_would_have_is_named(user_home: Path) -> None:
    (user_home / ".codex").mkdir(parents=True)
    assert Codex().found_login(User({"CODEX_API_KEY": "", "OTHER_KEY": "x"}, user_home)) is None
    assert Codex().found_login(User({"CODEX_API_KEY": "x"}, user_home)) == "CODEX_API_KEY"
    assert Claude().found_login(User({"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "9"}, user_home)) is None
    (user_home / ".codex/config.toml").write_text('model_provider = "mine"\n')
    assert Codex().found_login(User({}, user_home)) == "~/.codex/config.toml"  # it may need no key
    (user_home / ".codex/auth.json").write_text("{}")
    assert Codex().found_login(User({"CODEX_API_KEY": "x"}, user_home)) == "~/.codex/auth.json"


def test_a_system_program_needs_nothing_more() -> None:
    assert found("sh").needs == []


def test_a_binary_in_home_needs_its_own_file_alone(tmp_path: Path, user_home: Path) -> None:
    """As claude installs itself: a link in ~/.local/bin to a file elsewhere."""
    real = user_home / ".local/share/claude/versions/2.1.197"
    real.parent.mkdir(parents=True)
    real.write_bytes(Path("/bin/sh").read_bytes())
    real.chmod(0o755)
    (user_home / ".local/bin").mkdir()
    (user_home / ".local/bin/claude").symlink_to(real)
    (user_home / ".local/lib").mkdir()
    program = found("claude", user_home / ".local/bin")
    assert (program.command, program.needs) == ([str(real)], [str(real)])
    assert program.path == str(user_home / ".local/bin/claude")


def test_a_script_of_npm_needs_the_packages_around_it_and_node(user_home: Path) -> None:
    """As nvm has it: node and the agents in one prefix below HOME."""
    prefix = user_home / ".nvm/versions/node/v22"
    package = prefix / "lib/node_modules/@google/gemini-cli"
    script(package / "bundle", "gemini.js", "", "/usr/bin/env node")
    script(prefix / "bin", "node", 'echo "node $@"')
    (prefix / "bin/gemini").symlink_to(package / "bundle/gemini.js")
    program = found("gemini", prefix / "bin")
    assert program.command == [str(package / "bundle/gemini.js")]
    assert program.needs == [str(prefix / "lib/node_modules"), str(prefix)]
    assert str(prefix / "bin") in program.folders


def test_a_script_of_python_needs_its_environment(user_home: Path) -> None:
    environment = user_home / ".local/share/uv/tools/aider"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text("")
    (environment / "bin/python").symlink_to(os.path.realpath(sys.executable))
    script(environment / "bin", "aider", "", str(environment / "bin/python"))
    (environment / "lib").mkdir()
    (environment / ".env").write_text("SECRET=x")
    program = found("aider", environment / "bin")
    assert {str(environment / name) for name in ("pyvenv.cfg", "bin", "lib")} < {*program.needs}
    assert not {str(environment), str(user_home)} & {*program.needs}


@pytest.mark.parametrize("place", ["", "project"])
@pytest.mark.parametrize("copied", [False, True])
def test_a_virtual_environment_may_be_home_or_a_project(
    user_home: Path, place: str, copied: bool
) -> None:
    """`python3 -m venv ~`: of what else is there, such as keys and `.env`, nothing is shown."""
    environment = user_home / place
    (environment / "lib/python3/site-packages").mkdir(parents=True)
    (environment / "lib64").symlink_to("lib")
    (environment / "pyvenv.cfg").write_text("")
    (environment / ".ssh").mkdir()
    if copied:
        script(environment / "bin", "python", "", "/bin/sh")
    else:
        (environment / "bin").mkdir()
        (environment / "bin/python").symlink_to("/bin/sh")
    path = script(environment / "bin", "aider", "", str(environment / "bin/python"))
    names = ("bin", "bin/aider", "bin/python", "lib", "lib64", "pyvenv.cfg")
    assert {*found(path).needs} <= {str(environment / name) for name in names}
    assert str(environment / "lib") in found(path).needs
    (environment / "lib/module").mkdir()
    settings = {"tools": [str(environment / "bin")]}
    shown = user_tools.find_shown(settings, os.environ, (), user_home / "private", ())
    assert str(environment / "lib") in shown.arguments
    assert not {str(environment), str(environment / ".ssh")} & {*shown.arguments}


@pytest.mark.parametrize("name", [".local", ""])
def test_home_is_not_shown_through_a_link(
    tmp_path: Path, user_home: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interpreters are found by their real path, which need not begin with HOME."""
    (tmp_path / "link").symlink_to(user_home)
    monkeypatch.setenv("HOME", str(tmp_path / "link"))
    folder = user_home / name
    (folder / "lib").mkdir(parents=True)
    script(folder / "bin", "interpreter", "")
    path = script(folder / "bin", "agent", "", str(folder / "bin/interpreter"))
    assert found(path).needs == [path, str(folder / "bin/interpreter")]
    assert user_tools.why_not(str(user_home), ()) != ""
    assert user_tools.why_not(str(user_home / ".ssh/x"), ()) != ""


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (".codex", "it needs ~/.codex, but it holds ~/.codex/auth.json"),
        (".config/rebyte", "it needs ~/.config/rebyte, but it holds ~/.config/rebyte"),
    ],
)
def test_an_interpreter_beside_a_login_is_refused(
    bench: Bench, user_home: Path, place: str, reason: str
) -> None:
    """Of whichever agent, and beside the keys of rebyte."""
    prefix = user_home / place
    (prefix / "lib").mkdir(parents=True)
    (prefix / "auth.json").write_text("SECRET")
    script(prefix / "bin", "interpreter", 'shift; exec sh "$@"')
    path = script(user_home, "agent", f"cat {prefix}/auth.json", str(prefix / "bin/interpreter"))
    config = user_home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f'[local.agents.mine]\ncommand = ["{path}"]\n')
    run = bench.run([path], configDir=str(config.parent))
    assert (run.outcome, run.answer) == ("failed", f"mine cannot be sandboxed: {reason}")
    with pytest.raises(Refusal, match=f"cannot be sandboxed: {reason}"):
        admission.usable_agent("mine", config, bench.folder, None)


def test_an_agent_beside_keys_is_refused(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a run is recorded, and by one whose agent has moved since."""
    home = tmp_path / "home2"
    prefix = home / ".docker/agent"
    (prefix / "lib").mkdir(parents=True)
    script(prefix / "bin", "interpreter", "", "/bin/sh")
    path = script(prefix / "bin", "agent", "", str(prefix / "bin/interpreter"))
    monkeypatch.setenv("HOME", str(home))
    reason = "cannot be sandboxed: it needs ~/.docker/agent/bin/agent, but ~/.docker is private"
    run = bench.run([path])
    assert (run.outcome, run.answer) == ("failed", f"mine {reason}")
    config = tmp_path / "config.toml"
    config.write_text(f'[local.agents.mine]\ncommand = ["{path}"]\n')
    with pytest.raises(Refusal, match=reason):
        admission.usable_agent("mine", config, bench.folder, None)
    adapter, _, jailed = admission.usable_agent("mine", config, bench.folder, "off")
    assert (adapter.title, jailed) == ("mine", False)


@pytest.mark.parametrize("prefix", ["", ".local"])
def test_home_is_never_shown_as_the_prefix_of_an_interpreter(user_home: Path, prefix: str) -> None:
    folder = user_home / prefix
    (folder / "lib").mkdir(parents=True)
    script(folder / "bin", "interpreter", "")
    path = script(folder / "bin", "agent", "", str(folder / "bin/interpreter"))
    assert found(path).needs == [path, str(folder / "bin/interpreter")]


def test_further_paths_of_the_configuration(user_home: Path) -> None:
    assert found("sh", extra_paths=("~/.config/x",)).needs == [str(user_home / ".config/x")]


def test_an_agent_in_home_runs_in_the_jail(bench: Bench, user_home: Path) -> None:
    """It sees itself, its packages and its interpreter, and the rest of HOME is not there."""
    prefix = user_home / ".nvm/versions/node/v22"
    package = prefix / "lib/node_modules/agent"
    script(package, "cli.js", 'cat "$(dirname "$1")/data"', "/usr/bin/env node")
    (package / "data").write_text("from the package")
    script(prefix / "bin", "node", '. "$1"')
    (prefix / "bin/agent").symlink_to(package / "cli.js")
    (user_home / "secret").write_text("secret")
    path = f"{prefix / 'bin'}:{os.environ['PATH']}"
    program = programs.find(ProgramAdapter(command=("agent",), label="x"), {"PATH": path})
    assert program is not None
    workspace = bench.workspace()
    for folder in (workspace.code, workspace.home):
        folder.mkdir(parents=True)

    def inside(words: list[str]) -> str:
        layout = jail.layout_of(workspace.folder, jailed=True)
        line = jail.command(layout, words, needs=program.needs)
        variables = jail.environment(layout, os.environ, program.folders)
        done = subprocess.run(line, env=variables, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert inside(program.command) == "from the package"
    assert inside(["ls", "-A", str(user_home)]) == ".nvm\n"


def test_the_variables_of_an_agent(user_home: Path) -> None:
    outside = {
        "ANTHROPIC_API_KEY": "a", "ANTHROPIC_BASE_URL": "b", "CLAUDE_CODE_OAUTH_TOKEN": "c",
        "CLAUDECODE": "1", "CLAUDE_CODE_ENTRYPOINT": "cli", "OPENAI_API_KEY": "d", "OTHER": "e",
    }  # fmt: skip
    given = Claude(extra_variables=("OTHER",)).let_through(User(outside, user_home))
    assert sorted(given) == [
        "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN", "OTHER"
    ]  # fmt: skip


def test_asking_for_a_version_changes_nothing_in_home(tmp_path: Path, user_home: Path) -> None:
    """Agents make folders there. What a version manager has installed is found all the same."""
    (user_home / ".volta").mkdir(parents=True)
    (user_home / ".volta/version").write_text("v1.2.3\n")
    (user_home / ".tool-versions").write_text("agent 1.2.3\n")
    made = 'mkdir -p ~/.made "${XDG_DATA_HOME:-$HOME/.local/share}/made" "${CODEX_HOME:-$HOME/c}"'
    says = 'grep -q 1.2.3 ~/.tool-versions && cat "$VOLTA_HOME/version"'
    script(tmp_path, "agent", f"{made}; {says}")
    outside = {"XDG_DATA_HOME": f"{user_home}/data", "CODEX_HOME": f"{user_home}/codex"}
    outside |= {"HOME": str(user_home), "PATH": "/usr/bin:/bin"}
    assert programs.version(found("agent", tmp_path), outside) == "1.2.3"
    assert sorted(path.name for path in user_home.iterdir()) == [".tool-versions", ".volta"]
    assert programs.version(found("agent", tmp_path), {**outside, "VOLTA_HOME": "/none"}) != "1.2.3"
