"""What an agent leaves in its repository for the git of a user who works in the folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import pytest

from rebyte_cli.local.agents import workspace_access
from rebyte_cli.local.agents.workspaces import disarm as disarming
from rebyte_cli.local.agents.workspaces.disarm import disarm
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace, WorkspaceSource
from rebyte_cli.system.git import GitFailed
from tests.repositories import FORGE, git
from tests.waiting import eventually

from .bench import PATIENCE, Bench, need_jail, script
from .test_disarm import begin
from .test_seccomp import PYTHON

pytestmark = pytest.mark.skipif(not PYTHON, reason="no Python of the system")


class Hostile:
    """A repository of the user's, agents that work on it, and a program that leaves a mark."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.source = folder / "source"
        self.mark = folder / "ran"
        self.program = script(folder / "trap", "pwn", f'echo "$0 $*" >> "{self.mark}"\n')
        self.source.mkdir()
        git(self.source, "init", "-q", "-b", "main")
        git(self.source, "config", "user.name", "x")
        git(self.source, "config", "user.email", "x@example.com")
        for name in ("a", "b"):
            (self.source / name).write_text(f"{name}\n")
        self.commit()
        self.code = bench.workspace().code

    def commit(self) -> None:
        git(self.source, "add", "-f", "-A")
        git(self.source, "commit", "-q", "-m", "Start")

    def agent(self, text: str, workspace: str = "ws") -> Path:
        """Run a shell script as the agent, with an author for its commits; where it worked."""
        words = [
            "sh",
            "-c",
            "set -e; git config user.name x; git config user.email x@example.com\n",
        ]
        words[-1] += text
        source = [str(self.source), None, False]
        run = self.bench.run(words, workspace=workspace, source=source)
        assert run.outcome == "succeeded", (run, self.bench.said(run.prompt))
        return self.bench.workspace(workspace).code

    def forge(self, *entries: str, index: str = ".git/index") -> None:
        """The agent puts entries into an index; see FORGE."""
        words = " ".join(f"'{entry}'" for entry in entries)
        self.agent(
            f"cat > /tmp/forge.py <<'END'\n{FORGE}END\n{PYTHON} /tmp/forge.py {index} {words}"
        )

    def user(self, *words: str) -> str:
        """What the user sees who types a git command there, whether it works or not."""
        done = subprocess.run(
            ["git", *words], cwd=self.code, capture_output=True, text=True, check=False, timeout=60
        )
        assert not self.mark.exists(), self.mark.read_text()
        return done.stdout + done.stderr


@pytest.fixture
def hostile(bench: Bench, tmp_path: Path, user_home: Path) -> Hostile:
    need_jail()
    return Hostile(bench, tmp_path)


@pytest.mark.slow
def test_a_remote_is_no_option_of_git(hostile: Hostile) -> None:
    """`git fetch --all` starts one more git for each name."""
    hostile.agent(
        f"""cat >> .git/config <<'END'
[remote "--upload-pack={hostile.program}; git-upload-pack"]
	url = .
	fetch = +refs/heads/*:refs/remotes/x/*
[remote.--upload-pack]
	url = .
[remote "x"]
	url = --upload-pack={hostile.program}
[remote "fork"]
	url = https://example.com/fork.git
	fetch = --upload-pack={hostile.program}
	fetch = +refs/heads/*:refs/remotes/fork/*
[branch "--exec"]
	remote = fork
	merge = refs/heads/main
[branch "topic/ü#1"]
	remote = fork
	merge = refs/heads/main
[branch "main"]
	merge = --exec
[submodule "-x"]
	url = https://example.com/x.git
END"""
    )
    text = (hostile.code / ".git/config").read_text()
    assert "--" not in text
    assert "-x" not in text
    for kept in ("https://example.com/fork.git", "refs/remotes/fork/*", '[branch "topic/ü#1"]'):
        assert kept in text
    git(hostile.code, "remote", "remove", "fork")  # there is no network
    hostile.user("fetch", "--all")
    hostile.user("remote", "update")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arm",
    [
        "git config remote.origin.url ./evil.git",
        "git config remote.origin.url /proc/self/cwd/evil.git",
        "git config remote.origin.url localhost:{there}",
        "git config remote.origin.url {there}",
        "git config --add remote.origin.pushurl evil.git",
        "git config --add remote.origin.url evil.git",
        "git config --unset remote.origin.url; git config branch.main.remote evil.git",
        "git remote remove origin; git config remote.evil.git.fetch refs/heads/*:refs/x/*;"
        " git config branch.main.remote evil.git; git config branch.main.merge refs/heads/main",
    ],
)
def test_a_push_runs_no_hook_of_a_repository_that_is_committed(
    hostile: Hostile, tmp_path: Path, arm: str
) -> None:
    """Which is the user's own file, and stays as it is; `there` is the clone that it comes from."""
    evil = hostile.source / "evil.git"
    git(hostile.source, "init", "-q", "--bare", "--template=", "evil.git")
    git(hostile.source, "push", "-q", str(evil), "main")
    hook = script(evil / "hooks", "pre-receive", hostile.program)
    assert os.access(hook, os.X_OK)
    (evil / "refs/keep").touch()
    hostile.commit()
    ssh = script(tmp_path, "ssh", f'touch "{hostile.mark}"\n')
    hostile.agent(f"{arm.format(there=evil)}; echo work > a; git commit -qam work")
    assert (hostile.code / "evil.git/hooks/pre-receive").exists()
    done = subprocess.run(
        ["git", "-c", "push.default=current", "push"], cwd=hostile.code, capture_output=True,
        text=True, check=False, env={**os.environ, "GIT_SSH_COMMAND": ssh},
    )  # fmt: skip
    assert not hostile.mark.exists(), (done, (hostile.code / ".git/config").read_text())
    assert git(hostile.code, "remote", "get-url", "--all", "origin").split() == [
        str(hostile.source)
    ]


@pytest.mark.slow
def test_the_address_of_the_clone_stays(hostile: Hostile) -> None:
    """Whatever it is, and in later runs too; one with a command is none."""
    urls = ("git@example.com:acme/shop.git", "ssh://example.com/x y", "/srv/git/shop.git")
    for number, url in enumerate(urls):
        git(hostile.source, "config", "remote.origin.url", url)
        for _ in range(2):
            text = "git config remote.origin.url ./x; git config remote.b.url '/srv/x'"
            code = hostile.agent(text, f"ws{number}")
            assert git(code, "remote", "get-url", "origin").strip() == url
            assert git(code, "remote").split() == ["origin"]
    git(hostile.source, "config", "remote.origin.url", "../up.git")
    code = hostile.agent("true", "relative")
    there = hostile.source.parent / "up.git"
    assert git(code, "remote", "get-url", "origin").strip() == str(there)
    git(hostile.source, "config", "remote.origin.url", "ext::sh -c id")
    assert git(hostile.agent("true", "command"), "remote").split() == []


@pytest.mark.slow
def test_a_forged_index_leads_nowhere(hostile: Hostile, tmp_path: Path) -> None:
    up = "../" * (len(hostile.code.relative_to(tmp_path).parts))
    victim, mine = tmp_path / "victim", tmp_path / "mine"
    mine.write_text("mine")
    hostile.forge(
        f".git/hooks/post-checkout|100755|#!/bin/sh\n{hostile.program}\n",
        f"{up}victim|100644|written",
        f"{up}mine|100644|theirs",
    )
    for words in (("checkout", "."), ("restore", "."), ("checkout-index", "-a", "-f")):
        hostile.user(*words)
    hostile.user("checkout", "-b", "x")
    assert not (hostile.code / ".git/hooks").exists()
    assert not victim.exists()
    assert hostile.user("status", "--porcelain") == ""
    hostile.user("rm", "-r", "-f", ".")
    assert mine.read_text() == "mine"


@pytest.mark.slow
def test_an_index_that_stands_for_much_does_not_fill_the_disk(
    tmp_path: Path, user_home: Path
) -> None:
    need_jail()
    small, source = tmp_path / "small", begin(tmp_path / "source").parent
    small.mkdir()
    options = ["-o", "size=200m", "-t", "tmpfs"]
    if subprocess.run(["mount", *options, "x", small], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        workspace = Workspace(small / "state", "ws")
        workspace.prepare(WorkspaceSource(str(source), None, False), ())
        blob = git(workspace.code, "rev-parse", "HEAD:a").strip()
        folder = "/".join(["x" * 200] * 18)  # in version 4, what names have in common counts once
        listed = tmp_path / "listed"
        listed.write_text("".join(f"100644 {blob}\t{folder}/{n:06}\n" for n in range(100_000)))
        words = ["git", "-c", "index.version=4", "update-index", "--index-info"]
        with listed.open() as lines:
            (workspace.code / ".git/index").unlink()
            subprocess.run(words, cwd=workspace.code, stdin=lines, check=True)
        lowest, done = shutil.disk_usage(small).free, Event()

        def look() -> None:
            nonlocal lowest
            while not done.wait(0.01):
                lowest = min(lowest, shutil.disk_usage(small).free)

        thread = Thread(target=look)
        thread.start()
        disarm(workspace)
        done.set()
        thread.join()
        assert lowest > 10e6
        left = {path.name for path in (workspace.code / ".git").glob("index*")}
        assert left == {"index.unchecked"}
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.slow
def test_what_is_staged_stays_staged(hostile: Hostile) -> None:
    """Names that git takes are put into an index that git itself has written."""
    hostile.agent(
        "echo 2 > a; git add a; git rm -q --cached b; printf x > \"$(printf 'n\\nü')\"; git add n*;"
        " chmod +x a; git update-index --assume-unchanged a"
    )
    shown = 'A  "n\\n\\303\\274"\nAM a\nD  b\n?? b\n'
    expected = sorted(shown.replace("AM a", "MM a").splitlines())
    assert sorted(hostile.user("status", "--porcelain").splitlines()) == expected
    assert workspace_access.disarmed(hostile.bench.folder, "ws")
    assert sorted(hostile.user("status", "--porcelain").splitlines()) == expected
    assert "mine" in hostile.user("-c", "user.name=x", "-c", "user.email=x", "commit", "-m", "mine")


@pytest.mark.slow
def test_two_that_look_at_once_lose_nothing(hostile: Hostile) -> None:
    hostile.agent("echo 2 > a; git add a; git rm -q --cached b")
    with ThreadPoolExecutor(4) as pool:
        looks = [
            pool.submit(workspace_access.disarmed, hostile.bench.folder, "ws") for _ in range(8)
        ]
    assert all(look.result() for look in looks)
    assert hostile.user("status", "--porcelain") == "M  a\nD  b\n?? b\n"


@pytest.mark.slow
def test_a_conflict_of_the_agent_stays_one(hostile: Hostile) -> None:
    hostile.agent(
        "git checkout -qb x; echo x > a; git commit -qam x; git checkout -q main; echo y > a;"
        " git commit -qam y; git merge x || true"
    )
    assert hostile.user("status", "--porcelain") == "UU a\n"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inner", "linked", "module", "home", "split", "broken"])
def test_other_indexes_are_as_safe(hostile: Hostile, kind: str) -> None:
    """Of repositories below, of submodules and of linked work trees; parts of a split one, too."""
    entry = f"'.git/hooks/post-checkout|100755|#!/bin/sh\n{hostile.program}\n'"
    forge = f"cat > /tmp/forge.py <<'END'\n{FORGE}END\n{PYTHON} /tmp/forge.py"
    begin = "git init -q; echo a > a; git add a; git commit -qm a"
    steps = {
        "inner": f"mkdir x; cd x; {begin}; {forge} .git/index {entry}",
        "home": f"mkdir ~/x; cd ~/x; {begin}; {forge} .git/index {entry}",
        "linked": f"git worktree add -q x; cd x; {forge} ../.git/worktrees/x/index {entry}",
        "module": f"mkdir x; cd x; {begin}; mkdir ../.git/modules; mv .git ../.git/modules/x;"
        f" echo 'gitdir: ../.git/modules/x' > .git; {forge} ../.git/modules/x/index {entry}",
        "split": f"{forge} .git/index {entry}; git update-index --split-index; ls .git/sharedi*",
        "broken": "echo nonsense > .git/index",
    }  # fmt: skip
    author = (
        "export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x"
    )
    hostile.agent(f"{author}; {steps[kind]}")
    top = hostile.code
    place, repository = {
        "inner": (top / "x", top / "x/.git"),
        "linked": (top / "x", top / ".git/worktrees/x"),
        "module": (top / "x", top / ".git/modules/x"),
        "home": (top.parent / "home/x", top.parent / "home/x/.git"),
    }.get(kind, (top, top / ".git"))
    where = ("--git-dir", str(repository), "--work-tree", str(place))
    listed = hostile.user(*where, "ls-files").splitlines()
    assert listed == (["a"] if kind in ("inner", "home", "module") else ["a", "b"])
    hostile.user(*where, "checkout", ".")
    hostile.user(*where, "checkout", "-b", "y")
    assert not list(repository.glob("sharedindex*"))


@pytest.mark.slow
def test_of_a_forged_index_the_rest_stays(hostile: Hostile) -> None:
    """And what is in the place of the file that it becomes for a moment is not believed."""
    hostile.forge(".git/hooks/post-checkout|100755|x", "c|100644|c")
    assert hostile.user("status", "--porcelain") == "AD c\n"
    (hostile.code / ".git" / disarming.UNCHECKED).write_text("x")
    assert workspace_access.disarmed(hostile.bench.folder, "ws")
    assert hostile.user("status", "--porcelain") == "AD c\n"
    assert list(hostile.code.glob(".git/index*")) == [hostile.code / ".git/index"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["core.fsmonitor", "alias.st", "gpg.program", "repository"])
def test_git_in_the_jail_arms_nothing(hostile: Hostile, name: str) -> None:
    """The settings of the private home are none of it, and what it writes is disarmed."""
    arm = f"printf '[core]\\n\\tfsmonitor = \"{hostile.program}; false\"\\n' >> /code/.git/config"
    hostile.agent(
        f"cat > /code/helper <<'END'\n#!/bin/sh\n{arm}\nEND\nchmod +x /code/helper; echo c > a\n"
        f"git config --global core.fsmonitor /code/helper; "
        "git config --global alias.st !/code/helper;"
        " git config --global log.showSignature true; git config --global gpg.program /code/helper;"
        " mkdir -p ~/.config/git; cp ~/.gitconfig ~/.config/git/config"
    )
    word = {"alias.st": "st", "gpg.program": "log"}.get(name, "status")
    words = ["-c", "core.fsmonitor=/code/helper", word] if name == "repository" else [word]
    try:
        output = b"".join(workspace_access.git_inside(hostile.bench.folder, "ws", words))
        assert b"helper" in output or word == "log"
    except GitFailed:
        assert word == "st"
    assert hostile.program not in (hostile.code / ".git/config").read_text()
    assert " M a" in hostile.user("status", "--porcelain")


@pytest.mark.slow
def test_git_in_the_jail_that_is_not_read_to_its_end_arms_nothing(hostile: Hostile) -> None:
    hostile.agent("echo c > a")
    words = [
        "-c",
        f"alias.x=!git config core.fsmonitor '{hostile.program}'; echo 1; sleep 600",
        "x",
    ]
    lines = workspace_access.git_inside(hostile.bench.folder, "ws", words)
    assert next(lines) == b"1\n"
    lines.close()  # type: ignore[attr-defined]
    hostile.user("status")


# It waits for a file, arms the repository when that is there, and then hangs.
HANGING = r"""cat > trap <<'END'
#!/bin/sh
touch /code/hanging "$HOME/seen" /home/agent/written
until test -e /code/go; do sleep 0.05; done
mkdir -p /code/.git/hooks; touch /code/.git/hooks/post-checkout /code/armed
until test -e /code/end; do sleep 0.05; done
END
chmod +x trap; git config core.fsmonitor /code/trap
"""


class HangingGit:
    """`workspace git` in a repository whose agent, which is at work, makes it hang."""

    def __init__(self, hostile: Hostile) -> None:
        self.hostile, self.code = hostile, hostile.code
        self.pool = ThreadPoolExecutor(2)
        script = f"{HANGING} echo here; until test -e /code/leave; do sleep 0.05; done"
        self.run = hostile.bench.start(
            ["sh", "-c", script], source=[str(hostile.source), None, False]
        )
        hostile.bench.until_started(self.run)
        self.git = self.pool.submit(self.look)
        self.until("hanging")

    def look(self) -> list[bytes]:
        return list(workspace_access.git_inside(self.hostile.bench.folder, "ws", ["status"]))

    def until(self, name: str) -> None:
        """Wait for a file in the folder of the agent, or for the end of git."""
        eventually(lambda: (self.code / name).exists() or self.git.done(), seconds=PATIENCE)

    def touch(self, name: str) -> None:
        (self.code / name).touch()

    def is_armed(self) -> bool:
        return (self.code / ".git/hooks").exists() or "trap" in self.config()

    def config(self) -> str:
        return (self.code / ".git/config").read_text()


@pytest.fixture
def hanging(hostile: Hostile) -> Iterator[HangingGit]:
    git = HangingGit(hostile)
    yield git
    for name in ("leave", "go", "end"):
        git.touch(name)
    git.pool.shutdown()


@pytest.mark.slow
def test_git_that_hangs_in_its_jail_is_ended_when_the_run_ends(hanging: HangingGit) -> None:
    """Otherwise it could arm the repository when that has just been made safe."""
    bench = hanging.hostile.bench
    hanging.touch("leave")
    assert bench.wait(hanging.run).outcome == "succeeded"
    hanging.touch("go")
    hanging.until("armed")
    assert not hanging.is_armed()
    with pytest.raises(GitFailed, match="was ended"):
        hanging.git.result(PATIENCE)
    assert "workspace git" in bench.said(hanging.run)


@pytest.mark.slow
def test_git_that_ends_soon_is_waited_for(hanging: HangingGit) -> None:
    bench, waits = hanging.hostile.bench, Event()
    bench.cancel(hanging.run)
    path = hanging.pool.submit(disarming.disarm, bench.workspace(), lambda _: waits.set())
    assert waits.wait(PATIENCE)
    hanging.touch("go")
    hanging.touch("end")
    assert hanging.git.result(PATIENCE)
    path.result(PATIENCE)
    assert not hanging.is_armed()


@pytest.mark.slow
def test_git_sees_nothing_of_the_agents_home(hanging: HangingGit) -> None:
    """Where the next run, or the one at work, has its login."""
    assert not list((hanging.code.parent / "home").rglob("written"))
    assert not list((hanging.code.parent / "home").rglob("seen"))


@pytest.mark.slow
def test_git_whose_reader_pauses_is_ended_too(hostile: Hostile) -> None:
    """A pager does, for hours."""
    hostile.agent("true")
    shown = workspace_access.git_inside(hostile.bench.folder, "ws", ["-c", "alias.x=!yes", "x"])
    assert next(shown).startswith(b"y\n")
    disarming.disarm(hostile.bench.workspace())
    with pytest.raises(GitFailed, match="was ended"):
        list(shown)


@pytest.mark.slow
def test_git_that_fills_the_disk_is_ended(hostile: Hostile) -> None:
    """The agent decides what it runs, by what it left in its repository."""
    source = [str(hostile.source), None, False]
    hostile.bench.run(["true"], source=source, keep_free=10**18)
    words = ["-c", "alias.x=!sleep 20", "x"]
    with pytest.raises(GitFailed, match=r"MB left \(\[local\] keep_free\)"):
        list(workspace_access.git_inside(hostile.bench.folder, "ws", words))


@pytest.mark.slow
def test_what_git_in_the_jail_prints_and_says_takes_little_memory(hostile: Hostile) -> None:
    """A line may have no end, and a file with attributes thousands of mistakes."""
    hostile.agent("true")
    say = "head -c 30000000 /dev/zero; head -c 30000000 /dev/zero >&2; exit 3"
    words = ["-c", f"alias.x=!{say}", "x"]
    shown = workspace_access.git_inside(hostile.bench.folder, "ws", words)
    size = 0

    def read() -> None:
        nonlocal size
        for portion in shown:
            size += len(portion)
            assert len(portion) <= 1 << 16

    with pytest.raises(GitFailed) as error:
        read()
    assert size == 30_000_000
    assert len(error.value.message) <= 1 << 16
