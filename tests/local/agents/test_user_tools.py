"""`[local] tools` and `caches`: what of the user's HOME a run sees, and what it must not."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.agents import config
from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.program import ProgramAdapter
from rebyte_cli.local.agents.sandbox import jail, user_tools
from rebyte_cli.system import permissions

from .bench import PYTHON, Bench, script

USER_HOME = "home"  # the kernel takes no path with a space behind `#!`

PYENV = """
program="${{0##*/}}"
export PYENV_ROOT="{root}"
exec "{root}/libexec/pyenv" exec "$program" "$@"
"""
CHOOSE = """
shift; program=$1; shift
version=$(cat /code/.python-version 2>/dev/null || cat "$PYENV_ROOT/version")
exec "$PYENV_ROOT/versions/$version/bin/$program" "$@"
"""


def said(bench: Bench, command: str, *folders: str, **options: Any) -> str:
    """What a command prints in the sandbox where these folders have tools."""
    prompt = bench.start(["sh", "-c", command], tools=folders, **options)
    assert bench.wait(prompt).outcome == "succeeded", bench.look(prompt)
    return bench.said(prompt)


@pytest.mark.slow
def test_a_folder_is_shown_read_only_and_first_on_path(bench: Bench, user_home: Path) -> None:
    script(user_home / ".local/bin", "git", "echo my own git")
    (user_home / ".local/share").mkdir()
    (user_home / ".local/share/secret").touch()
    command = "git; touch ~user/.local/bin/x || echo read-only; ls -A ~user ~user/.local"
    command = command.replace("~user", str(user_home)) + " 2>&1"
    shown = said(bench, command, "~/.local/bin", "~/.missing/bin")
    assert shown.startswith("my own git\n")
    assert "read-only\n" in shown
    assert shown.endswith(f"{user_home}:\n.local\n\n{user_home}/.local:\nbin")


CONNECT = """
import os, socket, sys
for folder in sys.argv[1:]:
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(folder + "/socket")
        print("socket reached")
    except OSError as error:
        print(error.strerror)
    try:
        os.close(os.open(folder + "/pipe", os.O_WRONLY | os.O_NONBLOCK))
        print("pipe reached")
    except OSError as error:
        print(error.strerror)
    print(os.access(folder + "/file", os.R_OK), os.access(folder, os.W_OK))
"""


@pytest.mark.slow
def test_sockets_and_pipes_in_a_shown_folder_lead_nowhere(
    bench: Bench, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only folder does not keep anything from connecting."""
    names = ("tools", "read", "cache")
    paths = [str(user_home / name) for name in names]
    with contextlib.ExitStack() as stack:
        for path in paths:
            os.mkdir(path)
            Path(path, "file").touch()
            os.mkfifo(f"{path}/pipe")
            stack.callback(os.close, os.open(f"{path}/pipe", os.O_RDONLY | os.O_NONBLOCK))
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            monkeypatch.chdir(path)  # a name may be too long for a whole path
            listener.bind("socket")
            listener.listen()
        if not user_tools.overlays_work(jail.bubblewrap() or "bwrap", tuple(paths)):
            pytest.skip("no overlays here")
        shown = [*paths[:2], f"{jail.HOME}/cache"]
        program = ProgramAdapter(
            command=(PYTHON, "-I", "-c", CONNECT, *shown), label="mine",
            extra_paths=(paths[1], os.path.dirname(os.path.dirname(PYTHON))),
        )  # fmt: skip
        run = bench.run(program, tools=["~/tools"], caches=["~/cache"])
    assert run.outcome == "succeeded", run.answer
    lines = ["Connection refused", "No such device or address"]
    expected = [*lines, "True False", *lines, "True False", *lines, "True True"]
    assert (run.answer or "").splitlines() == expected


def test_a_folder_with_a_file_system_in_it_is_shown_with_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An overlay would not have it."""
    (tmp_path / "other").mkdir()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 1 0:1 / {tmp_path}/other/in rw - tmpfs none rw\n")
    monkeypatch.setattr(permissions, "MOUNTS", mounts)
    monkeypatch.setattr(user_tools, "overlays_work", lambda _program, _folders: True)
    other = str(tmp_path / "other")
    assert user_tools._read_only([other]) == ["--ro-bind-try", other, other]
    mounts.write_text("")
    assert "--tmp-overlay" in user_tools._read_only([other])


@pytest.mark.slow
def test_rustup_has_its_toolchains(bench: Bench, user_home: Path) -> None:
    """`cargo` is a link to `rustup`, which looks for them in HOME."""
    rustup = script(
        user_home / ".cargo/bin", "rustup", 'exec "$RUSTUP_HOME/toolchains/x/bin/${0##*/}" "$@"'
    )
    (user_home / ".cargo/bin/cargo").symlink_to("rustup")
    (user_home / ".cargo/credentials.toml").write_text("secret")
    script(user_home / ".rustup/toolchains/x/bin", "cargo", 'echo "cargo $1"')
    command = f"cargo build; ls {os.path.dirname(os.path.dirname(rustup))}"
    assert said(bench, command, "~/.cargo/bin") == "cargo build\nbin"


@pytest.mark.slow
def test_node_of_nvm_by_its_own_folder_and_by_a_link(bench: Bench, user_home: Path) -> None:
    """`npm` is a link to a script beside `bin`, which `node` runs; `current` is a link too."""
    prefix = user_home / ".nvm/versions/node/v22"
    script(prefix / "bin", "node", '. "$@"')
    module = prefix / "lib/node_modules/npm"
    script(module / "bin", "npm-cli.js", f". {module}/lib.js", "/usr/bin/env node")
    (module / "lib.js").write_text('echo "npm by $(command -v node)"')
    (prefix / "bin/npm").symlink_to("../lib/node_modules/npm/bin/npm-cli.js")
    expected = f"npm by {prefix}/bin/node"
    assert said(bench, "npm", "~/.nvm/versions/node/v22/bin") == expected
    (user_home / ".nvm/current").symlink_to("versions/node/v22")
    assert said(bench, "npm", "~/.nvm/current/bin") == expected
    (user_home / "bin").mkdir()
    for name in ("node", "npm"):
        (user_home / "bin" / name).symlink_to(user_home / ".nvm/current/bin" / name)
    assert said(bench, "npm", "~/bin") == f"npm by {user_home}/bin/node"


@pytest.mark.slow
def test_a_tool_of_uv_has_its_environment_and_python(bench: Bench, user_home: Path) -> None:
    """The link of the environment leads through one that names the minor version."""
    share = user_home / ".local/share/uv"
    real = script(share / "python/cpython-3.12.8/bin", "python3.12", 'echo "python $@"')
    (share / "python/cpython-3.12").symlink_to("cpython-3.12.8")
    environment = share / "tools/ruff"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").touch()
    (environment / "bin/python").symlink_to(share / "python/cpython-3.12/bin/python3.12")
    tool = script(environment / "bin", "ruff", "", str(environment / "bin/python"))
    (user_home / ".local/bin").mkdir()
    (user_home / ".local/bin/ruff").symlink_to(tool)
    assert real.endswith("python3.12")
    assert said(bench, "ruff check", "~/.local/bin") == f"python {user_home}/.local/bin/ruff check"


@pytest.mark.slow
def test_a_shim_of_pyenv_chooses_the_version_in_the_sandbox(bench: Bench, user_home: Path) -> None:
    root = user_home / ".pyenv"
    script(root / "shims", "python", PYENV.format(root=root))
    script(root / "libexec", "pyenv", CHOOSE)
    for version in ("3.12", "3.13"):
        script(root / f"versions/{version}/bin", "python", f"echo Python {version}")
    (root / "version").write_text("3.13")
    command = "python; echo 3.12 > /code/.python-version; python"
    assert said(bench, command, "~/.pyenv/shims") == "Python 3.13\nPython 3.12"


@pytest.mark.slow
def test_a_shim_of_asdf_finds_asdf_and_the_versions_of_the_home(
    bench: Bench, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(user_home / ".asdf/shims", "node", 'exec asdf exec "node" "$@"')
    choose = 'version=$(cut -d" " -f2 ~/.tool-versions); '
    choose += 'exec "$ASDF_DATA_DIR/installs/nodejs/$version/bin/$2"'
    script(user_home / "go/bin", "asdf", choose)
    script(user_home / ".asdf/installs/nodejs/22/bin", "node", "echo node 22")
    (user_home / ".tool-versions").write_text("nodejs 22\n")
    monkeypatch.setenv("PATH", f"{user_home}/go/bin:{os.environ['PATH']}")
    assert said(bench, "node", "~/.asdf/shims") == "node 22"


@pytest.mark.slow
def test_what_a_link_leads_to_is_shown_alone(bench: Bench, user_home: Path) -> None:
    """Of a work tree with a `lib`, or of a folder with secrets, no more than the program."""
    for folder in ("project", "keys"):
        script(user_home / folder / "bin", folder, f"echo {folder}")
        (user_home / folder / "lib").mkdir()
        (user_home / folder / ".env").write_text("secret")
    (user_home / "project/.git").mkdir()
    (user_home / ".ssh").mkdir()
    script(user_home / ".ssh", "connect", "echo secret")
    (user_home / "bin").mkdir()
    (user_home / "bin/project").symlink_to("../project/bin/project")
    (user_home / "bin/connect").symlink_to("../.ssh/connect")
    command = f"project; connect || find {user_home} -name '.*'"
    shown = said(bench, command, "~/bin")
    assert shown.splitlines()[0] == "project"
    assert "secret" not in shown
    assert ".ssh" not in shown
    assert ".env" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("sign", [".git", ".hg", ".jj"])
def test_of_a_package_in_a_work_tree_the_program_alone_is_shown(
    bench: Bench, user_home: Path, sign: str
) -> None:
    """As `npm link` leads into a monorepo; also if HOME is a work tree, and nvm a clone."""
    for prefix in ("mono/packages/cli", ".nvm/versions/node/v22", "app/env"):
        script(user_home / prefix / "bin", Path(prefix).name, f"echo {prefix}")
        (user_home / prefix / "lib").mkdir()
        (user_home / prefix / "lib/module").write_text("module")
    (user_home / "mono/packages/cli/.env").write_text("secret")
    (user_home / "app/env/conda-meta").mkdir()
    for folder in (".", "mono", ".nvm", "app"):
        (user_home / folder / sign).touch()
    (user_home / "bin").mkdir()
    (user_home / "bin/cli").symlink_to("../mono/packages/cli/bin/cli")
    (user_home / "bin/v22").symlink_to("../.nvm/versions/node/v22/bin/v22")
    (user_home / "bin/env").symlink_to("../app/env/bin/env")
    shown = said(
        bench, f"cli; v22; env; cd {user_home}; find . -name .env -o -name module", "~/bin"
    )
    lines = shown.splitlines()
    assert lines[:3] == ["mono/packages/cli", ".nvm/versions/node/v22", "app/env"]
    assert sorted(lines[3:]) == ["./.nvm/versions/node/v22/lib/module", "./app/env/lib/module"]


@pytest.mark.slow
@pytest.mark.parametrize("overlay", [True, False])
def test_a_cache_is_read_and_what_is_written_is_thrown_away(
    bench: Bench, user_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlay: bool
) -> None:
    """An older bubblewrap knows no overlays: the cache is read-only."""
    real = jail.bubblewrap()
    assert real is not None
    if not overlay:
        old = f'case " $* " in *" --tmp-overlay "*) exit 1;; esac\nexec {real} "$@"'
        script(tmp_path / "old", "bwrap", old)
        monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:{os.environ['PATH']}")
    elif not user_tools.overlays_work(real, (str(user_home),)):
        pytest.skip("no overlays here")
    cache = user_home / ".npm"
    cache.mkdir()
    (cache / "package").write_text("cached")
    command = "cat ~/.npm/package; echo && echo x > ~/.npm/package && cat ~/.npm/package"
    command = f"{command} || echo read-only; rm -f ~/.npm/package; ls ~"
    shown = said(bench, command, caches=["~/.npm", "~/.missing"])
    assert shown == f"cached\n{'x' if overlay else 'read-only'}"
    assert (cache / "package").read_text() == "cached"


def test_what_is_shown_in_home_has_a_real_place_there(user_home: Path, tmp_path: Path) -> None:
    """An agent has left links; an older bubblewrap makes folders where they lead to."""
    (user_home / ".cache/pip").mkdir(parents=True)
    (user_home / ".asdf/shims").mkdir(parents=True)
    (user_home / ".tool-versions").write_text("nodejs 22\n")
    private, elsewhere = tmp_path / "private", tmp_path / "elsewhere"
    private.mkdir()
    elsewhere.mkdir()
    (private / ".cache").symlink_to(elsewhere)
    (private / ".tool-versions").symlink_to(elsewhere / "file")
    options = {"tools": ["~/.asdf/shims"], "caches": ["~/.cache/pip"]}
    user_tools.find_shown(options, os.environ, [], private, ())
    assert not (private / ".cache").is_symlink()
    assert (private / ".cache/pip").is_dir()
    assert not (private / ".tool-versions").is_symlink()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("~/", "it holds"),
        ("/", "it holds"),
        ("~/.config", "it holds ~/.config/"),
        ("~/.config/rebyte/x", "~/.config/rebyte is private"),
        ("~/.ssh", "it holds ~/.ssh"),
        ("~/.ssh/keys", "~/.ssh is private"),
        ("~/x/../.ssh", "it holds ~/.ssh"),
        ("~/link", "it holds ~/.ssh"),
        ("~/.local", "it holds"),
        ("~/.local/share/opencode", "it holds ~/.local/share/opencode/auth.json"),
        ("~/.cargo", "it holds ~/.cargo/credentials"),
        ("~/.claude", "it holds ~/.claude/.credentials.json"),
        ("~/state", "it holds ~/state/rebyte"),
        ("bin", "it begins with neither / nor ~/"),
        ("~", "it begins with neither / nor ~/"),
        ("~/.cargo/bin", ""),
        ("~/.config/yarn/global/node_modules/.bin", ""),
        ("/opt/x/bin", ""),
    ],
)
@pytest.mark.parametrize("setting", ["tools", "caches"])
def test_a_folder_with_secrets_is_refused(
    user_home: Path, setting: str, path: str, reason: str
) -> None:
    (user_home / ".ssh").mkdir()
    (user_home / "link").symlink_to(".ssh")
    file = user_home / ".config/rebyte/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'[local]\n{setting} = ["{path}"]\n')
    state = user_home / "state/rebyte/local"
    if not reason:
        assert getattr(config.load(file, state), setting) == (path,)
        return
    with pytest.raises(config.ConfigError) as problem:
        config.load(file, state)
    assert f"[local] {setting}: {path} cannot be shown to agents: {reason}" in str(problem.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "secret",
    [
        "~/.codex/auth.json",
        "~/.config/rebyte/credentials.json",
        "STATE/workspaces/other/code/secret",
        "~/dotfiles/ssh/id",
    ],
)
def test_what_a_tool_leads_to_is_not_shown_beside_secrets(
    bench: Bench, user_home: Path, secret: str
) -> None:
    """Neither the installation around the folder that is named, nor what a link in it leads to."""
    file = Path(secret.replace("STATE", str(bench.folder)).replace("~", str(user_home)))
    for name in ("bin", "lib"):
        (file.parent / name).mkdir(parents=True)
    file.write_text("SECRET")
    (user_home / ".ssh").symlink_to("dotfiles/ssh")
    script(file.parent / "bin", "helper", "echo helper")
    (user_home / "bin").mkdir()
    (user_home / "bin/helper").symlink_to(file.parent / "bin/helper")
    (user_home / "bin/secret").symlink_to(file)
    (user_home / ".tool-versions").symlink_to(file)
    (user_home / ".asdf/shims").mkdir(parents=True)
    script(user_home / "bin", "mine", "echo mine")
    command = f"mine; cat {file} {user_home}/bin/secret ~/.tool-versions; helper"
    folders = ("~/bin", f"{file.parent}/bin", "~/.asdf/shims")
    options = {"configDir": str(user_home / ".config/rebyte")}
    shown = said(bench, f"({command}) 2>&1; true", *folders, **options)
    assert shown.startswith("mine\n")
    assert "SECRET" not in shown
    assert shown.endswith("\nhelper") is (".codex" in secret), "what holds no secret is shown"


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ("/bin/bash: line 1: cargo: command not found", ["cargo"]),
        ("sh: 1: node: not found\nsh: npm: not found", ["node", "npm"]),
        ("zsh:1: command not found: uv", ["uv"]),
        ("/usr/bin/env: \u2018ruby\u2019: No such file or directory", ["ruby"]),
        ("env: 'ruby': No such file or directory", ["ruby"]),
        ("Error: package x: not found\n404: not found", []),
        (None, []),
    ],
)
def test_commands_that_a_shell_did_not_find(output: object, names: list[str]) -> None:
    assert list(user_tools.not_found(output)) == names


def test_the_hint_names_the_folder(user_home: Path) -> None:
    script(user_home / ".cargo/bin", "cargo", "")
    script(user_home / ".ssh", "connect", "")
    search = f"{user_home}/.cargo/bin:{user_home}/.ssh:{os.environ['PATH']}"
    there = "to `tools` in [local] of config.toml"
    assert user_tools.hint(["cargo", "connect"], search) == (
        "Not found in the sandbox: cargo, connect. To show it to agents, add"
        f' "~/.cargo/bin" {there}'
    )
    assert user_tools.hint(["no-such"], search) == (
        f"Not found in the sandbox: no-such. If you have it, add its folder {there}"
    )


@pytest.mark.slow
def test_a_run_gives_the_hint_once(bench: Bench, user_home: Path, tmp_path: Path) -> None:
    """At its end, though two tools found no `cargo`."""
    output = "/bin/bash: line 1: cargo: command not found"
    block = {"type": "tool_result", "tool_use_id": "1", "content": output, "is_error": True}
    tool = {"type": "user", "message": {"content": [block]}}
    end = {"type": "result", "is_error": False, "result": "done"}
    lines = "\n".join(map(json.dumps, (tool, tool, end)))
    agent = Claude(command=(script(tmp_path, "claude", f"cat << 'END'\n{lines}\nEND\n"),))
    prompt = bench.start(agent)
    assert bench.wait(prompt).outcome == "succeeded"
    assert bench.said(prompt).count("Not found in the sandbox: cargo. ") == 1
