"""Running git so that nothing in a repository runs here: the only place that does.

A repository's configuration can name commands: hooks, a file system monitor, filters, programs
for diffs, and for fetching what a partial clone lacks. None of them is run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Self, TypeVar

from ..errors import RebyteError
from .deadline import Deadline
from .process_group import ProcessGroup, end_group
from .signals import handled
from .untrusted import read_file

T = TypeVar("T", str, bytes)
AnyPath = str | os.PathLike[str]
Variables = Mapping[str, str]  # of the environment
SECONDS = 120.0
LOOK_SECONDS = 0.2
MOST_WORDS, MOST_BYTES = 500, 100_000  # of paths in one command line
# What git does by itself after a command goes into the background, where it outlives us, and reads
# the settings of a repository in which an agent may be at work by then.
SAFE = (
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null",
    "-c", "gc.auto=0", "-c", "maintenance.auto=false",
    # Conflicts that a repository says were resolved before would be, by what it has written down.
    "-c", "rerere.enabled=false",
    # Else git refuses files whose lines would end otherwise if it wrote them, for `core.autocrlf`.
    "-c", "core.safecrlf=false",
)  # fmt: skip
# The files of a repository as they are, whatever line ends or attributes the user's git prefers,
# and with no filter: a jail knows nothing of those, and every file would be a changed one.
AS_THEY_ARE = (
    "-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.attributesFile=/dev/null",
)  # fmt: skip
NEW = (2, 54)  # the git that runs hooks which its settings name, and keeps references as these say
OFF = "REBYTE_OFF"  # a variable, with the value of a setting
# What runs no hook, as it moves no reference and writes no index.
_RUN_NO_HOOK = frozenset((
    "--version", "cat-file", "check-attr", "check-ref-format", "commit-tree", "config", "diff-tree",
    "for-each-ref", "hash-object", "ls-files", "ls-tree", "merge-base", "rev-list", "rev-parse",
))  # fmt: skip
_WITH_VALUE = ("-C", "-c", "--git-dir", "--work-tree")  # options of git itself
# Settings that name a program for signing or merging, and what git runs without them.
PROGRAMS = {
    r"gpg\.(?:openpgp\.)?program": "gpg",
    r"gpg\.x509\.program": "gpgsm",
    r"gpg\.ssh\.program": "ssh-keygen",
    r"gpg\.ssh\.defaultkeycommand": "false",
    r"merge\..*\.driver": "git merge-file --marker-size=%L %A %O %B",
}
# What git says when it lacks what a partial clone has not fetched, and whether it is in one.
LACKS = re.compile("lazy fetching disabled|lacks the necessary blob")
PARTIAL = ("config", "--get-regexp", r"^remote\..*\.promisor$")
COMPLETE = (
    "this is a partial clone, which `git fetch --refetch --no-filter` completes, if you trust its"
    " remote"
)
MEMORY = 4 * 1024**3  # bytes
NO_MEMORY = re.compile(  # here, not on the server
    "^(?!remote:).*(out of memory|cannot allocate memory|unable to create .*thread)", re.I | re.M
)
LONGEST_PATH = 4096  # bytes
LARGEST_INDEX = 1 << 30  # bytes, for some million files
LOOK_BYTES = 1 << 24
PORTION = 1 << 16  # bytes
LONGEST_PAUSE = 3600.0
LAST_SECONDS = 2.0  # for the end of what git says, when it has ended
LONGEST_STDERR = 1 << 16  # bytes, of which the last are kept
LARGEST_FILE = 1 << 22  # bytes of them on disk
LARGEST_OUTPUT = 1 << 28  # bytes, for a list of some million files
# A patch that `git apply` takes, whatever the user's configuration says of diffs.
DIFF = (
    "diff", "--cached", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames",
    "--ignore-submodules=all", "--src-prefix=a/", "--dst-prefix=b/", "--unified=3",
    "--inter-hunk-context=0", "-O/dev/null",
)  # fmt: skip
# Inside a git hook these name the repository of the hook, which may be another one.
LOCATIONS = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_DIR",
    "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
    "GIT_REFERENCE_BACKEND", "GIT_WORK_TREE",
)  # fmt: skip
# These let options mean other things, show other objects or attributes, or change what is printed.
MEANINGS = (
    "GIT_ATTR_SOURCE", "GIT_DIFF_OPTS", "GIT_EXTERNAL_DIFF", "GIT_GLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS", "GIT_LITERAL_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_SHALLOW_FILE",
)  # fmt: skip
# For git in a sandbox, where what a repository names may run: nothing of this machine's settings.
IN_JAIL = {
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_NO_LAZY_FETCH": "1",
}  # fmt: skip
# `python -m`, in a filter of the user, imports nothing from the repository then (Python 3.11). Not
# for git that asks a server: with this, gcloud, which may be what has the login, does not start.
IN_PYTHON = {"PYTHONSAFEPATH": "1"}
# What git, as it is started here, neither reads nor writes in a repository, or in a submodule's.
UNUSED = ("annex", "hooks", "rr-cache")
ONLY_READ = ("info/attributes", "info/exclude")
MOST_FOLDERS = 500_000  # that wait to be looked into at one time


class GitFailed(RebyteError):
    """git ended with an error; the message is its own."""

    code = "git_failed"
    said = ""  # all that git printed on stderr, in English
    status: int | None = None  # with which git ended by itself, or -N for a signal N
    is_partial = False  # whether it had to do without what a partial clone has not fetched


class GitUnusable(GitFailed):
    """git is not installed, or does not answer."""


class GitStopped(GitFailed):
    """git was ended, or not started, for the reason that the caller watches for."""


# Why git has to end, or an empty text.
_watch: ContextVar[Callable[[], str] | None] = ContextVar("_watch", default=None)


@contextmanager
def watched(watch: Callable[[], str]) -> Iterator[None]:
    """End every git that `run` starts in the block as soon as `watch`, asked five times a second,
    gives a reason, which is the GitStopped then. Not those with `to_end`. `own_index` asks it, too.
    """
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def run(
    words: Sequence[str],
    folder: AnyPath | None = None,
    extra: Variables | None = None,
    output: int = subprocess.PIPE,
    *,
    timeout: float | None = SECONDS,
    to_end: bool = False,
    memory: int = MEMORY,
    most: int = LARGEST_OUTPUT,
    given: bytes = b"",
) -> bytes:
    """Run `git WORDS` in `folder` without asking anything and return what it prints.

    `extra` are more variables, and `given` is what it reads as its input (not with `to_end`). git
    and its helpers end with this process, even if that is killed. If the guard of their
    ProcessGroup is killed, too, they do not: so let a long git make what others use later under a
    name that only this process knows. With `to_end`, for what changes the user's own repository,
    git is left to finish: it would leave its lock, and half of the work.

    A few bytes of a patch or a repository may stand for gigabytes, or make git wait for ever. So it
    is ended after `timeout` (seconds; None for no limit), and when it has printed more than `most`
    bytes, to us or into the file `output`. `memory` bounds what each of its processes takes, but
    for files that it maps (bytes, Linux only; not with `to_end`). Raises GitFailed with git's
    reason.
    """
    variables = _variables() | dict(extra or {})
    if (program := shutil.which("git")) is None:
        raise GitUnusable("git is not installed")
    there = [] if folder is None else ["-C", os.fspath(folder)]
    line = [program, *there, *SAFE, *_hooks_off(words, folder, extra), *words]
    if to_end:
        printed, errors, status = _to_end(line, variables, words[0], timeout, most)
    else:
        file = output if output >= 0 else None
        with _file_of(given) as stdin, Pipe(LONGEST_STDERR) as said, Pipe(most) as out:
            into = out.into if output == subprocess.PIPE else output
            try:
                group = ProcessGroup(
                    limited(line, memory),
                    folder=None,
                    variables=variables,
                    stdout=into,
                    stderr=said.into,
                    stdin=stdin,
                )
            except OSError as error:  # a name can be too long for a command line
                raise _not_started(error) from None
            with group:
                said.start()
                out.start()
                status = _status(group.process, words[0], timeout, out, file)
        printed, errors = out.kept, said.kept
    if status:
        text = errors.decode("utf-8", "replace")
        failure = GitFailed(_reason(text, words[0], status))
        has_gaps = LACKS.search(text) and folder is not None
        if has_gaps and line_if_any(PARTIAL, folder, extra) is not None:
            failure = GitFailed(f"{failure.message}; {COMPLETE}")
            failure.is_partial = True
        if not to_end and (problem := lack_of_memory(text, memory)):
            failure = GitFailed(problem)
        failure.said, failure.status = text, status
        raise failure
    return printed


@contextmanager
def _file_of(data: bytes) -> Iterator[AnyPath]:
    """A file with these bytes, for as long as the block takes: git may not read them all."""
    if not data:
        yield os.devnull
        return
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        file = Path(folder) / "given"
        file.write_bytes(data)
        yield file


def limited(words: Sequence[str], memory: int = MEMORY) -> list[str]:
    """A command line whose processes take at most so much memory (bytes, Linux only) each."""
    if sys.platform != "linux":
        return [*words]
    # A limit that may not be raised is a lower one.
    script = 'ulimit -c 0; ulimit -d "$0" 2>/dev/null; exec "$@"'
    return ["/bin/sh", "-c", script, str(memory // 1024), *words]


def lack_of_memory(said: str, memory: int = MEMORY) -> str:
    """That a git, which said this, needed more than it may take; empty if it was not that."""
    if not NO_MEMORY.search(said):
        return ""
    return f"git needed more than {memory / 1024**3:.2g} GiB of memory"


def _hooks_off(words: Sequence[str], folder: AnyPath | None, extra: Variables | None) -> list[str]:
    number = 0
    while words[number].startswith("-") and words[number] not in _RUN_NO_HOOK:
        number += 2 if words[number] in _WITH_VALUE else 1
    if words[number] in _RUN_NO_HOOK:
        return []
    return hooks_off(folder, extra, words[:number])


def hooks_off(
    folder: AnyPath | None, extra: Variables | None = None, options: Sequence[str] = ()
) -> list[str]:
    """Options of git that turn off the hooks which the settings in force in a folder name.

    The user's, too. `options` are others of git itself. Raises GitFailed.
    """
    if not _is_new():
        return []
    # With that variable, `git config` would read another file instead.
    known = {name: value for name, value in (extra or {}).items() if name != "GIT_CONFIG"}
    # Each time: what a repository's settings include can be a file that a patch has just changed.
    listed = os.fsdecode(run([*options, "config", "-z", "--name-only", "--list"], folder, known))
    names = re.findall(r"(?:^|\0)hook\.([^\0]*)\.[^.\0]*", listed)
    # Unlike `-c`, this takes names with `=`; and no setting counts more.
    return [f"--config-env=hook.{name}.enabled={OFF}" for name in dict.fromkeys(names)]


def _is_new() -> bool:
    """Whether the git that `run` starts is as new as `NEW`, or tells no version."""
    program = shutil.which("git")
    # A program that runs for weeks sees git replaced.
    return program is not None and _is_new_program(program, os.stat(program).st_mtime_ns)


@cache
def _is_new_program(_program: str, _changed: int) -> bool:
    found = re.match(rb"git version (\d+)\.(\d+)", run(["--version"]))
    return found is None or (int(found[1]), int(found[2])) >= NEW


def receive_pack(off: Sequence[str]) -> str:
    """The program that receives a push on this disk, as a line for a shell.

    With what `hooks_off` gives for the receiver, it runs no program that the settings there name:
    `receive.denyCurrentBranch` can ask for the filters of a working tree, and a partial clone could
    fetch, for which git before 2.45 knows no other way to stop it.
    """
    words = (
        "git", *SAFE, "-c", "core.alternateRefsCommand=true", "-c", "receive.autogc=false",
        "-c", "receive.denyCurrentBranch=refuse", *off, "receive-pack",
    )  # fmt: skip
    return f"GIT_ALLOW_PROTOCOL= {OFF}=false {shlex.join(words)}"


class Pipe:
    """What a program, which may never stop, writes into the descriptor `into`: the last of it.

    `size` is how many bytes there were. `is_over` is set at the end, or when they are more than
    `most`, which are kept: `kept` has them after the block.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self.is_over = threading.Event()
        self._source, self.into = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._data = bytearray()

    @property
    def kept(self) -> bytes:
        """The last bytes so far."""
        return bytes(self._data[-self.most :])

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Read from now on: the program has its own copy of the descriptor."""
        into, self.into = self.into, -1
        os.close(into)
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        if self.into >= 0:
            os.close(self.into)
        if self._thread.ident is None:  # nothing was started, or a signal came before
            os.close(self._source)
            return
        # What left the group of git, such as a daemon that keeps passwords, may hold the other end.
        self._thread.join(LAST_SECONDS)

    def _read(self) -> None:
        with open(self._source, "rb", buffering=0) as source:
            while data := source.read(PORTION):
                self.size += len(data)
                self._data += data
                if self.size > self.most:
                    self.is_over.set()
                if len(self._data) > self.most + (1 << 20):
                    del self._data[: -self.most]
        self.is_over.set()


def _status(
    process: subprocess.Popen[bytes], word: str, timeout: float | None, out: Pipe, file: int | None
) -> int:
    """The status with which git ends, having printed into `out`, or into a file."""
    watch, deadline = _watch.get(), Deadline(timeout)
    longest = LONGEST_PAUSE if watch is None and file is None else LOOK_SECONDS
    status = None
    while status is None:
        has_printed = out.is_over.wait(deadline.cap(longest))
        _check_size(word, out.size if file is None else os.fstat(file).st_size, out.most)
        if has_printed:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(deadline.cap(longest))
        if status is None and deadline.has_passed:
            raise _too_long(word, timeout)
        if status is None and watch is not None and (reason := watch()):
            raise GitStopped(reason)
    return status


def _check_size(word: str, size: int, most: int) -> None:
    if size > most:
        raise GitFailed(f"git {word} printed more than {most / (1 << 20):.3g} MiB")


def _not_started(error: OSError) -> GitFailed:
    return GitFailed(f"git cannot be started: {error.strerror}")


def _too_long(word: str, timeout: float | None) -> GitUnusable:
    return GitUnusable(f"git {word} took longer than {timeout:g} s")


def line(
    words: Sequence[str], folder: AnyPath | None = None, extra: Variables | None = None
) -> str:
    """What git prints, which is one line: as `run`."""
    return os.fsdecode(run(words, folder, extra).removesuffix(b"\n"))


def line_if_any(
    words: Sequence[str], folder: AnyPath | None = None, extra: Variables | None = None
) -> str | None:
    """As `line`, but None if git says no. Raises GitFailed if it says nothing, such as a git that
    was killed: then there may be what was asked for.
    """
    try:
        return line(words, folder, extra)
    except GitFailed as error:
        if error.status is None or error.status < 0:
            raise
        return None


def paths(
    words: Sequence[str],
    folder: AnyPath | None = None,
    extra: Variables | None = None,
    *,
    most: int = LARGEST_OUTPUT,
) -> list[str]:
    """The paths that git prints, with `-z` among the words: as `run`."""
    return os.fsdecode(run(words, folder, extra, most=most)).split("\0")[:-1]


def common_folder(folder: AnyPath, extra: Variables | None = None) -> str:
    """The repository that all its working trees share. Raises GitFailed."""
    words = ["rev-parse", "--path-format=absolute", "--git-common-dir"]
    return line(words, folder, extra)


def _variables() -> dict[str, str]:
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in LOCATIONS + MEANINGS and not name.startswith("REBYTE_")
    }
    variables |= {
        OFF: "false",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        # What a clone and a push have: `git replace` shows others here, with other parents.
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",  # which is before `core.askPass` and that of ssh
        "SSH_ASKPASS": "false",
        "SSH_ASKPASS_REQUIRE": "never",  # since OpenSSH 8.4; earlier ones start the program above
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",
    }
    variables.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    return variables


def _to_end(
    line: list[str], variables: dict[str, str], word: str, timeout: float | None, most: int
) -> tuple[bytes, bytes, int]:
    """What a program prints that signals to this process, its group and its terminal do not end.

    And its status. It prints into files, which are there even if this process is killed. As long as
    it is not, the one for what it says is cut, so that it does not fill the disk.
    """
    deadline, said, status = Deadline(timeout), b"", None
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile(buffering=0) as errors:
        with signals_later():
            try:
                process = subprocess.Popen(
                    line,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                raise _not_started(error) from None
            while status is None:
                with suppress(subprocess.TimeoutExpired):
                    status = process.wait(deadline.cap(LOOK_SECONDS))
                if status is None and deadline.has_passed:
                    end_group(process)
                    raise _too_long(word, timeout)
                if status is not None or os.fstat(errors.fileno()).st_size > LARGEST_FILE:
                    errors.seek(max(0, errors.seek(0, os.SEEK_END) - LONGEST_STDERR))
                    said = (said + errors.read(LONGEST_STDERR))[-LONGEST_STDERR:]
                    errors.seek(0)  # where the program continues, too
                    errors.truncate()
        _check_size(word, output.seek(0, os.SEEK_END), most)
        output.seek(0)
        return output.read(), said, status


@contextmanager
def signals_later() -> Iterator[None]:
    """Put off SIGINT, SIGTERM and the end of the terminal (SIGHUP) to the end of the block.

    One that is ignored stays so. SIGQUIT (Ctrl-\\) still ends the wait.
    """
    numbers = [one for one in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(one))]
    if signal.getsignal(signal.SIGHUP) not in (signal.SIG_IGN, None):
        numbers.append(signal.SIGHUP)
    arrived: list[int] = []
    try:
        with handled(dict.fromkeys(numbers, lambda number, _frame: arrived.append(number))):
            yield
    finally:
        if arrived:
            signal.raise_signal(arrived[0])


def _reason(stderr: str, word: str, status: int) -> str:
    """git's own explanation: its last `fatal:` or `error:` line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("fatal:", "error:"))]
    ended = f"exited with status {status}" if status > 0 else f"was ended by signal {-status}"
    reason = (told or (lines if status > 0 else []) or [f"git {word} {ended}"])[-1]
    return reason.removeprefix("fatal: ").removeprefix("error: ")


def top_level(folder: str) -> str:
    """The root of the working tree that `folder` is in.

    Refuses one that the configuration of the repository (`core.worktree`) puts elsewhere, where
    everything would be read, and one whose repository is another's. Raises GitFailed.
    """
    root = line(["rev-parse", "--show-toplevel"], folder)
    check_nearest(folder, root)
    check_repository(root)
    return root


def check_nearest(folder: str, root: str) -> None:
    """Refuse a working tree that is not the one around a folder. Raises GitFailed."""
    path = Path(os.path.realpath(folder))
    above = (one for one in (path, *path.parents) if os.path.lexists(one / ".git"))
    if next(above, None) != Path(os.path.realpath(root)):
        raise GitFailed(f"the working tree of the repository in {path} is elsewhere: {root}")


def check_repository(root: str) -> None:
    """Refuse a repository whose parts are elsewhere: a download can name any folder of the user.

    `root` is a working tree or a bare repository. A linked working tree, a submodule and the like
    are what they seem if the repository names the working tree, too. What it borrows (`git clone
    --shared`) looks like a theft, because the lender does not know of it. Raises GitFailed.
    """
    check_lenders(root, check_place(root))


def check_lenders(root: AnyPath, common: Path) -> None:
    """Refuse a repository that borrows objects, whose folder is `common`. Raises GitFailed."""
    lenders = common / "objects/info/alternates"
    if lenders.exists():
        command = f"{shlex.join(['git', '-C', os.fspath(root), 'repack', '-a', '-d'])} && "
        raise GitFailed(
            f"a part of the repository is elsewhere: its objects are those that {lenders} names",
            hint=f"If you trust it, copy them: {command}{shlex.join(['rm', str(lenders)])}",
        )


def check_place(root: str) -> Path:
    """The repository of a working tree, or a bare one's: the one that all working trees share.

    Raises GitFailed for one that is elsewhere, and does not name the folder `root` in turn, and for
    one of which `check_parts` refuses a part. It may borrow objects.
    """
    # One at a time: a name can have a line break, and so pass for two others.
    own = Path(os.path.realpath(line(["rev-parse", "--absolute-git-dir"], root)))
    common = Path(os.path.realpath(common_folder(root)))
    here = Path(os.path.realpath(root))
    if common != own:
        is_here = own.parent == common / "worktrees" and _leads_to(own / "gitdir", here / ".git")
    elif own in (here, here / ".git"):
        is_here = True
    else:
        words = ["config", "--file", str(own / "config"), "--get", "core.worktree"]
        tree = line_if_any(words, own) or ""
        is_here = tree != "" and os.path.realpath(own / tree) == str(here)
    if not is_here:
        words = ["git", "--git-dir", str(own), "config", "core.worktree", str(here)]
        raise GitFailed(
            f"the repository of {root} is elsewhere, and does not name this folder: {own}",
            hint=f"If it belongs here: {shlex.join(words)}",
        )
    check_parts(common)
    return common


def check_parts(repository: Path) -> None:
    """Refuse a repository with a link, a setting or a branch by which git would write elsewhere.

    And one with a pipe or a device, at which the git that changes the user's files would wait for
    ever, or with a folder that cannot be read: git may reach it by a shorter path. A monitor of
    files may have its socket there. Raises GitFailed.
    """
    _check_storage(repository)
    waiting = [("", "")]  # a folder below the repository, and a folder in that
    while waiting:
        if len(waiting) > MOST_FOLDERS:
            raise GitFailed(f"the repository has too many folders: {repository}")
        below = os.path.join(*waiting.pop())
        folder = repository / below
        parts = below.lower().split(os.sep)  # a file system may take REFS for it
        has_unused = below == "" or parts[0] == "modules"
        has_references = "refs" in (parts[0], *parts[2:3])
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.is_file(follow_symlinks=False):
                        if has_unused and entry.name in UNUSED:
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append((below, entry.name))
                            continue
                        _check_special(repository, os.path.join(below, entry.name))
                    if has_references:
                        _check_reference(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            pass  # it was there a moment ago
        except OSError as error:
            reason = f"a part of the repository cannot be read: {folder}: {error.strerror}"
            raise GitFailed(reason) from None


def _check_storage(repository: Path) -> None:
    """Refuse an address for the references. A git that is not new does so itself."""
    config = repository / "config"
    if not _is_new() or not config.is_file():
        return
    words = ["config", "-z", "--no-includes", "--file", str(config), "--list"]
    for name, value in settings_in(run(words, os.sep)):
        if name == "extensions.refstorage" and not re.fullmatch(r"\w+", value):
            raise GitFailed(
                f"a part of the repository is elsewhere: its references are where {config} says,"
                f" in extensions.refStorage: {value}"
            )


def _check_special(repository: Path, name: str) -> None:
    """Refuse what is no file or folder, unless it is a socket or a link that does no harm."""
    path = repository / name
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            there = Path(os.path.realpath(path))
            is_allowed = there.is_relative_to(repository) or name in ONLY_READ
            if not is_allowed or (os.path.lexists(there) and not there.is_file()):
                raise GitFailed(
                    f"a part of the repository is elsewhere: {path} is a link",
                    hint="If you trust it, put what the link leads to in its place",
                )
        elif not stat.S_ISSOCK(mode):
            raise GitFailed(f"git would wait for ever: a part of the repository is no file: {path}")


def _check_reference(path: str) -> None:
    """Refuse a reference that stands for one outside of `refs`, where git would write that."""
    with suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:
        if re.match(rb"ref:\s*+(?!refs/)", file.read(LONGEST_PATH)):
            raise GitFailed(f"a branch of the repository is elsewhere: {path}")


def _leads_to(file: Path, place: Path) -> bool:
    """Whether the path in a file, which may be relative to it, is `place`."""
    path = os.fsdecode((read_file(str(file), LONGEST_PATH) or b"").rstrip(b"\n"))
    return path != "" and os.path.realpath(file.parent / path) == os.path.realpath(place)


def filters_off(folder: str) -> dict[str, str]:
    """Variables that disable the filters that the repository's own configuration defines.

    Those of the user, such as git-lfs, stay: without them, unchanged files would look changed.
    Raises GitFailed rather than leave one on, and for commands that the repository gives git-lfs.
    """
    repositorys = settings(folder)[1]
    for name, _ in repositorys:
        if re.fullmatch(r"lfs\.extension\..*\.(clean|smudge)", name, re.DOTALL):
            raise GitFailed(
                f"the repository's configuration names a command for git-lfs: {name}",
                hint="If you trust it, move it to your own: git config --global",
            )
    return IN_PYTHON | settings_of(list(_without_filters(repositorys)))


def _without_filters(repositorys: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, _ in repositorys:
        found = re.fullmatch(r"filter\..*\.(clean|smudge|process|required)", name, re.DOTALL)
        if found:
            yield name, "false" if found[1] == "required" else ""


def programs_off(
    folder: AnyPath, extra: Variables | None = None, *, filters: bool = True
) -> dict[str, str]:
    """Variables with which git signs and merges with no program that the repository names.

    What the user's configuration says instead is obeyed, or else git's own programs run. Without
    `filters`, none is on, the user's neither: git-lfs runs what the repository's settings name.
    Raises GitFailed.
    """
    users, repositorys = settings(folder, extra)
    off = [] if filters else list(_without_filters([*users, *repositorys]))
    for pattern, usual in PROGRAMS.items():
        for name in {name for name, _ in repositorys if re.fullmatch(pattern, name, re.DOTALL)}:
            same = r"gpg\.(?:openpgp\.)?program" if usual == "gpg" else re.escape(name)
            known = [value for each, value in users if re.fullmatch(same, each)]
            off.append((name, known[-1] if known else usual))
    return settings_of(off)


def settings(
    folder: AnyPath, extra: Variables | None = None
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The names and values that the user's configuration has, and those of the repository's own.

    git writes the first and the last part of a name in lower case. Raises GitFailed.
    """
    listed = run(["config", "-z", "--show-scope", "--list"], folder, extra)
    parts = listed.decode("utf-8", "surrogateescape").split("\0")
    result: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    for scope, entry in zip(parts[::2], parts[1::2], strict=False):
        result[scope in ("local", "worktree")].append(_setting(entry))
    return result


def settings_in(listed: bytes) -> list[tuple[str, str]]:
    """The names and values that `git config -z --list` has printed."""
    return list(map(_setting, listed.decode("utf-8", "surrogateescape").split("\0")[:-1]))


def _setting(entry: str) -> tuple[str, str]:
    name, has_value, value = entry.partition("\n")
    return name, value if has_value else "true"


def users_patterns(folder: str) -> str:
    """The file with the patterns that the user's git ignores everywhere, which may be missing.

    A repository's own configuration has no say: it could name any file of the user.
    """
    words = ["config", "-z", "--show-scope", "--type=path", "--get-all", "core.excludesFile"]
    parts = (line_if_any(words, folder) or "").split("\0")
    scopes = zip(parts[::2], parts[1::2], strict=False)
    named = [path for scope, path in scopes if scope not in ("local", "worktree")]
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return named[-1] if named else os.path.join(config, "git", "ignore")


def bare(repository: Path) -> dict[str, str]:
    """Variables for a bare repository of ours.

    A user can tell git to take no folder for one unless it is named so (`safe.bareRepository`).
    """
    return {"GIT_DIR": str(repository)}


def has(folder: AnyPath, name: str, extra: Variables | None = None) -> bool:
    """Whether a repository has a reference or revision of this name."""
    words = ["rev-parse", "--quiet", "--verify", "--end-of-options", name]
    return line_if_any(words, folder, extra) is not None


def commit_of(folder: AnyPath, revision: str, extra: Variables | None = None) -> str:
    """The id of the commit that a reference or revision names; empty if there is none."""
    words = ["rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    return line_if_any(words, folder, extra) or ""


def ref_of(folder: AnyPath, branch: str | None) -> str | None:
    """The whole name of a branch (or tag, or HEAD), as a clone knows it; None without a commit.

    By a short name, git would take a tag before the branch.
    """
    refs = [f"refs/{kind}/{branch}" for kind in ("heads", "tags")] if branch else ["HEAD"]
    return next((ref for ref in refs if commit_of(folder, ref)), None)


def check_name(folder: AnyPath, revision: str, extra: Variables | None = None) -> None:
    """Refuse a revision by a name that more than one reference has. Raises GitFailed.

    Of these, git would take a tag, and only warn: a remote can send one with the name of a branch.
    """
    name = re.split(r"[~^:]|@\{", revision)[0]
    kinds = [f"refs/{kind}/{name}" for kind in ("heads", "remotes", "tags")]
    listed = os.fsdecode(run(["for-each-ref", "--format=%(refname)", *kinds], folder, extra))
    found = [each for each in listed.split("\n") if each in kinds]
    if len(found) > 1:
        raise GitFailed(
            f"{name} may be each of {', '.join(found)}", hint="Name one of them in full"
        )


def is_ancestor(folder: AnyPath, old: str, new: str, extra: Variables | None = None) -> bool:
    """Whether the commit `old` is in the history of `new`; False if the repository lacks one."""
    return line_if_any(["merge-base", "--is-ancestor", old, new], folder, extra) is not None


def settings_of(settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Variables that add settings to those of the environment, the ones of `git -c` included.

    They count more than any of those. In `-c`, no name can have `=`.
    """
    given = os.environ.get("GIT_CONFIG_PARAMETERS", "")
    added = ("=".join("'" + part.replace("'", r"'\''") + "'" for part in each) for each in settings)
    return {"GIT_CONFIG_PARAMETERS": " ".join([given, *added]).strip()} if settings else {}


def only_settings(file: Path) -> dict[str, str]:
    """Variables with which no settings are in force but those in a file, and the repository's."""
    return {
        "GIT_CONFIG_GLOBAL": str(file),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "0",
        "GIT_CONFIG_PARAMETERS": "",
    }


def portions(
    paths: Sequence[T], most: int = MOST_WORDS, most_bytes: int = MOST_BYTES
) -> Iterator[Sequence[T]]:
    """The paths in parts, each of which fits into a command line unless it may be larger."""
    some: list[T] = []
    size = 0
    for path in paths:
        size += len(os.fsencode(path))
        if some and (len(some) == most or size > most_bytes):
            yield some
            some, size = [], len(os.fsencode(path))
        some.append(path)
    if some:
        yield some


# What is not committed in someone's working tree


def own_index(root: str, scratch: Path) -> dict[str, str]:
    """Variables for an index and objects of our own: the user's repository stays as it is.

    Raises GitFailed if git cannot read the index, if it leads out of the repository, or is too
    large.
    """
    index, objects = (
        os.path.join(root, line(["rev-parse", "--git-path", name], root))
        for name in ("index", "objects")
    )
    if os.path.isfile(index):  # what git knows of unchanged files saves reading them all
        _copy_index(index, scratch / "index")
    (scratch / "objects").mkdir()
    variables = filters_off(root) | {
        "GIT_INDEX_FILE": str(scratch / "index"),
        "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": quoted(objects),
    }
    _check_names(paths(["ls-files", "-z"], root, variables))
    return variables


def _copy_index(index: str, copy: Path) -> None:
    """Copy an index, which may be sparse: gigabytes that take no room until they are copied."""
    if os.path.getsize(index) > LARGEST_INDEX:
        most = f"{LARGEST_INDEX >> 30} GiB"
        raise GitFailed(f"the index of the repository is larger than {most}: {index}")
    watch = _watch.get()
    with open(index, "rb") as source, copy.open("wb") as target:
        while portion := source.read(LOOK_BYTES):
            target.write(portion)
            if watch is not None and (reason := watch()):
                raise GitStopped(reason)
    shutil.copystat(index, copy)  # git looks into files that are as new as its index


def _check_names(names: Iterable[str]) -> None:
    """Refuse names in an index that git itself never writes there, and does not check.

    It would read `/etc/passwd` from the root of the disk, and no pathspec leaves out `./module`.
    """
    for name in names:
        if any(part.casefold() in ("", ".", "..", ".git") for part in name.split("/")):
            raise GitFailed(f"the index of the repository names a file that it cannot have: {name}")


def quoted(path: str) -> str:
    """A path in the list of alternates, where colons separate and quotes escape."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def last_commit(root: str) -> str:
    """What uncommitted changes are changes of: HEAD, or before the first commit the empty tree."""
    return "HEAD" if has(root, "HEAD") else empty_tree(root)


def empty_tree(folder: AnyPath, extra: Variables | None = None) -> str:
    """The id that a tree without files has in this repository."""
    return line(["hash-object", "-t", "tree", os.devnull], folder, extra)


def new_files(root: str, index: Mapping[str, str]) -> list[str]:
    """The files that git does not know, and the folders of other repositories, which end in `/`."""
    return paths(["ls-files", "--others", "--exclude-standard", "-z"], root, index)


def add_all(
    root: str, index: Mapping[str, str], new: Iterable[str], *, memory: int = MEMORY
) -> None:
    """Bring `index`, which is `own_index`, up to date with the working tree and its `new` files."""
    # A sparse checkout has files beyond what it is of, too; those that it lacks stay unchanged.
    words = ["-c", "advice.addEmbeddedRepo=false", "add", "--all", "--sparse", "."]
    run([*words, *_without_repositories(root, index, new)], root, index, memory=memory)


def _without_repositories(root: str, index: Mapping[str, str], new: Iterable[str]) -> Iterator[str]:
    """Pathspecs that leave out the submodules, and the other repositories among the `new` files.

    `git add` would run `git status` inside each submodule, with the filters of its configuration,
    and fails for a repository without a commit.
    """
    yield from (f":(exclude,literal){name}" for name in new if name.endswith("/"))
    yield from (f":(exclude,literal){name}" for name in submodules(root, index))


def submodules(root: AnyPath, index: Variables | None = None) -> Iterator[str]:
    """The folders of the submodules in a working tree's index, or in `index`."""
    listed = run(["ls-files", "--stage", "-z"], root, index)
    for found in re.finditer(rb"(?:^|\0)160000 [^\t]*+\t([^\0]*+)", listed):
        yield os.fsdecode(found[1])


def left_out(root: AnyPath) -> Iterator[str]:
    """A line that names what a clone of a repository lacks: the content of its submodules."""
    names: list[str] = []
    with suppress(GitFailed):  # it has more files than can be listed
        names += submodules(root)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"Submodules are not cloned; these folders are empty: {', '.join(names[:3])}{more}"
