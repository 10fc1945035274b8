"""`rebyte workspace run`: a command where an agent works, on a terminal and in a pipe."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import outliving
from tests.conftest import COMMAND
from tests.repositories import git, small_repository
from tests.terminals import Session
from tests.waiting import eventually

from .conftest import SCRIPT, Run

TIOCSTI = "import fcntl, termios; fcntl.ioctl({}, termios.TIOCSTI, b'x')"


@pytest.fixture
def run(home: Path, with_agents: Callable[[str], Run]) -> Run:
    """The command, where an agent that runs its prompt as a script has made a workspace."""
    run = with_agents(f'[local]\ntools = ["~/bin"]\n{SCRIPT}')
    repository = small_repository(home / "repository")
    done = run("create", "echo two >> code.txt", "-x", "mine", "-g", str(repository), "--wait")
    assert done.status == 0, done.err
    return run


def session(*words: str) -> Session:
    """`workspace run @last -- WORDS` on a terminal."""
    return Session([*COMMAND, "workspace", "run", "@last", "--", *words], echo=True)


@pytest.fixture
def shell(run: Run) -> Iterator[Session]:
    """An interactive shell in the workspace, at its prompt."""
    del run
    shell = session("bash", "--norc", "-i")
    shell.until(lambda lines: lines and lines[-1].endswith(("$", "#")))
    yield shell
    shell.kill()


def users_shell() -> Session:
    """A shell outside, at its prompt."""
    shell = Session(["bash", "--norc", "-i"], echo=True, PS1="> ")
    shell.until(lambda lines: lines == [">"])
    return shell


def below(pid: int) -> set[int]:
    """The processes that a process started, and those that these did."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    started = {int(each) for each in children.read_text().split()}
    return started.union(*map(below, started))


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def code(run: Run) -> Path:
    return Path(run("workspace", "path", "@last", "--running").out.strip())


@pytest.mark.slow
def test_streams_and_status_are_those_of_the_command(run: Run) -> None:
    script = "cat; pwd; ls; echo wrong >&2; exit 7"
    done = run("workspace", "run", "@last", "--", "sh", "-c", script, stdin="given\n")
    assert (done.status, done.out, done.err) == (7, "given\n/code\ncode.txt\n", "wrong\n")
    done = run("workspace", "run", "@last", "--", "sh", "-c", "kill -TERM $$")
    assert (done.status, done.out) == (128 + signal.SIGTERM, "")


@pytest.mark.slow
def test_it_has_the_tools_that_runs_have(run: Run, home: Path) -> None:
    tool = home / "bin/mytool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    assert run("workspace", "run", "@last", "--", "mytool").out == "mine\n"


@pytest.mark.slow
def test_a_program_that_is_not_there(run: Run) -> None:
    done = run("workspace", "run", "@last", "--", "no-such-program")
    assert (done.status, "Traceback" in done.err) == (127, False), done


@pytest.mark.slow
def test_it_reaches_what_a_follow_up_would(run: Run, home: Path) -> None:
    """As of now: what the user no longer allows, or trusts, is refused."""
    config, repository = home / ".config/rebyte/config.toml", home / "repository"
    (repository / ".rebyte.toml").write_text('allow = ["repository.invalid"]\n')
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "Say how")
    assert run("local", "trust", cwd=repository).status == 0
    text = config.read_text()
    config.write_text(text.replace("[local]", '[local]\nallow = ["user.invalid"]'))
    words = ("-g", str(repository), "--allow", "task.invalid", "--wait")
    assert run("create", "true", "-x", "mine", *words).status == 0
    hosts = ("repository.invalid", "user.invalid", "task.invalid")
    script = "; ".join(f"curl -sm 9 -o /dev/null http://{host}" for host in hosts)

    def refused() -> list[str]:
        done = run("workspace", "run", "@last", "--", "sh", "-c", f"{script}; true")
        assert done.status == 0, done
        return [host for host in hosts if f"{host} was refused" in done.err]

    assert refused() == []
    config.write_text(text)
    assert run("local", "trust", "--remove", cwd=repository).status == 0
    assert refused() == ["repository.invalid", "user.invalid"]


@pytest.mark.slow
def test_much_passes_both_ways_at_once(run: Run) -> None:
    """Neither side waits for the other while both write."""
    text = "".join(f"{number}\n" for number in range(200_000))
    assert run("workspace", "run", "@last", "--", "cat", stdin=text).out == text


@pytest.mark.slow
def test_it_gets_none_of_the_users_descriptors(run: Run) -> None:
    """A file that output is added to could be read back through its descriptor."""
    links = [f"/proc/self/fd/{number}" for number in range(3)]
    found = run("workspace", "run", "@last", "--", "readlink", *links).out.split()
    assert [link.partition(":")[0] for link in found] == ["pipe"] * 3


@pytest.mark.slow
def test_what_it_changes_is_in_the_patch_and_git_is_safe_afterwards(run: Run) -> None:
    script = "echo three >> code.txt; git config core.fsmonitor 'touch /tmp/trap'"
    assert run("workspace", "run", "@last", "--", "sh", "-c", script).status == 0
    assert "+two\n+three\n" in run("diff", "@last").out
    assert "fsmonitor" not in (code(run) / ".git/config").read_text()
    assert run("workspace", "run", "@last", "--", "tail", "-1", "code.txt").out == "three\n"


@pytest.mark.slow
def test_a_terminal_of_its_own(shell: Session, run: Run) -> None:
    shell.child.sendline("tty; stty size; test -t 0 && test -t 1 && echo is-a-terminal")
    shell.until(lambda lines: "is-a-terminal" in lines)
    assert "24 80" in shell.lines
    shell.resize(100, 30)
    shell.child.sendline("stty size")
    shell.until(lambda lines: "30 100" in lines)
    shell.child.sendline("sleep 4321")
    shell.until(lambda lines: "sleep 4321" in lines[-1])
    eventually(lambda: outliving.is_at_work("4321"))  # until then, Ctrl-C is the shell's
    shell.child.sendcontrol("c")
    shell.child.sendline("echo status $?; exit 5")
    shell.until(lambda lines: "status 130" in lines)
    assert shell.finish() == 5
    assert run("workspace", "run", "@last", "--", "true").status == 0


@pytest.mark.slow
def test_ctrl_c_reaches_the_program_alone(run: Run) -> None:
    """Not bubblewrap, with which everything would end."""
    python = session("sh", "-c", "trap 'echo caught; exit 3' INT; echo ready; sleep 99 & wait")
    python.until(lambda lines: "ready" in lines)
    python.child.sendcontrol("c")
    python.until(lambda lines: "^Ccaught" in lines)
    assert python.finish() == 3


@pytest.mark.slow
def test_nothing_can_be_typed_into_the_users_terminal(run: Run) -> None:
    """Neither through its streams nor through the terminal's name."""
    tests = "; ".join(
        f'python3 -c "{TIOCSTI.format(where)}"' for where in ("0", "1", "open('/dev/tty')")
    )
    outer = users_shell()
    command = " ".join([str(COMMAND[0]), *COMMAND[1:], "workspace", "run", "@last", "--"])
    (code(run) / "push").write_text(f"{tests}; echo done\n")
    outer.child.sendline(f"{command} sh push 2>/dev/null")
    outer.until(lambda lines: any("done" in line for line in lines) and lines[-1].endswith(">"))
    outer.child.sendline("echo $((6*7))")
    outer.until(lambda lines: "42" in lines)
    assert "> echo $((6*7))" in outer.lines  # without an x before it
    outer.kill()


MESS = (
    r"printf '\033[?1049h\033[?1000;1006h\033[?2004h\033[?25l\033[?1h\033=\033]0;mine\007"
    r"\033[>1u\033(0\033[31mdrawn'; "
)
UNDONE = (
    "\x1b[?1049l", "\x1b[?1000l", "\x1b[?1006l", "\x1b[?2004l", "\x1b[?25h", "\x1b[?1l", "\x1b>",
    "\x1b[<1u", "\x1b(B", "\x1b[0m", "\x1b[23;0t",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("end", ["exit 0", "kill -9 $$", "sleep 99"])
def test_the_terminal_is_left_as_it_was(run: Run, end: str) -> None:
    import termios

    messy = session("sh", "-c", f"stty raw -echo; {MESS}{end}")
    usual = messy.child.ptyproc.fd  # type: ignore[attr-defined]
    before = termios.tcgetattr(usual)
    messy.until(lambda _: "drawn" in messy.raw)
    if end == "sleep 99":
        messy.child.kill(signal.SIGTERM)
    messy.child.send("typed")
    while messy.read(1):
        pass
    for sequence in UNDONE:
        assert messy.raw.index(sequence) > messy.raw.index("drawn"), sequence
    assert messy.raw.index("\x1b[22;0t") < messy.raw.index("mine")
    assert messy.raw.endswith("\x1b[5n")
    assert termios.tcgetattr(usual) == before
    messy.kill()


@pytest.mark.slow
def test_what_makes_a_terminal_deaf_is_undone_first(run: Run) -> None:
    """A sequence that does not end, the modes of older terminals, and a printer get the rest."""
    deaf = session("printf", r"\033[12l\033[?8;25l\033]11;#f00\033\\\033[?2lhidden\033[3")
    assert deaf.finish() == 0
    undone = deaf.raw.partition("hidden\x1b[3")[2]
    assert undone.startswith("\x18\x1b\\\x1b<\x1b\x03\x1b[4i")
    wanted = ("\x1b[12h", "\x1b[?2h", "\x1b[?8h", "\x1b[?25h", "\x1b]8;;\x1b\\", "\x1b]111\x1b\\")
    assert [each for each in wanted if each not in undone] == []


@pytest.mark.slow
@pytest.mark.parametrize("question", [r"11;?\033\\", r"4;1;?\007", r"4;1;?;2;?\033\\"])
def test_a_program_that_asks_for_colours_resets_none(run: Run, question: str) -> None:
    """They may be those that the user's shell has set."""
    asking = session("printf", rf"\033]{question}shown;1")
    assert asking.finish() == 0
    assert "\x1b]111" not in asking.raw


@contextlib.contextmanager
def in_tmux(*words: str, then: str) -> Iterator[Callable[..., str]]:
    """`workspace run @last -- WORDS`, and then a shell's script, in tmux; yields a way to call it.

    It is as a user has it who copies and opens tabs with it.
    """
    command = shlex.join([*COMMAND, "workspace", "run", "@last", "--", *words])
    with tempfile.TemporaryDirectory() as folder:  # a short name, as that of a socket has to be

        def tmux(*words: str) -> str:
            line = ["tmux", "-f", "/dev/null", "-S", f"{folder}/tmux", *words]
            return subprocess.run(line, capture_output=True, text=True, check=True).stdout

        tmux("new-session", "-d", "-x", "80", "-y", "24", "sleep 999")
        try:
            tmux("set", "-s", "set-clipboard", "on")
            tmux("set-buffer", "mine")
            tmux("respawn-pane", "-k", f"{command}; {then}; sleep 99")
            yield tmux
        finally:
            tmux("kill-session")


@pytest.mark.slow
def test_tmux_is_left_as_it_was_though_a_string_does_not_end(run: Run, tmp_path: Path) -> None:
    del run
    mess = r"\033[?1003h\033[?1006h\033[?25l\033Px"
    with in_tmux("printf", mess, then=f"echo left > {tmp_path}/left") as tmux:
        eventually((tmp_path / "left").exists)
        flags = "#{mouse_any_flag} #{mouse_sgr_flag} #{cursor_flag}"
        eventually(lambda: tmux("display-message", "-p", flags) == "0 0 1\n", seconds=5)


@pytest.mark.slow
def test_tab_stops_are_set_again(run: Run) -> None:
    del run
    with in_tmux("printf", r"\033[3g\033[m", then=r"printf 'a\tb\n'") as tmux:
        eventually(lambda: "a       b\n" in tmux("capture-pane", "-p"), seconds=20)


@pytest.mark.slow
def test_a_program_neither_moves_the_next_tab_nor_has_the_clipboard(run: Run) -> None:
    """OSC 7 and 52, which tmux obeys; another would also be told by passthrough and by halves."""
    theirs = r"\033]7;/etc\007\033]52;c;ZXZpbA==\007\302\2357;/etc\007\033]0;a\033]7;/etc\007"
    asks = rf"stty raw -echo min 0 time 20; printf '{theirs}\033]52;c;?\007'; head -c 9 > answer"
    with in_tmux(
        "sh", "-c", f"{asks}; printf '\033]0;title\007done'; sleep 99", then="true"
    ) as tmux:
        eventually(lambda: "done" in tmux("capture-pane", "-p"), seconds=20)
        assert tmux("display-message", "-p", "#{pane_path} #{pane_title}") == " title\n"
        assert tmux("show-buffer") == "mine"
        assert (code(run) / "answer").read_bytes() == b""


@pytest.mark.slow
def test_plain_output_stays_plain(run: Run) -> None:
    plain = session("echo", "hello")
    assert plain.finish() == 0
    assert plain.raw == "hello\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["", " >&2"])
def test_a_terminal_that_only_shows_gets_no_control_sequences(run: Run, stream: str) -> None:
    """Without its input, as in a `while read` loop, nothing could put it right again."""
    del run
    sent = r"printf 'caf\303\251\r\n\033[?1003h\033]0;title\007\302\2332Jend\033[c\n'" + stream
    words = shlex.join([*COMMAND, "workspace", "run", "@last", "--", "sh", "-c", sent])
    shell = Session(["sh", "-c", f"{words} </dev/null"])
    assert shell.finish() == 0
    assert shell.lines == ["café", r"\x1b[?1003h\x1b]0;title\x07\x9b2Jend\x1b[c"]
    assert "\x1b" not in shell.raw


@pytest.mark.slow
def test_what_a_terminal_answers_too_late_is_thrown_away(run: Run) -> None:
    """A title, or the place of the cursor, would be typed into the user's shell."""
    outer = users_shell()
    command = " ".join([*COMMAND, "workspace", "run", "@last", "--", "printf", r"'a\033[21t'"])
    outer.child.sendline(command)
    outer.until(lambda _: "\x1b[5n" in outer.raw)
    outer.child.send("\x1b]ltouch /tmp/typed\x1b\\\x1b[0n")
    outer.until(lambda lines: lines[-1].endswith(">"))
    outer.child.sendline("echo $((6*7))")
    outer.until(lambda lines: "42" in lines)
    assert "typed" not in " ".join(outer.lines)
    outer.kill()


@pytest.mark.slow
def test_a_program_cannot_end_the_wait_for_answers(run: Run) -> None:
    """It asks what is asked at the end, and then more, on a terminal that is slow to answer."""
    asks = r"printf '\033[5n'; for i in 1 2 3; do printf '\033[6n\005'; done"
    outer = users_shell()
    outer.child.sendline(
        shlex.join([*COMMAND, "workspace", "run", "@last", "--", "sh", "-c", asks])
    )
    outer.until(lambda _: outer.raw.count("\x1b[5n") == 2)
    for answer in ("\x1b[0n", "\x1b[1;1R", "touch /tmp/typed\r", "\x1b[1;1R", "\x1b[0n"):
        outer.child.send(answer)
        time.sleep(0.1)
    outer.until(lambda lines: lines[-1].endswith(">"))
    outer.child.sendline("echo $((6*7))")
    outer.until(lambda lines: "42" in lines)
    assert "typed" not in " ".join(outer.lines)
    outer.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    "spelled",
    [
        *(r"\033[?001003h", r"\033[?10\0003h", r"\302\233?1003h", r"\033[?0001049h", r"\005"),
        *(r"\033[?1049s\033[?1049l\033[?1049r", rf"\033[?{'0' * 3000}1049h"),
    ],
)
def test_no_spelling_leaves_a_mode_behind(run: Run, spelled: str) -> None:
    odd = session("printf", spelled)
    odd.finish()
    assert "\x1b[?1003l" in odd.raw
    assert ("\x1b[?1049l" in odd.raw) == ("1049" in spelled)
    assert odd.raw.endswith("\x1b[5n")


@pytest.mark.slow
def test_a_sequence_in_two_pieces_leaves_no_mode_behind(run: Run) -> None:
    odd = session("sh", "-c", r"printf '\302'; sleep 1; printf '\233?1049h'; sleep 1; printf x")
    odd.finish()
    assert "\x1b[?1049l" in odd.raw


@pytest.mark.slow
def test_a_program_that_suspends_itself_suspends_rebyte(run: Run) -> None:
    """No shell inside could resume it."""
    outer = users_shell()
    script = "'kill -STOP $$; echo continued'"
    outer.child.sendline(
        " ".join([*COMMAND, "workspace", "run", "@last", "--", "sh", "-c", script])
    )
    outer.until(lambda lines: any("Stopped" in line for line in lines) and lines[-1].endswith(">"))
    outer.child.sendline("fg")
    outer.until(lambda lines: "continued" in lines and lines[-1].endswith(">"))
    outer.kill()


@pytest.mark.slow
def test_what_runs_in_the_background_is_watched_while_a_program_is_suspended(run: Run) -> None:
    """The program decides when it is suspended, so it may have started anything before."""
    outer = users_shell()
    script = "'(sleep 4324; echo) & sleep 4325 & kill -STOP $$; wait; echo continued'"
    outer.child.sendline(
        " ".join([*COMMAND, "workspace", "run", "@last", "--", "sh", "-c", script])
    )
    outer.until(lambda lines: any("Stopped" in line for line in lines) and lines[-1].endswith(">"))
    assert outliving.is_at_work("4325")
    (gateway,) = (each for each in below(outer.child.pid) if b"local.gateway" in command_line(each))
    os.kill(gateway, signal.SIGKILL)
    eventually(lambda: not outliving.is_at_work("4325"), seconds=30)
    outer.child.sendline("fg; echo status $?")
    outer.until(lambda lines: "status 1" in lines and lines[-1].endswith(">"))
    assert "the gateway to the network was killed by signal 9" in outer.raw
    outer.child.sendline("stty -a")
    outer.until(lambda lines: any(" icanon" in line for line in lines))
    outer.kill()
    assert run("workspace", "run", "@last", "--", "true").status == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seconds"), [("TERM", "4326"), ("KILL", "4327")])
def test_a_suspended_command_ends_with_its_process(run: Run, name: str, seconds: str) -> None:
    outer = users_shell()
    script = f"'sleep {seconds} & kill -STOP $$'"
    outer.child.sendline(
        " ".join([*COMMAND, "workspace", "run", "@last", "--", "sh", "-c", script])
    )
    outer.until(lambda lines: any("Stopped" in line for line in lines) and lines[-1].endswith(">"))
    assert outliving.is_at_work(seconds)
    outer.child.sendline(f"kill -{name} %%; wait %%; echo it has ended")
    eventually(lambda: not outliving.is_at_work(seconds), seconds=30)
    outer.until(lambda lines: "it has ended" in lines)
    eventually(lambda: run("workspace", "run", "@last", "--", "true").status == 0)
    outer.kill()


@pytest.mark.slow
def test_it_ends_with_the_users_terminal(shell: Session, run: Run) -> None:
    shell.child.sendline("sleep 4322")
    shell.until(lambda lines: "sleep 4322" in lines[-1])
    shell.child.ptyproc.fileobj.close()  # type: ignore[attr-defined]  # pexpect is untyped there
    eventually(lambda: run("workspace", "run", "@last", "--", "true").status == 0)


@pytest.mark.slow
def test_an_agent_and_a_command_do_not_work_at_the_same_time(shell: Session, run: Run) -> None:
    done = run("workspace", "run", "@last", "--", "true")
    assert done.status == 1
    assert "an agent or a command is at work in workspace" in done.err
    assert run("workspace", "path", "@last").status == 1
    run("follow-up", "@last", "touch go; until [ -e end ]; do sleep 0.05; done")
    assert run("get", "@last").json["queue"]["position"] == 1
    assert not (code(run) / "go").exists()
    shell.child.sendline("exit")
    assert shell.finish() == 0
    eventually((code(run) / "go").exists)
    done = run("workspace", "run", "@last", "--", "true")
    assert done.status == 1
    assert "is at work" in done.err
    (code(run) / "end").touch()
    assert run("wait", "@last").status == 0


@pytest.mark.slow
def test_where_there_is_no_sandbox(run: Run) -> None:
    run("create", "true", "-x", "mine", "--no-jail", "--wait")
    done = run("workspace", "run", "@last", "--", "true")
    assert (done.status, done.out) == (1, "")
    assert "are not in a sandbox" in done.err
    assert f"Run it in {code(run)}" in done.err
    run("create", "simulated", "--wait")
    done = run("workspace", "run", "@last", "--", "true")
    assert done.status == 4
    assert "a run without -x is simulated" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGHUP"])
def test_what_a_command_changed_before_it_was_killed_is_in_the_patch(run: Run, name: str) -> None:
    script = "echo new > new.txt; echo done; sleep 60"
    words = [*COMMAND, "workspace", "run", "@last", "--", "sh", "-c", script]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    with process, process.stdout:
        assert process.stdout.readline() == b"done\n"
        process.send_signal(signal.Signals[name])
    patch = run("diff", "@last").out
    assert "+++ b/new.txt" in patch
    assert "+two" in patch


ENDLESS = "while :; do date +%N > alive; sleep 0.05; done & yes"


def is_alive(run: Run) -> bool:
    """Whether what ENDLESS leaves in the background is at work."""
    seen = (code(run) / "alive").read_text()
    time.sleep(1)
    return (code(run) / "alive").read_text() != seen


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["terminal", "terminal that only shows", "pipe"])
def test_what_nothing_reads_does_not_end_the_watch(run: Run, reader: str) -> None:
    """A pager on its first page, or a window that is frozen."""
    words = [*COMMAND, "workspace", "run", "@last", "--", "sh", "-c", ENDLESS]
    with contextlib.ExitStack() as stack:
        if reader == "pipe":
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            stack.enter_context(process)
            pid = process.pid
        else:
            inputs = "" if reader == "terminal" else "</dev/null"
            frozen = Session(["sh", "-c", f"exec {shlex.join(words)} {inputs}"])
            stack.callback(frozen.kill)
            pid = frozen.child.pid
        eventually((code(run) / "alive").exists)
        time.sleep(1)  # until all that holds output is full
        (gateway,) = (each for each in below(pid) if b"local.gateway" in command_line(each))
        os.kill(gateway, signal.SIGKILL)
        eventually(lambda: not is_alive(run), seconds=10)
        if reader == "pipe":
            output, errors = process.communicate()
            assert set(output.split()) <= {b"y"}
            assert b"the gateway to the network was killed by signal 9" in errors


@pytest.mark.slow
def test_a_command_on_a_frozen_terminal_ends_with_its_process(run: Run) -> None:
    """Also if there is something to tell, here that the patch would be too large."""
    frozen = session("sh", "-c", f"yes | head -c 70000000 > large; {ENDLESS}")
    eventually((code(run) / "alive").exists)
    time.sleep(1)
    frozen.child.kill(signal.SIGKILL)
    eventually(lambda: run("workspace", "run", "@last", "--", "true").status == 0, seconds=20)
    assert not is_alive(run)
    frozen.kill()


@pytest.mark.slow
@pytest.mark.parametrize("is_terminal", [True, False])
def test_all_is_written_to_a_reader_that_pauses(run: Run, is_terminal: bool) -> None:
    """What is left when the program has ended, too."""
    script = "seq 30000; touch ended"
    if is_terminal:
        slow = session("sh", "-c", script)
        time.sleep(4)
        while slow.read(1):
            pass
        assert slow.raw.split() == [str(number) for number in range(1, 30_001)]
        return
    words = [*COMMAND, "workspace", "run", "@last", "--", "sh", "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        time.sleep(4)
        assert process.poll() is None
        output, _ = process.communicate()
    assert output.split() == [b"%d" % number for number in range(1, 30_001)]
    assert process.returncode == 0


@pytest.mark.slow
def test_nothing_outlives_a_command_that_is_killed(run: Run) -> None:
    mark = f"95{os.getpid()}"
    words = [*COMMAND, "workspace", "run", "@last", "--", "sh", "-c", outliving.command(mark)]
    outliving.must_die_with(words, mark)


@pytest.mark.slow
@pytest.mark.parametrize("on_terminal", [True, False])
def test_it_ends_though_the_sandbox_is_stopped_from_inside(run: Run, on_terminal: bool) -> None:
    (code(run) / "stop.py").write_text(outliving.STOP)
    words = ["python3", "-I", "stop.py"]
    if on_terminal:
        stopped = session(*words)
        output = " ".join(
            stopped.until(lambda lines: lines and lines[-1].endswith(("alive", "refused")))
        )
    else:
        done = run("workspace", "run", "@last", "--", *words)
        output = done.out + done.err
    if "refused" in output:
        pytest.skip("this kernel lets no program trace another that it did not start")
    assert "a program in its background keeps the sandbox alive" in " ".join(output.split())


@pytest.mark.slow
def test_it_ends_with_a_shell_that_is_killed(run: Run) -> None:
    """Though its terminal stays open."""
    shell = users_shell()
    shell.child.sendline(shlex.join([*COMMAND, "workspace", "run", "@last", "--", "sleep", "4324"]))
    eventually(lambda: any(b"4324" in command_line(pid) for pid in below(shell.child.pid)))
    os.kill(shell.child.pid, signal.SIGKILL)
    eventually(lambda: run("workspace", "run", "@last", "--", "true").status == 0)
    shell.child.close(force=True)
