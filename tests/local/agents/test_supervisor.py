"""One run from its queue to its recorded end, with small programs in place of agents."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.codex import Codex
from rebyte_cli.local.agents.adapters.gemini import Gemini
from rebyte_cli.local.agents.adapters.opencode import OpenCode
from rebyte_cli.local.agents.supervision import outbox, recovery, run_lock, runs
from rebyte_cli.local.agents.supervision.by_hand import run_by_hand
from rebyte_cli.local.agents.supervision.disk_space import prune
from rebyte_cli.local.agents.workspaces import changes
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace
from rebyte_cli.local.http import Refusal
from rebyte_cli.local.store import new_id
from rebyte_cli.system import process_identity
from rebyte_cli.system.git import GitFailed
from tests.servers import Line, RawServer
from tests.waiting import eventually

from .bench import NAP, Bench, gone, kinds, need_jail, processes, script, with_mounts

SAMPLES = Path(__file__).parent / "samples"


@pytest.mark.slow
def test_a_program_gets_the_prompt_on_stdin_and_prints_the_answer(bench: Bench) -> None:
    prompt = bench.start(["sh", "-c", "cat; echo; pwd"], "Say hello")
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("succeeded", "Say hello\n/code")
    assert run.started is not None
    assert run.ended is not None
    assert run.queued <= run.started <= run.ended
    *_, result = bench.events(prompt)
    assert bench.said(prompt) == "Say hello\n/code"
    assert result.kind == "result"
    assert result.payload["status"] == "succeeded"
    assert result.payload["result"] == "Say hello\n/code"
    assert bench.artifact("answer.md") == "Say hello\n/code\n"
    assert bench.artifact("changes.patch") == ""


@pytest.mark.slow
def test_the_output_of_a_program_is_recorded_as_it_comes(bench: Bench) -> None:
    waiting = "until [ -e go ]; do sleep 0.02; done"
    prompt = bench.start(["sh", "-c", f"echo; echo one; echo; echo two; {waiting}; echo; echo 3"])
    eventually(lambda: bench.said(prompt) == "one\n\ntwo")
    assert bench.look(prompt).ended is None
    (bench.workspace().code / "go").touch()
    assert bench.wait(prompt).answer == "one\n\ntwo\n\n3"
    assert bench.said(prompt) == "one\n\ntwo\n\n3"


@pytest.mark.slow
def test_a_program_that_prints_much_does_not_wait_for_each_line(bench: Bench) -> None:
    prompt = bench.start(["sh", "-c", "i=0; while [ $i -lt 9999 ]; do i=$((i+1)); echo $i; done"])
    assert bench.wait(prompt).answer == "\n".join(map(str, range(1, 10_000)))
    run = bench.look(prompt)
    assert bench.said(prompt) == run.answer
    assert run.started is not None
    assert run.ended is not None
    assert len(bench.events(prompt)) < 50 + (run.ended - run.started) // 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "prompt", ["/help", "@/etc/hostname", "x" * 99_999 + "é", "  two\nlines\n\n", "--help"]
)
def test_the_prompt_arrives_as_it_was_typed(bench: Bench, prompt: str) -> None:
    words = ["sh", "-c", "cat > prompt; wc -m < prompt"]
    assert bench.run(words, prompt).outcome == "succeeded"
    assert (bench.workspace().code / "prompt").read_text() == prompt


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_a_program_that_fails_says_why(bench: Bench) -> None:
    prompt = bench.start(["sh", "-c", "echo working; echo 'out of credit' >&2; exit 3"])
    run = bench.wait(prompt)
    reason = "mine exited with status 3: out of credit"
    assert (run.outcome, run.answer) == ("failed", reason)
    assert bench.events(prompt)[-1].payload["result"] == reason
    assert bench.artifact("answer.md") is None


def test_a_program_that_is_not_there_any_more(bench: Bench) -> None:
    run = bench.run(["no-such-agent"])
    assert (run.outcome, run.answer) == ("failed", "no-such-agent is no longer on PATH")


@pytest.mark.slow
def test_the_wall_clock_ends_a_run(bench: Bench) -> None:
    run = bench.run(["sh", "-c", "while true; do echo x; sleep 0.05; done"], limit=0.5)
    assert (run.outcome, run.answer) == ("failed", "mine ran longer than its limit of 0.5s")


@pytest.mark.slow
def test_a_silent_agent_is_ended(bench: Bench) -> None:
    run = bench.run(["sh", "-c", f"echo x; sleep {NAP}031"], stall=0.3)
    assert (run.outcome, run.answer) == ("failed", "mine printed nothing for 0.3s")
    assert gone(f"{NAP}031")


def says(*lines: object) -> str:
    """Shell commands that print JSON lines."""
    return "".join(f"cat <<'END'\n{json.dumps(line)}\nEND\n" for line in lines)


COMMAND = {"id": "i", "type": "command_execution", "command": "make"}
TOOL_AT_WORK = {"type": "item.started", "item": COMMAND}
TOOL_DONE = {"type": "item.completed", "item": COMMAND | {"exit_code": 0}}
CODEX_DONE = {"type": "turn.completed", "usage": {}}


@pytest.mark.slow
def test_a_tool_at_work_is_no_stall(bench: Bench, tmp_path: Path) -> None:
    text = f"{says(TOOL_AT_WORK)} sleep 1.5; {says(TOOL_DONE, CODEX_DONE)}"
    agent = Codex(command=(script(tmp_path / "bin", "codex", text),))
    assert bench.run(agent, stall=0.5).outcome == "succeeded"
    text = f"{says(TOOL_AT_WORK, TOOL_DONE)} sleep {NAP}141"
    agent = Codex(command=(script(tmp_path / "bin", "codex", text),))
    assert bench.run(agent, stall=0.5).answer == "codex printed nothing for 0.5s"


@pytest.mark.slow
def test_a_tool_that_opencode_does_not_tell_of_is_no_stall(bench: Bench, tmp_path: Path) -> None:
    """It prints a call when it has ended."""
    begin, done = ({"type": kind, "part": {"reason": "stop"}} for kind in
                   ("step_start", "step_finish"))  # fmt: skip
    text = f"{says(begin)} sleep 1.5; {says(done)}"
    agent = OpenCode(command=(script(tmp_path / "bin", "opencode", text),))
    assert bench.run(agent, stall=0.5).outcome == "succeeded"
    text = f"sleep 2; {says(begin)} exec sleep {NAP}142"  # the agent itself
    agent = OpenCode(command=(script(tmp_path / "bin", "opencode", text),))
    assert bench.run(agent, stall=2.5).answer == "opencode printed nothing for 2.5s"
    agent = OpenCode(command=(script(tmp_path / "bin", "opencode", f"exec sleep {NAP}143"),))
    assert bench.run(agent, stall=0.5).answer == "opencode printed nothing for 0.5s"


@pytest.mark.slow
def test_retries_are_no_sign_of_life(bench: Bench, tmp_path: Path) -> None:
    """Codex repeated them for 37 minutes without a network."""
    again = {"type": "error", "message": "Reconnecting... 1/5 (no route to host)"}
    text = f"{says(TOOL_AT_WORK, TOOL_DONE)} while sleep 0.05; do {says(again)} done"
    agent = Codex(command=(script(tmp_path / "bin", "codex", text),))
    prompt = bench.start(agent, stall=0.5)
    reason = "codex got no answer from its model for 0.5s: no route to host"
    assert bench.wait(prompt).answer == reason
    retry = next(event for event in bench.events(prompt) if event.kind == "retry")
    assert retry.payload == {"attempt": 1, "error": "no route to host"}
    late = bench.run(agent, stall=0, limit=1)
    assert late.answer == "codex ran longer than its limit of 1s: no route to host"


@pytest.mark.slow
def test_a_retry_on_stderr_is_shown_at_once(bench: Bench, tmp_path: Path) -> None:
    text = """
    echo 'Attempt 1 failed with status 529. Retrying with backoff...' >&2
    until [ -e go ]; do sleep 0.02; done
    echo '{"type":"message","role":"assistant","content":"Done"}'
    echo '{"type":"result","status":"success"}'
    """
    prompt = bench.start(Gemini(command=(script(tmp_path / "bin", "gemini", text),)))
    eventually(lambda: kinds(bench.events(prompt)) == ["retry"])
    (bench.workspace().code / "go").touch()
    assert bench.wait(prompt).outcome == "succeeded"
    assert bench.events(prompt)[0].payload == {"attempt": 1, "error": "529"}


@pytest.mark.slow
def test_an_agent_that_closes_its_output_is_waited_for(bench: Bench) -> None:
    run = bench.run(["sh", "-c", "echo x; exec >&- ; sleep 0.3; exit 4"])
    assert run.outcome == "failed"
    assert "exited with status 4" in (run.answer or "")


@pytest.mark.slow
def test_an_agent_that_fills_the_disk_is_ended(bench: Bench) -> None:
    run = bench.run(["sh", "-c", f"echo x; sleep {NAP}035"], keep_free=10**18)
    assert run.outcome == "failed"
    assert "mine was stopped: the disk has only" in (run.answer or "")
    assert gone(f"{NAP}035")


@pytest.mark.slow
def test_a_command_by_hand_that_fills_the_disk_is_ended(bench: Bench) -> None:
    run = bench.run(["true"], keep_free=shutil.disk_usage(bench.folder).free - 10**9)
    script = f"fallocate -l 2G large; sleep {NAP}036"
    with pytest.raises(Refusal) as refused:
        run_by_hand(bench.folder, run.workspace, ["sh", "-c", script], print, settings=None)
    assert refused.value.code == "disk_full"
    assert refused.value.message.startswith("sh was stopped: the disk has only ")
    assert gone(f"{NAP}036")


@pytest.mark.slow
def test_a_patch_that_would_fill_the_disk_is_not_created(bench: Bench) -> None:
    """git copies every new file, after the agent has ended."""
    prompt = bench.start(["sh", "-c", "echo x > new; echo done"])
    bench.wait(prompt)
    full = bench.run(["sh", "-c", "echo y >> new; echo done"], keep_free=10**18)
    why = "the disk has only "
    answer = full.answer or ""
    assert "changes.patch was not created: " in answer
    assert why in answer.partition("changes.patch")[2]
    assert "+y" not in (bench.artifact("changes.patch") or "")


@pytest.mark.slow
def test_the_patch_of_an_earlier_run_goes_when_there_is_none_of_this_one(bench: Bench) -> None:
    """`apply` would take it for what the task has made."""
    bench.run(["sh", "-c", "echo x > first"])
    assert "first" in (bench.artifact("changes.patch") or "")
    run = bench.run(["sh", "-c", "rm first; head -c 2000000 /dev/zero > .gitignore"])
    assert "changes.patch was not created" in (run.answer or "")
    assert bench.artifact("changes.patch") is None


@pytest.mark.slow
def test_the_patch_goes_when_there_is_none_of_what_a_user_changed(bench: Bench) -> None:
    run = bench.run(["sh", "-c", "echo x > first"])
    workspace, said = bench.workspace(), list[str]()

    def by_hand(script: str) -> None:
        words = ["sh", "-c", script]
        assert run_by_hand(bench.folder, run.workspace, words, said.append, settings=None) == 0

    by_hand("rm first; head -c 1048577 /dev/zero > .gitignore")
    why = "./.gitignore is larger than 1 MiB"
    assert said == [f"changes.patch was not created: {why}"]
    assert (workspace.why_no_patch(run.prompt), bench.artifact("changes.patch")) == (why, None)
    by_hand("echo y > .gitignore")
    assert (workspace.why_no_patch(run.prompt), len(said)) == ("", 1)
    assert "+y" in (bench.artifact("changes.patch") or "")


@pytest.mark.slow
def test_a_command_by_hand_does_not_begin_where_the_workspace_was_pruned(bench: Bench) -> None:
    """As between its look at the folder and the lock."""
    run = bench.run(["sh", "-c", "echo work > work"])
    before = bench.artifact("changes.patch")
    rows, _ = prune(bench.folder, 0, dry_run=False, warn=print)
    assert [row["id"] for row in rows] == [run.workspace]
    with pytest.raises(Refusal) as refused:
        run_by_hand(bench.folder, run.workspace, ["true"], print, settings=None)
    assert refused.value.code == "workspace_gone"
    assert bench.artifact("changes.patch") == before
    assert Workspace(bench.folder, run.workspace).spare() == []


@pytest.mark.slow
def test_the_patch_of_an_earlier_run_goes_with_a_killed_supervisor(bench: Bench) -> None:
    bench.run(["sh", "-c", "echo x > first"])
    prompt = bench.start(["sh", "-c", f"rm first; echo on; sleep {NAP}055"])
    eventually(lambda: "on" in bench.said(prompt))
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    assert bench.wait(prompt).outcome == "failed"
    assert bench.artifact("changes.patch") == ""


@pytest.mark.slow
@pytest.mark.parametrize("jailed", [True, False])
def test_a_killed_supervisor_leaves_its_patch_to_the_next_reader(
    bench: Bench, jailed: bool
) -> None:
    bench.run(["sh", "-c", "echo 1 > first"], jail=jailed)
    work = f"echo 2 > second; git init -q; git config core.pager x; echo on; sleep {NAP}057"
    prompt = bench.start(["sh", "-c", work], jail=jailed)
    bench.until_started(prompt)
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    assert bench.wait(prompt).answer == recovery.VANISHED
    assert "+2" in (bench.artifact("changes.patch") or "")
    workspace = bench.workspace()
    alone = changes.of_runs(workspace, [prompt], [prompt], jailed=jailed) or b""
    assert b"+2" in alone
    assert "pager" not in (workspace.code / ".git/config").read_text()
    assert bench.log() == ""


@pytest.mark.slow
def test_the_next_run_keeps_the_patch_of_one_whose_supervisor_was_killed(bench: Bench) -> None:
    killed = bench.start(["sh", "-c", f"echo 1 > first; echo on; sleep {NAP}058"])
    following = bench.start(["sh", "-c", "echo 2 > second"])
    bench.until_started(killed)
    os.kill(bench.supervisor(killed), signal.SIGKILL)
    assert bench.wait(following).outcome == "succeeded"
    assert bench.look(killed).answer == recovery.VANISHED
    for prompt, name in ((killed, b"first"), (following, b"second")):
        alone = changes.of_runs(bench.workspace(), [killed, following], [prompt], jailed=True)
        assert (b"first" in (alone or b""), b"second" in (alone or b"")) == (
            name == b"first",
            name == b"second",
        )


@pytest.mark.slow
def test_a_run_that_cleans_up_after_another_leaves_nothing_of_it_to_do(bench: Bench) -> None:
    """The next command that looks would do it while the second agent works there."""
    killed = bench.start(["sh", "-c", f"echo on; sleep {NAP}061"])
    following = bench.start(["sh", "-c", f"echo on; sleep {NAP}062"])
    bench.until_started(killed)
    os.kill(bench.supervisor(killed), signal.SIGKILL)
    eventually(lambda: _has_started(bench, following), what="the second agent")
    with bench.store.read() as db:
        assert runs.has_ended(db, killed)
        assert runs.unfinished(db) == []
    bench.cancel(following)


def _has_started(bench: Bench, prompt: str) -> bool:
    """As the database says it: nothing is looked after."""
    with bench.store.read() as db:
        return runs.find(db, "prompt = ?", prompt)[0].started is not None


@pytest.mark.slow
def test_a_hanging_supervisor_that_is_canceled_leaves_its_patch(bench: Bench) -> None:
    prompt = bench.start(["sh", "-c", f"echo 1 > first; echo on; sleep {NAP}059"])
    bench.until_started(prompt)
    os.kill(bench.supervisor(prompt), signal.SIGSTOP)
    bench.cancel(prompt)
    assert bench.wait(prompt).outcome == "canceled"
    assert "first" in (bench.artifact("changes.patch") or "")


@pytest.mark.slow
def test_git_leaves_nothing_half_written_on_a_full_disk(bench: Bench) -> None:
    bench.run(["true"])
    workspace = bench.workspace()
    with (workspace.code / "large").open("wb") as file:
        file.truncate(600_000_000)  # larger than git keeps in memory

    def partial() -> list[Path]:
        return list(workspace.folder.glob("*/objects/**/tmp_*"))

    with pytest.raises(GitFailed, match="the disk is full"):
        changes.patch(
            workspace, "run", jailed=True, watch=lambda: "the disk is full" if partial() else ""
        )
    assert partial() == []


# The agent leaves room for what it changed, and for the half of a patch of that.
FULL = """
from pathlib import Path
from tests.local.agents.bench import Bench

bench = Bench(Path("state").resolve())
run = bench.run(["sh", "-c", "yes changed | head -c 9000000 > first; echo > last; echo worked"])
print(run.outcome, run.answer, sep="\\n")
print(bench.artifact("changes.patch") is None, bench.workspace().is_only_copy)
print(*bench.workspace().folder.glob("runs/*/*changes*"))
print(bench.workspace().why_no_patch(run.prompt))
"""


@pytest.mark.slow
def test_a_full_disk_keeps_no_half_of_a_patch(tmp_path: Path) -> None:
    """Cut where a file of it begins, it would pass for a whole one."""
    need_jail()
    (tmp_path / "state").mkdir()
    mounting = 'mount -t tmpfs -o size=16m,mode=700 none state || exit 9; exec "$@"'
    done = with_mounts(tmp_path, mounting, FULL)
    outcome, *answer, is_none, noted, why = done.stdout.splitlines()
    assert (outcome, is_none, noted) == ("succeeded", "True True", ""), done.stderr
    assert answer == ["worked", "", f"changes.patch was not created: {why}"]
    assert "No space left on device" in why


@pytest.mark.slow
def test_a_run_that_succeeded_survives_a_disk_without_room_for_its_last_notes(
    bench: Bench, tmp_path: Path
) -> None:
    prompt = bench.start(["sh", "-c", "echo worked; until [ -e go ]; do sleep 0.05; done"])
    bench.until_started(prompt)
    eventually(lambda: bench.said(prompt) == "worked")
    workspace = bench.workspace()
    workspace.code.rename(tmp_path / "moved")  # which cannot be made safe
    workspace.code.symlink_to(tmp_path / "moved")
    limit = 1 << 25
    os.truncate(bench.run_folder(prompt) / outbox.FILE, limit)
    resource = pytest.importorskip("resource")
    resource.prlimit(bench.supervisor(prompt), resource.RLIMIT_FSIZE, (limit, limit))
    (tmp_path / "moved/go").touch()
    run = bench.wait(prompt)
    assert run.outcome == "succeeded", bench.log()
    assert "git is not safe in the folder of the workspace" in bench.said(prompt)


@pytest.mark.slow
def test_folders_are_private_whatever_the_umask(bench: Bench) -> None:
    before = os.umask(0)
    try:
        prompt = bench.start(["true"])
    finally:
        os.umask(before)
    bench.wait(prompt)
    folder = bench.run_folder(prompt)
    for place in (folder, *list(folder.parents)[:4]):  # runs, the workspace, workspaces, the state
        assert place.stat().st_mode & 0o777 == 0o700, place


def test_case_85_a_clone_ends_with_its_supervisor(bench: Bench) -> None:
    """With the helpers of git; otherwise they would write into the next run's clone."""
    with RawServer(lambda _request: Line.wait) as server:
        url = f"http://127.0.0.1:{server.port}/never.git"
        prompt = bench.start(["true"], source=[url, None, False])
        eventually(lambda: bool(server.requests))
        os.kill(bench.supervisor(prompt), signal.SIGKILL)
        assert gone(url)
        eventually(lambda: bench.look(prompt).outcome == "failed")


def test_case_86_a_clone_ends_with_a_cancel(bench: Bench) -> None:
    with RawServer(lambda _request: Line.wait) as server:
        url = f"http://127.0.0.1:{server.port}/never.git"
        prompt = bench.start(["true"], source=[url, None, False])
        eventually(lambda: bool(server.requests))
        bench.cancel(prompt)
        assert gone(url)


@pytest.mark.slow
def test_the_patch_is_created_after_one_that_was_cut_off(bench: Bench) -> None:
    """A killed supervisor leaves git's own lock and new objects behind."""
    bench.run(["true"])
    scratch = bench.workspace().folder / "patch"
    (scratch / "objects").mkdir(parents=True)
    (scratch / "index.lock").touch()
    bench.run(["sh", "-c", "echo x > new"])
    assert "new" in (bench.artifact("changes.patch") or "")
    assert not scratch.exists()


@pytest.mark.slow
def test_case_87_a_stranger_with_the_number_of_a_supervisor_is_left_alone(bench: Bench) -> None:
    """After a reboot, numbers are given again, and the next look holds the lock for a moment."""
    prompt = bench.run(["true"]).prompt
    lock = bench.run_folder(prompt) / "lock"
    with subprocess.Popen(["sleep", f"{NAP}037"]) as stranger:
        here, boot, start = process_identity.identity(stranger.pid).split()
        for late in (f"{here} {boot} {int(start) - 1}", f"{here} other-boot {start}", here):
            lock.write_text(late)
            with lock.open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                recovery.stop(bench.folder, bench.look(prompt), seconds=0.1)
            assert stranger.poll() is None
        stranger.kill()


@pytest.mark.slow
def test_case_86_cancel_kills_the_agent_and_all_its_children(bench: Bench) -> None:
    line = f"echo x; (setsid nohup sleep {NAP}041 &) ; nohup sleep {NAP}042 &"
    line += f" trap '' TERM; sleep {NAP}043"
    prompt = bench.start(["sh", "-c", line])
    bench.until_started(prompt)
    began = time.monotonic()
    bench.cancel(prompt)
    assert time.monotonic() - began < recovery.STOP_SECONDS  # no kill was needed
    assert gone(f"{NAP}04")
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("canceled", "")
    # Its work until then is there.
    assert bench.artifact("changes.patch") == ""


@pytest.mark.slow
def test_an_agent_ends_whose_cancel_was_killed_before_it_told_anyone(bench: Bench) -> None:
    """The end is recorded, and nothing more will be done about it."""
    prompt = bench.start(["sh", "-c", f"echo begun; sleep {NAP}7; sleep {NAP}7; sleep {NAP}7"])
    bench.until_started(prompt)
    with bench.store.write() as db:
        runs.end(db, prompt, bench.store.now(), "canceled", "")
    assert bench.wait(prompt).outcome == "canceled"
    assert gone(f"{NAP}7")
    assert bench.log() == ""


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_cancel_of_a_run_whose_supervisor_hangs(bench: Bench) -> None:
    prompt = bench.start(["sh", "-c", f"echo x; (setsid sleep {NAP}045 &); sleep {NAP}046"])
    bench.until_started(prompt)
    os.kill(bench.supervisor(prompt), signal.SIGSTOP)
    bench.cancel(prompt)
    assert gone(f"{NAP}04")
    assert bench.wait(prompt).outcome == "canceled"


@pytest.mark.slow
def test_background_processes_of_an_agent_end_with_it(bench: Bench) -> None:
    run = bench.run(["sh", "-c", f"(setsid nohup sleep {NAP}051 &) ; sleep {NAP}052 & echo done"])
    assert (run.outcome, run.answer) == ("succeeded", "done")
    assert gone(f"{NAP}05")


@pytest.mark.slow
def test_cancel_of_a_run_that_waits(bench: Bench) -> None:
    first = bench.start(["sh", "-c", f"echo x; sleep {NAP}061"])
    bench.until_started(first)
    second = bench.start(["sh", "-c", "echo never"])
    bench.cancel(second)
    assert bench.look(first).ended is None
    assert bench.look(second).outcome == "canceled"
    assert bench.look(second).started is None
    bench.cancel(first)


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_case_85_a_killed_supervisor_is_a_failed_run_at_the_next_look(bench: Bench) -> None:
    prompt = bench.start(["sh", "-c", f"echo x; (setsid sleep {NAP}071 &); sleep {NAP}072"])
    run = bench.until_started(prompt)
    assert run.ended is None
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    eventually(lambda: not run_lock.is_held(bench.folder, run))
    with bench.store.read() as db:  # reading alone changes nothing
        assert runs.load(db, [prompt])[prompt].ended is None
    run = bench.wait(prompt)
    assert run.outcome == "failed"
    assert run.answer == "The run's process is gone: it was killed, or this machine was restarted"
    assert gone(f"{NAP}07")
    *before, last = kinds(bench.events(prompt))
    assert (set(before) <= {"text"}, last) == (True, "result")  # what it printed may be there


@pytest.mark.slow
def test_a_reboot_is_a_failed_run(bench: Bench) -> None:
    """After one no process is left and no lock is held; the files are as they were."""
    prompt = bench.start(["sh", "-c", f"echo x; sleep {NAP}081"])
    bench.until_started(prompt)
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    assert gone(prompt)
    (bench.run_folder(prompt) / "lock").unlink()
    assert bench.look(prompt).outcome == "failed"


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_sigterm_from_outside_is_a_failed_run(bench: Bench) -> None:
    prompt = bench.start(["sh", "-c", f"echo x; sleep {NAP}091"])
    bench.until_started(prompt)
    os.kill(bench.supervisor(prompt), signal.SIGTERM)
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("failed", "The run was stopped by a signal")
    assert gone(f"{NAP}091")


@pytest.mark.slow
def test_sigterm_ends_a_supervisor_that_cannot_record_the_end(bench: Bench) -> None:
    """As on a full disk. What it knows is recorded by the next look."""
    prompt = bench.start(["sh", "-c", "touch begun; sleep 1; echo done"])
    eventually((bench.workspace().code / "begun").exists)
    supervisor, outbox = bench.supervisor(prompt), bench.run_folder(prompt) / "unrecorded"
    database = sqlite3.connect(bench.folder / "service.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    eventually(lambda: outbox.exists() and '["end"' in outbox.read_text())

    def has_ended() -> bool:
        with suppress(ProcessLookupError):  # it may just be trying, and does that to its end
            os.kill(supervisor, signal.SIGTERM)
        return not processes(prompt)

    eventually(has_ended)
    database.execute("ROLLBACK")
    database.close()
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("succeeded", "done")


@pytest.mark.slow
def test_runs_in_one_workspace_go_one_after_another_in_order(bench: Bench) -> None:
    words = ["sh", "-c", "cat >> log; sleep 0.15; cat log"]
    prompts = [bench.start(words, f"{number} ", parallel=8) for number in range(4)]
    runs = [bench.wait(prompt) for prompt in prompts]
    assert [run.answer for run in runs] == ["0 ", "0 1 ", "0 1 2 ", "0 1 2 3 "]
    for before, after in itertools.pairwise(runs):
        assert after.started is not None
        assert before.ended is not None
        assert after.started >= before.ended


@pytest.mark.slow
def test_no_more_agents_than_slots_run_at_once(bench: Bench) -> None:
    words = ["sh", "-c", "echo x; until [ -e go ]; do sleep 0.05; done"]
    prompts = [bench.start(words, workspace=f"ws{number}", parallel=2) for number in range(5)]

    def working_now() -> list[str]:
        found = [bench.look(prompt) for prompt in prompts]
        return [run.prompt for run in found if run.started is not None and run.ended is None]

    eventually(lambda: len(working_now()) == 2)
    for _ in prompts:
        prompt = eventually(working_now)[0]
        bench.until_started(prompt)
        (bench.workspace(bench.look(prompt).workspace).code / "go").touch()
        bench.wait(prompt)
    runs = [bench.look(prompt) for prompt in prompts]
    edges = [(run.started or 0, 1) for run in runs] + [(run.ended or 0, -1) for run in runs]
    working = peak = 0
    for _, change in sorted(edges):
        working += change
        peak = max(peak, working)
    assert peak == 2


@pytest.mark.slow
def test_the_environment_is_an_allow_list(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REBYTE_API_KEY", "AWS_SECRET_ACCESS_KEY", "ANTHROPIC_API_KEY", "MY_KEY"):
        monkeypatch.setenv(name, f"value of {name}")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    answer = bench.run(["env"]).answer or ""
    assert "value of" not in answer
    assert "HTTPS_PROXY=http://127.0.0.1:29170\n" in answer
    assert "HOME=/home/agent" in answer
    shared = bench.run(["env"], network="host").answer or ""
    assert "value of" not in shared
    assert "HTTPS_PROXY=http://proxy.example:3128" in shared

    from rebyte_cli.local.agents.adapters.program import ProgramAdapter

    named = ("MY_KEY", "REBYTE_API_KEY", "REBYTE_*")
    own = ProgramAdapter(command=("env",), label="mine", extra_variables=named)
    answer = bench.run(own).answer or ""
    assert "MY_KEY=value of MY_KEY" in answer
    assert "REBYTE" not in answer  # whatever config.toml says


FAKE_CLAUDE = """
case "$*" in *--version*) echo "9.9.9 (fake)"; exit;; esac
echo "$@" >> /code/.arguments
env | grep -c ANTHROPIC >> /code/.arguments
case "$*" in *--resume*) {resume};; esac
cat > /dev/null
cat "$(dirname "$0")/{sample}.jsonl"
exit {status}
"""


def fake_claude(folder: Path, sample: str, *, resume: str = ":", status: int = 0) -> Claude:
    """A program that replays a recording of claude."""
    text = FAKE_CLAUDE.format(sample=sample, resume=resume, status=status)
    path = script(folder, "claude", text)
    (folder / f"{sample}.jsonl").write_bytes((SAMPLES / f"{sample}.jsonl").read_bytes())
    return Claude(command=(path,), extra_paths=(str(folder / f"{sample}.jsonl"),))


@pytest.mark.slow
def test_an_agent_with_a_stream(bench: Bench, tmp_path: Path) -> None:
    prompt = bench.start(fake_claude(tmp_path / "bin", "claude-write"))
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("succeeded", "Done: the scripted model wrote hello.txt.")
    events = bench.events(prompt)
    assert kinds(events) == ["init", "text", "tool_use", "tool_result", "text", "result"]
    assert events[-1].payload["cost_usd"] == 0.00035
    assert events[-1].payload["usage"]["output_tokens"] == 10
    raw = (bench.run_folder(prompt) / "output").read_bytes()
    assert raw == (SAMPLES / "claude-write.jsonl").read_bytes()
    with bench.store.read() as db:
        assert db.execute("SELECT model FROM tasks").fetchone()[0] == "claude-opus-4-8[1m]"


@pytest.mark.slow
def test_text_that_no_database_takes(bench: Bench, tmp_path: Path) -> None:
    """Models are known to emit half of a surrogate pair."""
    line = {"type": "result", "is_error": False, "result": "half \ud83d of one"}
    text = f"cat <<'END'\n{json.dumps(line)}\nEND"
    run = bench.run(Claude(command=(script(tmp_path / "bin", "claude", text),)))
    assert (run.outcome, run.answer) == ("succeeded", "half ? of one")
    assert bench.artifact("answer.md") == "half ? of one\n"


@pytest.mark.slow
def test_an_answer_without_end(bench: Bench) -> None:
    words = ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo more"]
    answer = bench.run(words).answer or ""
    assert 900_000 < len(answer) <= 1_000_000
    assert answer.endswith(" more characters]")


@pytest.mark.slow
def test_a_follow_up_resumes_the_session(bench: Bench, tmp_path: Path) -> None:
    agent = fake_claude(tmp_path / "bin", "claude-write")
    bench.run(agent, task="t")
    bench.run(agent, task="t")
    bench.run(agent, task="other")
    first, _, second, _, third, _ = (bench.workspace().code / ".arguments").read_text().splitlines()
    assert "--session-id" in first
    assert "--session-id" in third
    assert "--resume 107dce9a-f250-4a65-b15e-8ec1ea297048" in second


TOOL_USE = {"type": "tool_use", "id": "1", "name": "Bash", "input": {}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "said", ["No conversation found with session ID: x", "--resume requires a valid session ID or"]
)
def test_a_session_that_the_agent_has_lost_is_begun_again(
    bench: Bench, tmp_path: Path, said: str
) -> None:
    lost = f"echo '{said}' >&2; exit 1"
    agent = fake_claude(tmp_path / "bin", "claude-write", resume=lost)
    bench.run(agent, task="t")
    assert bench.run(agent, task="t").outcome == "succeeded"


@pytest.mark.slow
def test_no_program_lets_the_prompt_be_sent_twice_as_if_the_session_were_lost(
    bench: Bench, tmp_path: Path
) -> None:
    line = json.dumps({"type": "assistant", "message": {"content": [TOOL_USE]}})
    forged = f"echo '{line}'; echo 'No conversation found with session ID' >&2; exit 1"
    agent = fake_claude(tmp_path / "bin", "claude-write", resume=forged)
    bench.run(agent, task="t")
    run = bench.run(agent, task="t")
    kinds = [event.kind for event in bench.events(run.prompt)]
    assert (run.outcome, kinds) == ("failed", ["tool_use", "result"])


@pytest.mark.slow
def test_a_session_id_that_is_an_option_is_no_argument(bench: Bench, tmp_path: Path) -> None:
    """An agent can write into its own output, and the next run's arguments are outside its jail."""
    forged = json.dumps({"type": "thread.started", "thread_id": '-cmodel_provider="evil"'})
    text = f"echo \"$@\" >> /code/.arguments; cat > /dev/null; echo '{forged}'"
    agent = Codex(command=(script(tmp_path / "bin", "codex", text),))
    bench.run(agent, task="t")
    bench.run(agent, task="t")
    first, second = (bench.workspace().code / ".arguments").read_text().splitlines()
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("us.anthropic/claude-opus-4.5:0@2026[1m]", "us.anthropic/claude-opus-4.5:0@2026[1m]"),
        ("--settings=/code/evil.json", ""),
        ("a\nb", ""),
        ("x" * 201, ""),
        (["x"], ""),
    ],
)
def test_a_model_is_recorded_if_it_can_be_one(
    bench: Bench, tmp_path: Path, model: object, known: str
) -> None:
    """`rerun` asks for the same one, and an agent can print anything."""
    line = {"type": "system", "subtype": "init", "session_id": new_id(), "model": model}
    agent = Claude(command=(script(tmp_path / "bin", "claude", says(line)),))
    bench.wait(bench.start(agent, task="t"))
    with bench.store.read() as db:
        assert db.execute("SELECT model FROM tasks").fetchone()[0] == known


TOTALS = """
count=$(($(cat count 2>/dev/null || echo 0) + 1))
echo $count > count
echo '{"type":"thread.started","thread_id":"t"}'
printf '{"type":"turn.completed","usage":{"input_tokens":%d,"output_tokens":%d}}\\n' \\
    $((count * 10)) $((count * 5))
"""


@pytest.mark.slow
def test_a_run_counts_what_it_used_itself(bench: Bench, tmp_path: Path) -> None:
    """Codex reports the totals of the session."""
    agent = Codex(command=(script(tmp_path / "bin", "codex", TOTALS),))
    for _ in range(4):
        prompt = bench.start(agent, task="t")
        bench.wait(prompt)
        used = bench.events(prompt)[-1].payload["usage"]
        assert used == {"input_tokens": 10, "output_tokens": 5}
    (bench.workspace().code / "count").write_text("0")  # the same session, counted from zero again
    prompt = bench.start(agent, task="t")
    bench.wait(prompt)
    assert bench.events(prompt)[-1].payload["usage"] == {"input_tokens": 10, "output_tokens": 5}


@pytest.mark.slow
def test_a_run_costs_what_it_cost_itself(bench: Bench, tmp_path: Path) -> None:
    """Claude Code reports the tokens of the run, and the cost of the session."""
    session = new_id()
    for total, own in ((0.1, 0.1), (0.3, 0.2), (0.3, 0)):
        lines = [
            {"type": "system", "subtype": "init", "session_id": session},
            {"type": "result", "total_cost_usd": total, "usage": {"output_tokens": 5}},
        ]
        text = "".join(f"echo '{json.dumps(line)}'\n" for line in lines)
        prompt = bench.start(Claude(command=(script(tmp_path / "bin", "claude", text),)), task="t")
        bench.wait(prompt)
        payload = bench.events(prompt)[-1].payload
        assert (payload["usage"], payload["cost_usd"]) == ({"output_tokens": 5}, own)


@pytest.mark.slow
def test_a_rejected_key_ends_the_run_at_once(bench: Bench, tmp_path: Path) -> None:
    text = f"head -3 {tmp_path}/bin/s.jsonl; sleep {NAP}101"
    path = script(tmp_path / "bin", "claude", text)
    sample = tmp_path / "bin/s.jsonl"
    sample.write_bytes((SAMPLES / "claude-http401.jsonl").read_bytes())
    run = bench.run(Claude(command=(path,), extra_paths=(str(sample),)))
    assert run.answer == "claude failed: the API answered 401 (authentication_failed)"
    assert gone(f"{NAP}101")


@pytest.mark.usefixtures("real_supervisors")
def test_a_run_that_waits_takes_little_memory(bench: Bench) -> None:
    """A thousand may wait, so nothing of the supervisor is loaded yet."""
    first = bench.start(["sh", "-c", f"echo x; sleep {NAP}141"])
    bench.until_started(first)
    second = bench.start(["true"])
    eventually((bench.run_folder(second) / "lock").read_text)
    time.sleep(0.2)
    loaded = Path(f"/proc/{bench.supervisor(second)}/maps").read_text()
    assert "sqlite" not in loaded
    assert "rebyte_cli" not in loaded
    bench.cancel(second)
    bench.cancel(first)


# Without a jail


@pytest.mark.slow
def test_without_a_jail_the_agent_has_a_private_home_all_the_same(bench: Bench) -> None:
    run = bench.run(["sh", "-c", "pwd; echo $HOME"], jail=False)
    workspace = bench.workspace()
    assert run.answer == f"{workspace.code}\n{workspace.home}"


def test_without_a_jail_cancel_kills_the_process_group(bench: Bench) -> None:
    prompt = bench.start(["sh", "-c", f"echo x; sleep {NAP}121 & sleep {NAP}122"], jail=False)
    bench.until_started(prompt)
    bench.cancel(prompt)
    assert gone(f"{NAP}12")


@pytest.mark.slow
def test_case_85_without_a_jail_the_next_look_kills_what_outlived_its_supervisor(
    bench: Bench,
) -> None:
    prompt = bench.start(["sh", "-c", f"echo x; sleep {NAP}131 & sleep {NAP}132"], jail=False)
    bench.until_started(prompt)
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    assert bench.wait(prompt).outcome == "failed"
    assert gone(f"{NAP}13")
    assert not processes(f"{NAP}13")


LONG_CALL = {
    "type": "mcp_tool_call", "server": "s", "tool": "t", "arguments": ["x" * 60_000] * 100,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        [{"type": "item.started", "item": {"id": "a", **LONG_CALL}}] * 15,
        [{"type": "thread.started", "thread_id": f"{n}{'x' * 60_000}"} for n in range(1500)],
    ],
    ids=["calls", "sessions"],
)
def test_a_transcript_of_any_length_leaves_room_on_the_disk(
    bench: Bench, tmp_path: Path, lines: list[object]
) -> None:
    """What an agent tells is in the database, which no end of a run makes smaller."""
    (tmp_path / "told").write_text("".join(json.dumps(line) + "\n" for line in lines))
    program = script(tmp_path / "bin", "codex", f"cat {tmp_path / 'told'}")
    agent = Codex(command=(program,), extra_paths=(str(tmp_path / "told"),))
    prompt = bench.start(agent)
    bench.wait(prompt)
    payloads = [json.dumps(event.payload) for event in bench.events(prompt)]
    assert 50 << 20 < sum(map(len, payloads)) < 70 << 20
    assert any("more than 64 MB" in each for each in payloads)


@pytest.mark.slow
def test_a_transcript_of_tiny_values_takes_no_more_memory(bench: Bench, tmp_path: Path) -> None:
    """A reader has each value in memory, where it takes sixteen times its text."""
    call = {"type": "web_search", "id": "a", "query": [[]] * 20_000}
    (tmp_path / "told").write_text(f"{json.dumps({'type': 'item.started', 'item': call})}\n" * 100)
    program = script(tmp_path / "bin", "codex", f"cat {tmp_path / 'told'}")
    prompt = bench.start(Codex(command=(program,), extra_paths=(str(tmp_path / "told"),)))
    bench.wait(prompt)
    calls = [event for event in bench.events(prompt) if event.kind == "tool_use"]
    assert 50 < len(calls) < 70
    assert "more than 64 MB" in bench.said(prompt)


@pytest.mark.slow
def test_a_session_is_told_of_once(bench: Bench, tmp_path: Path) -> None:
    """Each turn of some agents says it, and any program in the sandbox can."""
    lines = "\n".join(f'{{"type": "thread.started", "thread_id": "{name}"}}' for name in "aaabbc")
    program = script(tmp_path / "bin", "codex", f"cat <<'EOF'\n{lines}\nEOF")
    prompt = bench.start(Codex(command=(program,)))
    assert bench.wait(prompt).session == "c"
    told = [event.payload for event in bench.events(prompt) if event.kind == "init"]
    assert told == [{"session_id": name} for name in "abc"]


@pytest.mark.slow
def test_a_session_that_no_database_takes(bench: Bench, tmp_path: Path) -> None:
    lines = (
        {"type": "thread.started", "thread_id": "\ud800"},
        {"type": "turn.completed", "usage": {"input_tokens": 5, "output_tokens": 2}},
    )
    text = "\n".join(map(json.dumps, lines))
    run = bench.run(
        Codex(command=(script(tmp_path / "bin", "codex", f"cat <<'EOF'\n{text}\nEOF"),))
    )
    assert (run.outcome, run.session) == ("succeeded", None)
    assert bench.log() == ""
