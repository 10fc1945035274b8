"""`rebyte check`: a command decides whether a task is done, and no agent decides about it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import outliving
from tests.conftest import COMMAND, Done
from tests.local.gateway.upstream import ScriptedServer, tunnelling_proxy
from tests.repositories import Repository, git
from tests.tools import need_jail
from tests.waiting import eventually

Local = Callable[..., Done]

TEST = "#!/bin/sh\ngrep -q right answer.txt || { echo wrong answer; exit 3; }\n"


@pytest.fixture
def repository(home: Path) -> Path:
    """A repository without a remote, whose test wants another answer than it has."""
    folder = home / "repository"
    (folder / "tests").mkdir(parents=True)
    (folder / "answer.txt").write_text("wrong\n")
    (folder / "tests/run.sh").write_text(TEST)
    (folder / "tests/run.sh").chmod(0o755)
    (folder / "Makefile").write_text("test:\n\ttests/run.sh\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


RIGHT = "echo right > answer.txt"


def work(agents: Local, repository: Path, script: str) -> str:
    """Run the agent on the repository; its task."""
    words = ("create", script, "-x", "mine", "-g", ".", "--wait", "-o", "json")
    done = agents(*words, cwd=repository)
    assert done.status == 0, done
    return str(done.json["id"])


def echo(sock: socket.socket) -> None:
    """Send back everything."""
    while data := sock.recv(65536):
        sock.sendall(data)


def check(agents: Local, *words: str, **options: Any) -> Done:
    return agents("check", "@last", *words, "-o", "json", **options)


@pytest.mark.slow
def test_the_changes_decide(agents: Local, repository: Path) -> None:
    """What the agent did is checked, not what is in the working tree or was said."""
    task = work(agents, repository, RIGHT)
    (repository / "answer.txt").write_text("neither\n")
    done = check(agents, "tests/run.sh")
    assert (done.status, done.err) == (0, "")
    assert done.json == {
        "id": task,
        "status": "passed",
        "command": "tests/run.sh",
        "exit": 0,
        "tries": 1,
        "output": "",
        "file": done.json["file"],
        "restored": [],
    }
    assert git(repository, "status", "--porcelain").split() == ["M", "answer.txt"]
    assert list(Path(done.json["file"]).parent.glob("tree-*")) == []


@pytest.mark.slow
def test_a_check_that_fails(agents: Local, repository: Path) -> None:
    work(agents, repository, "echo still wrong > answer.txt")
    done = check(agents, "seq 1000; printf '\\033[31mred\\033[0m\\n'; tests/run.sh")
    assert done.status == 10
    found = done.json
    assert (found["status"], found["exit"]) == ("failed", 3)
    assert found["output"].split("\n")[-3:] == ["1000", "red", "wrong answer"]
    assert len(found["output"].split("\n")) == 40
    assert Path(found["file"]).read_text().startswith("1\n2\n3\n")
    error = json.loads(done.err)["error"]
    assert (error["code"], error["exit"]) == ("check_failed", 10)
    assert error["message"].endswith(
        "exited with status 3\n993\n994\n995\n996\n997\n998\n999\n1000\nred\nwrong answer"
    )


@pytest.mark.slow
def test_a_tree_that_fills_the_disk_is_ended_and_removed(
    agents: Local, repository: Path, home: Path
) -> None:
    (repository / "large").write_bytes(bytes(1 << 26))
    git(repository, "add", "large")
    blob = git(repository, "rev-parse", ":large").strip()
    for number in range(16):
        git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},large{number}")
    git(repository, "commit", "-q", "-m", "Large")
    work(agents, repository, RIGHT)
    config = home / ".config/rebyte/config.toml"
    config.write_text(f'{config.read_text()}[local]\nkeep_free = "900000G"\n')
    done = check(agents, "true")
    assert (done.status, done.json["status"]) == (1, "error")
    assert "the disk has only " in done.err
    assert list(home.glob("**/tree-*")) == []


CHEATS = {
    "edits it": "echo true > tests/run.sh",
    "deletes it": "rm -r tests",
    "makes it a link": "ln -sf /bin/true tests/run.sh",
    "moves it": "mv tests/run.sh old.sh; cp /bin/true tests/run.sh",
    "changes its mode": "chmod -x tests/run.sh",
    "makes it a folder": "rm tests/run.sh; mkdir tests/run.sh; echo > tests/run.sh/x",
    "makes its folder a link": "mv tests other; echo true > other/run.sh; ln -s other tests",
    "makes its folder a file": "rm -r tests; echo true > tests",
    "adds a Makefile before it": "printf 'test:\\n\\ttrue\\n' > GNUmakefile",
    "adds another makefile": "printf 'test:\\n\\ttrue\\n' > makefile",
    "edits the Makefile": "printf 'test:\\n\\ttrue\\n' > Makefile",
    "changes how it is written": "echo '*.sh text eol=crlf' > .gitattributes",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("how", CHEATS)
def test_an_agent_cannot_pass_by_changing_the_test(
    agents: Local, repository: Path, how: str
) -> None:
    """The command names both the Makefile and, in it, a script that the user protects."""
    work(agents, repository, CHEATS[how])
    done = check(agents, "make test", "--protect", "tests/*.sh")
    assert done.status == 10, done
    assert "wrong answer" in done.json["output"]


@pytest.mark.slow
@pytest.mark.parametrize("how", CHEATS)
def test_what_is_put_back_is_not_in_the_way_of_the_right_answer(
    agents: Local, repository: Path, how: str
) -> None:
    work(agents, repository, f"{RIGHT}; {CHEATS[how]}")
    done = check(agents, "make test", "--protect", "tests/*.sh")
    assert done.status == 0, done
    if how == "deletes it":
        assert done.json["restored"] == ["tests/run.sh"]
        assert "as they were before the task: tests/run.sh" in done.err


@pytest.mark.slow
def test_files_that_the_command_names_are_protected(agents: Local, repository: Path) -> None:
    work(agents, repository, "echo true > tests/run.sh")
    assert check(agents, "cd . && sh -c 'cd tests; ./run.sh'").status == 10
    assert check(agents, "sh tests/run.sh").status == 10
    assert check(agents, "sh tests/run.sh", "--protect", "!tests/run.sh").status == 0


@pytest.mark.slow
def test_what_a_protected_link_leads_to_is_protected(agents: Local, repository: Path) -> None:
    (repository / "check.sh").symlink_to("tests/run.sh")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Link")
    work(agents, repository, "echo true > tests/run.sh; echo a > tests/new.sh")
    done = check(agents, "sh check.sh")
    assert (done.status, done.json["restored"]) == (10, ["tests/run.sh"])


@pytest.mark.slow
def test_a_conftest_cannot_skip_the_tests(agents: Local, repository: Path) -> None:
    """pytest reads those of every folder by itself."""
    (repository / "tests/test_answer.py").write_text("def test_it(): assert False\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Test")
    skip = "def pytest_collection_modifyitems(items): items.clear()"
    work(agents, repository, f"echo '{skip}' | tee conftest.py > tests/conftest.py")
    # A stand-in for pytest: it reads every conftest.py as that does.
    program = "pytest() { test ! -e conftest.py -a ! -e tests/conftest.py; }; pytest tests"
    done = check(agents, program)
    assert done.json["restored"] == ["conftest.py", "tests/conftest.py"]
    assert done.status == 0


@pytest.mark.slow
def test_a_check_gets_nothing_of_the_users(
    agents: Local, repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network, no file of the home, no variable with a secret, an empty HOME."""
    work(agents, repository, RIGHT)
    monkeypatch.setenv("REBYTE_API_KEY", "rbk_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@127.0.0.1:9")
    command = f'env; ls -A "$HOME"; test ! -e {home}/repository && ! ls /sys/class/net/eth0'
    done = check(agents, f"{command}; cat /proc/net/dev")
    assert done.status == 0
    printed = Path(done.json["file"]).read_text()
    assert "rbk_secret" not in printed
    assert "password" not in printed
    devices = {line.split(":")[0].strip() for line in printed.splitlines() if ": " in line}
    assert "lo" in devices
    assert not {name for name in devices if name.startswith(("eth", "en", "wl"))}


# Ask what the proxy variables name for a tunnel, and have a word sent back through it.
REACH = """bash -c 'exec 3<>/dev/tcp/${HTTPS_PROXY#http://}
printf "CONNECT $0:443 HTTP/1.1\\r\\nHost: $0:443\\r\\n\\r\\n" >&3
read -r answer <&3; read -r empty <&3; echo "$answer"
echo ping >&3; read -r word <&3; test "$word" = ping' """


@pytest.mark.slow
def test_a_check_reaches_the_hosts_that_it_is_given(
    agents: Local, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the gateway, which here connects through a proxy of the user's."""
    work(agents, repository, RIGHT)
    heads: list[bytes] = []
    reach = REACH.replace("${HTTPS_PROXY#http://}", "127.0.0.1/${HTTPS_PROXY##*:}")
    with ScriptedServer(echo) as server, ScriptedServer(tunnelling_proxy(server.port, heads)) as on:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{on.port}")
        allowed = ("--allow", "packages.example")
        done = check(agents, f"{reach} packages.example", *allowed)
        assert done.status == 0, done
        assert done.json["output"].startswith("HTTP/1.1 200 ")
        assert len(heads) == 1
        assert heads[0].startswith(b"CONNECT packages.example:443 ")
        done = check(agents, f"{reach} other.example", *allowed)
        assert (done.status, len(heads)) == (10, 1)
        assert (
            "[requests to other.example were refused: it is no host of this check]"
            in done.json["output"]
        )
        # Without any, there is not even a proxy.
        assert check(agents, f'test -z "$HTTPS_PROXY" && ! {reach} packages.example').status == 0
        # The same for `--check`, which the agent's own list has no part in.
        words = ("-x", "mine", "-g", ".", "--wait", "--check", f"{reach} packages.example")
        create = ("create", RIGHT, *words, "--tries", "1")
        assert agents(*create, *allowed, cwd=repository).status == 10
        assert len(heads) == 1
        assert agents(*create, "--check-allow", "packages.example", cwd=repository).status == 0
        assert len(heads) == 2


FILL = """
import ctypes, os
os.write(1, b"printed")
big = ctypes.c_long(1 << 30)
ctypes.CDLL(None).fallocate(1, 1, ctypes.c_long(0), big)
os.fchmod(1, 0o6755)
os.fchmod(1, 0)
"""


@pytest.mark.slow
def test_the_log_is_out_of_reach(agents: Local, repository: Path) -> None:
    """Inside, its output is no file that could be filled, or get another mode."""
    work(agents, repository, RIGHT)
    done = check(agents, f"/usr/bin/python3 -c '{FILL}'; true")
    assert (done.status, done.json["output"]) == (0, "printed"), done
    log = Path(done.json["file"]).stat()
    assert log.st_blocks < 1000
    assert log.st_mode & 0o7777 in (0o600, 0o644)


@pytest.mark.slow
def test_output_is_limited(agents: Local, repository: Path) -> None:
    work(agents, repository, RIGHT)
    done = check(agents, "yes | head -c 100000000")
    assert "printed more than 64 MiB" in done.json["output"]
    assert Path(done.json["file"]).stat().st_size == 64 << 20
    done = check(agents, "exec >&- 2>&-; sleep 0.3; exit 3")
    assert (done.json["exit"], done.json["output"]) == (3, "")
    assert check(agents, "sleep 1; seq 100000").json["output"].endswith("\n100000")


@pytest.mark.slow
def test_a_time_limit_ends_every_process(agents: Local, repository: Path) -> None:
    work(agents, repository, RIGHT)
    mark = f"sleep 98{os.getpid()}"
    done = check(agents, f"setsid {mark} & {mark}", "--check-timeout", "1s")
    assert done.status == 10
    assert done.json["exit"] == 124
    assert "ran longer than 1 s" in done.json["output"]
    assert mark not in subprocess.run(
        ["ps", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


@pytest.mark.slow
def test_a_command_that_has_ended_is_not_awaited_for_what_it_left(
    agents: Local, repository: Path
) -> None:
    """Which has stopped the sandbox from inside."""
    work(agents, repository, RIGHT)
    started = time.monotonic()
    done = check(agents, shlex.join(["python3", "-I", "-c", outliving.STOP]))
    if "refused" in done.json["output"]:
        pytest.skip("this kernel lets no program trace another that it did not start")
    assert (done.status, done.json["exit"]) == (10, 124)
    assert "a program in its background keeps the sandbox alive" in done.json["output"]
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_an_interrupt_ends_every_process(agents: Local, repository: Path, home: Path) -> None:
    work(agents, repository, RIGHT)
    mark = f"sleep 97{os.getpid()}"
    words = [sys.executable, "-m", "rebyte_cli", "-P", "local", "check", "@last", mark]
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(words, cwd=repository, stderr=subprocess.DEVNULL)

        def is_at_work() -> bool:
            every = subprocess.run(
                ["pgrep", "-fx", mark], capture_output=True, check=False
            ).stdout  # fmt: skip
            return bool(every)

        eventually(is_at_work)
        process.send_signal(number)
        assert process.wait() == (130 if number == signal.SIGINT else -signal.SIGKILL)
        eventually(lambda: not is_at_work())
    # What the killed one left is removed by the next.
    (left,) = (home / ".local/state/rebyte/checks").glob("tree-*")
    assert check(agents, "true").status == 0
    assert not left.exists()


@pytest.mark.slow
def test_nothing_outlives_a_check_that_is_killed(agents: Local, repository: Path) -> None:
    work(agents, repository, RIGHT)
    mark = f"96{os.getpid()}"
    words = [*COMMAND, "-P", "local", "check", "@last", outliving.command(mark)]
    outliving.must_die_with(words, mark, repository)


@pytest.mark.slow
def test_without_a_jail_it_must_be_asked_for(
    agents: Local, repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(agents, repository, RIGHT)
    broken = home / "bin/bwrap"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no namespaces >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    done = check(agents, "touch ran; tests/run.sh")
    assert (done.status, json.loads(done.err)["error"]["code"]) == (1, "check_unusable")
    assert "--no-jail" in done.err
    assert check(agents, "tests/run.sh", "--no-jail").status == 0


@pytest.mark.slow
def test_another_service(inside: Local, home: Path, tmp_path: Path) -> None:
    """Its task leaves changes.patch as an artifact; `-g .` noted the commit of the remote."""
    need_jail()
    repository = Repository(tmp_path)
    inside("-P", "local", "create", "Write", "-g", ".", "--wait", cwd=repository.path)
    repository.write("a.txt", "two\n")
    patch = home / "changes.patch"
    patch.write_text(repository("diff"))
    repository("checkout", "a.txt")
    inside("-P", "local", "artifact", "put", "@last", str(patch))
    repository.write("b.txt", "later\n")
    repository.commit("Later")
    command = "ls | xargs grep -h two && test ! -e b*"
    done = inside("-P", "local", "check", "@last", command, "-o", "json")
    assert (done.status, done.json["output"]) == (0, "two"), done
    here = ("-o", "json", "--base", "HEAD")
    done = inside("-P", "local", "check", "@last", "cat b.txt", *here, cwd=repository.path)
    assert done.json["output"] == "later"
    words = ("check", "@last", "true", "--base", "nothing")
    done = inside("-P", "local", *words, cwd=repository.path)
    assert (done.status, "has no commit nothing" in done.err) == (4, True)
    repository("tag", "main", "HEAD~")
    done = inside("-P", "local", *words[:-1], "main", cwd=repository.path)
    assert (done.status, "refs/heads/main, refs/tags/main" in done.err) == (1, True)


@pytest.mark.slow
def test_a_patch_that_does_not_apply(inside: Local, home: Path, tmp_path: Path) -> None:
    need_jail()
    repository = Repository(tmp_path)
    inside("-P", "local", "create", "Write", "-g", ".", "--wait", cwd=repository.path)
    repository.write("a.txt", "two\n")
    patch = home / "changes.patch"
    patch.write_text(repository("diff").replace("-one", "-other"))
    inside("-P", "local", "artifact", "put", "@last", str(patch))
    done = inside("-P", "local", "check", "@last", "true", "-o", "json")
    assert (done.status, done.json["status"], done.json["exit"]) == (1, "error", None)
    assert "cannot be applied" in done.json["output"]


def test_usage(inside: Local) -> None:
    inside("-P", "local", "create", "Say hello", "--wait")
    assert inside("-P", "local", "check", "@last", " ").status == 2
    words = ("check", "@last", "true", "--protect", "..")
    assert "names no path" in inside("-P", "local", *words).err
    done = inside("-P", "local", "check", "@last", "true")
    assert (done.status, "--base REV" in done.err) == (2, True)


FAST, SLOW = "echo wrong > answer.txt", "while ! test -e go; do sleep 0.1; done; rm go"
PROGRAMS = {
    "fast": f"{FAST}; echo Done.",
    "slow": f"{SLOW}; echo right > answer.txt; echo Done.",
    "idle": "exec sleep {mark}",
}


@pytest.mark.slow
def test_the_first_attempt_that_passes_wins_over_the_first_that_ends(
    agents: Local, repository: Path, home: Path
) -> None:
    """Two end with the wrong answer, one works until these have failed, and one never ends."""
    mark = f"96{os.getpid()}"
    config = home / ".config/rebyte/config.toml"
    config.write_text(f"{config.read_text()}[local]\nparallel = 4\n")
    for name, script in PROGRAMS.items():
        program = home / name
        program.write_text(f"#!/bin/sh\n{script.format(mark=mark)}\n")
        program.chmod(0o755)
        config.write_text(f'{config.read_text()}[local.agents.{name}]\ncommand = ["{program}"]\n')
    words = [sys.executable, "-m", "rebyte_cli", "-P", "local", "create", "Go", "-g", "."]
    words += [each for name in ("fast", "slow", "idle", "fast") for each in ("-x", name)]
    words += ["--attempts", "4", "--tries", "1", "--wait", "-o", "json", "--check"]
    with subprocess.Popen(
        [*words, "ls | grep ^ans | xargs grep -q right"],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:

        def found(executor: str) -> list[Any]:
            rows = agents("list", "--all", "-o", "json").json["data"]
            return [row for row in rows if row["executor"] == executor]

        eventually(lambda: [row["status"] for row in found("fast")] == ["completed"] * 2)
        (winner,) = found("slow")
        code = agents("workspace", "path", winner["id"], "--running").out.strip()
        (Path(code) / "go").touch()
        out, err = process.communicate()
    assert process.returncode == 0, err
    task = json.loads(out)
    assert (task["id"], task["check"]["status"]) == (winner["id"], "passed")
    assert f"Task {winner['id']} passed first" in err
    assert {row["status"] for row in found("idle")} == {"canceled"}
    eventually(
        lambda: subprocess.run(["pgrep", "-fx", f"sleep {mark}"], check=False).returncode == 1
    )
