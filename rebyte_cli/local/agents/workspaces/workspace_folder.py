"""A workspace of real agents: a folder with `code/`, the private `home/`, and `runs/ID/`.

`base.git` remembers what `code/` was when the workspace was made. It is kept outside `code/`,
so that an agent that rewrites its own repository cannot change what its work is compared with. It
stays when a workspace is pruned: `restore.py` makes `code/` again from it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Container, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ....system import git
from ....system.files import replacing
from ....system.git import GitFailed
from ....system.permissions import make_folder
from ....system.untrusted import read_file
from ...ballast import full_disk
from ...gateway import request_record
from .. import agent_files
from ..cluster import launcher
from ..sandbox import RECORDS
from ..sandbox.jail import CODE, HOME
from ..sandbox.jail_group import end_rest
from ..sources import lenders, skills
from ..sources.clone import clone
from ..sources.source import CLONE_SECONDS, clone_url, local_path, without_secrets
from .sharing import VISITORS

BASE = "base.git"
MAKING = "new."  # begins the random name of a folder in which a workspace is being made
SIZE = "size"
TRASH = "trash"  # of the state folder: what is still to be deleted
NO_PATCH = "no-patch"  # of a run: why it has none of what it left
LONGEST_REASON = 10_000  # bytes
FRESH = "fresh"  # of a workspace in which no agent has begun: its setup may run
# What the last patch was made of, until an agent begins, and WHOLE if it leaves nothing out.
SAVED, WHOLE = "saved", b" whole"
# What `git log`, `git status` or a cleaning may write in a repository is all but its references.
_LOGS, _REFERENCES = "logs", {"HEAD", "packed-refs", "refs", "reftable"}
EXCLUDE = "info/exclude"
SKILLS = "skills"
ORIGIN_FILE = "origin"  # the address that the clone was made with, kept where no agent can write
# What stays of a workspace that is pruned, and of each of its runs: the rest can be made again, or
# nothing needs it. A lock is never removed, since others may wait for it.
KEPT = (BASE, SIZE, FRESH, SKILLS, ORIGIN_FILE, RECORDS, VISITORS, "runs")
KEPT_OF_RUN = ("lock", NO_PATCH, request_record.FILE)
LARGEST_EXCLUDE = 1 << 24  # bytes, of all patterns and the names of inputs
LARGEST_PATTERNS = 1 << 20  # bytes
# Of our own commits: git needs a name, and must not ask for the passphrase of a key.
AUTHOR = (
    "-c", "user.name=rebyte", "-c", "user.email=rebyte@localhost", "-c", "commit.gpgSign=false",
)  # fmt: skip
SYNCED = "refs/start"  # in `base.git`: what it began with, if commits were brought in since
OWN = "refs/own"  # in `base.git`: the commit that it began with, if that is our own
CLONED = "refs/cloned/"  # in `base.git`: before the name that HEAD of the clone had
SHALLOW = "shallow"  # of a repository: where its history is cut off
LARGEST_SHALLOW = 1 << 24  # bytes


class WorkspaceSource(NamedTuple):
    """What a workspace starts from: a repository, a branch, and uncommitted changes or not."""

    repository: str | None = None
    branch: str | None = None
    with_changes: bool = False


class UploadedFile(NamedTuple):
    """An uploaded file: a name that no other has, where its bytes are, and the name that it gets in
    `/code` if that is free.
    """

    name: str
    path: Path
    wanted: str = ""


class Workspace:
    """The folder of one workspace below `state_dir`. Nothing is made until `prepare`."""

    def __init__(self, state_dir: Path, workspace_id: str) -> None:
        self.state_dir = state_dir
        self.folder = state_dir / "workspaces" / workspace_id
        self.code = self.folder / "code"
        self.home = self.folder / "home"
        self.base = self.folder / BASE

    def run_folder(self, prompt_id: str) -> Path:
        """Where the files of one run are: its lock, log and raw streams."""
        return self.folder / "runs" / prompt_id

    def note_patch(self, prompt_id: str, problem: str = "", *, saved: bytes = b"") -> None:
        """Note that a run has left a patch of what is there, or the `problem` of making one.

        `saved` is what `state` said before it was made, and WHOLE after it if it leaves nothing
        out.
        """
        agent_files.remove(self.folder, SAVED)
        if not problem:
            agent_files.remove(self.run_folder(prompt_id), NO_PATCH)
        with suppress(OSError):  # the disk is full
            if problem:
                kept = problem.encode("utf-8", "replace")[:LONGEST_REASON]
                agent_files.write(self.run_folder(prompt_id), NO_PATCH, kept)
            else:
                agent_files.write(self.folder, SAVED, saved)

    def why_no_patch(self, prompt_id: str) -> str:
        """Why a run has left no patch of what is there; empty if that was not noted."""
        noted = agent_files.read(self.run_folder(prompt_id), NO_PATCH, LONGEST_REASON) or b""
        return noted.decode("utf-8", "replace")

    def prepare(
        self, source: WorkspaceSource, uploads: Iterable[UploadedFile], *, share: bool = False
    ) -> list[str]:
        """Make `code/` and `home/` if they are missing, clone the repository, stage the files.

        With `share`, for an agent in a jail, `code/` borrows its objects (see lenders.py). Returns
        a line for everything that the clone lacks, and for each file that could not keep its name.
        Raises GitFailed, or OSError when the disk does not take it.
        """
        for folder in (self.folder, self.home):
            make_folder(folder)
        lacks: list[str] = []
        if not self.base.exists():
            lacks += self._start(source, share=share and self._can_share())
            lacks += git.left_out(self.code) if source.repository is not None else ()
        for upload in uploads:
            name = self._stage(upload)
            if upload.wanted not in ("", name):
                lacks.append(f"{upload.wanted} is /code/{name}: there is another file of its name")
        return lacks

    @property
    def is_there(self) -> bool:
        """Whether it was made and is not pruned."""
        return self.base.is_dir() and self.code.is_dir()

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has worked in it yet but a setup."""
        return (self.folder / FRESH).exists()

    @property
    def is_only_copy(self) -> bool:
        """Whether nothing but `code/` may have what is there."""
        return self.is_there and not self.is_saved(whole=True)

    @property
    def has_note(self) -> bool:
        """Whether a patch was made of what there was when an agent last worked there."""
        return (self.folder / SAVED).exists()

    def is_saved(self, *, whole: bool = False) -> bool:
        """Whether nothing has changed since the last patch; with `whole`, it also has all of it."""
        saved = agent_files.read(self.folder, SAVED, 100)
        if saved is None or (whole and not saved.endswith(WHOLE)):
            return False  # without a look at every file, as in a transaction
        return saved.removesuffix(WHOLE) == self.state(bytes.fromhex(saved[:32].decode()))

    def state(self, key: bytes = b"") -> bytes:
        """What changes with any file in `code/`, or reference there, by whatever hand.

        It begins with the `key`, a new one where none is given: what it would be, no program in
        the workspace can know.
        """
        key, total = key or os.urandom(16), 0
        for entry in agent_files.walk(self.code, skip=True):
            name = entry.path[len(str(self.code)) + 1 :]
            if not _counts(name) or entry.is_dir(follow_symlinks=False):
                continue
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                what = f"{status.st_mode} {status.st_size} {status.st_ctime_ns} {name}"
                digest = hashlib.blake2b(os.fsencode(what), digest_size=16, key=key).digest()
                total ^= int.from_bytes(digest)
        return b"%s%032x" % (key.hex().encode(), total)

    def index_stamp(self) -> tuple[int, ...]:
        """What changes with the index of the repository, if there is one."""
        try:
            status = (self.code / ".git/index").lstat()
        except OSError:
            return ()
        return status.st_ino, status.st_size, status.st_ctime_ns

    def begin(self) -> None:
        """Remember that from now on an agent may have written anything there."""
        for name in (FRESH, SAVED):
            (self.folder / name).unlink(missing_ok=True)

    def skills(self, but: Container[str]) -> list[str]:
        """The skills that the repository had at first, `but` those in these folders of it."""
        places = [self.folder / SKILLS / place for place in skills.PLACES if place not in but]
        return [str(skill) for place in places for skill in sorted(place.glob("*"))]

    def has_jobs(self) -> bool:
        """Whether a launcher's job may be at work in it."""
        return any(self.folder.glob(f"runs/*/{launcher.JOB}"))

    def end_jobs(self) -> None:
        """End what launchers have started in it. No run may be at work there.

        Call it before the folder is removed, which alone says what ends them. Raises JobStays.
        """
        for job in self.folder.glob(f"runs/*/{launcher.JOB}"):
            try:
                launcher.end_job(self.state_dir, job.parent)
            except launcher.JobStays as error:
                raise launcher.JobStays(f"{error} (if it has ended, remove {job})") from None

    def remove(self) -> None:
        """Delete everything. Raises nothing for a workspace that is not there."""
        for folder in (*self.set_aside(self.folder), self.folder):
            agent_files.remove_tree(folder)

    def spare(self) -> list[Path]:
        """What can be removed of it while no run is at work; nothing if it is pruned.

        `code/` is the first: without it, it is pruned. One that was never complete is spare itself.
        """
        if not self.base.is_dir():
            return [self.folder] if self.folder.is_dir() else []
        found = [path for path in self.folder.iterdir() if path.name not in KEPT]
        found.sort(key=lambda path: path != self.code)
        of_runs = self.folder.glob("runs/*/*")
        return found + [path for path in of_runs if path.name not in KEPT_OF_RUN]

    def set_aside(self, *places: Path) -> list[Path]:
        """Move its folder, or places in it, to where they are to be deleted; those there."""
        with suppress(OSError):
            end_rest(self.folder)
        # A supervisor that still collects results finds no folder to put more into.
        trash = self.state_dir / TRASH
        moved = []
        for number, place in enumerate(places):
            aside = trash / f"{self.folder.name}.{os.getpid()}.{number}"
            with suppress(OSError):  # a full disk has no place for a new folder
                make_folder(trash)
                if place.is_dir():
                    os.close(agent_files.open_folder(place))  # one that is read-only stays
                place.rename(aside)
                moved.append(aside)
        return moved

    def cloning(self) -> str:
        """How far a clone is, for people; empty when there is none, or it is complete."""
        if self.base.exists() or not (self.folder / "home").exists():
            return ""
        own = self.folder.glob(f"{MAKING}*/code/.git/objects")
        places = [*own, *self.state_dir.glob(lenders.MAKING)]
        size = sum(map(disk_usage, places))
        return f"cloning, {size / 1e6:.0f} MB" if size >= 1e6 else ""

    def started_from(self) -> str:
        """The commit of the user's repository that changes are compared with; empty without one.

        After a sync it is the one that was brought in. Below uncommitted changes that came along,
        which are a commit of our own, it is theirs.
        """
        base = ["--git-dir", str(self.base)]
        try:
            words = ["for-each-ref", "--format=%(objectname)", "refs/heads/base", OWN]
            name, *own = git.run([*base, *words]).decode().split() or [""]
            if own != [name]:
                return name
            # It has its parent even where the history is cut off.
            text = git.run([*base, "cat-file", "commit", name]).decode("utf-8", "replace")
        except GitFailed:
            return ""
        header, _, _ = text.partition("\n\n")
        found = re.search("^parent ([0-9a-f]+)$", header, re.MULTILINE)
        return found[1] if found else ""

    def measure(self) -> None:
        """Note the size, which takes a while to find out, for `size`. Raises OSError."""
        agent_files.write(self.folder, SIZE, b"%d" % disk_usage(self.folder))

    def size(self) -> int | None:
        """The bytes on disk at the end of the last run, if they were noted."""
        noted = agent_files.read(self.folder, SIZE, 100) or b""
        return int(noted) if noted.isdigit() else None

    def full_disk(self, options: Mapping[str, Any]) -> str:
        """Why a run with these options has to stop for want of space, or an empty text.

        Raises OSError.
        """
        return full_disk(self.folder, options.get("keep_free", 0))

    def room(self, options: Mapping[str, Any]) -> int:
        """The bytes of the disk that a run with these options may fill. Raises OSError."""
        return shutil.disk_usage(self.folder).free - int(options.get("keep_free", 0))

    def _can_share(self) -> bool:
        """Whether the jail can show what is borrowed where it is, and git name it.

        Below its own folders, where it would be shown, the agent could put links.
        """
        places = (os.path.abspath(self.folder), os.path.realpath(self.folder))
        return "\n" not in str(self.folder) and not any(
            Path(place).is_relative_to(inside) for place in places for inside in (CODE, HOME)
        )

    def _start(self, source: WorkspaceSource, *, share: bool) -> list[str]:
        """Make `code/` from its source; `base.git` comes last and says that it is complete.

        Returns what it lacks. Both are made in a folder with a random name: a git that survives the
        death of this process (see `git.run`) works there, and not where the next run does.
        """
        with ExitStack() as stack:
            if share:
                stack.enter_context(lenders.in_use(self.state_dir))
            self._clear()
            folder = stack.enter_context(agent_files.new_folder(self.folder, MAKING))
            made = Workspace(self.state_dir, f"{self.folder.name}/{folder.name}")
            lacks = made._make(source, self.base, share=share)
            try:
                for name in (self.code.name, SKILLS, FRESH, BASE):
                    with suppress(FileNotFoundError):
                        (folder / name).rename(self.folder / name)
            except BaseException:
                self._clear()
                raise
        return lacks

    def _clear(self) -> None:
        """Remove what there is of a workspace that is not complete."""
        for name in (self.code.name, SKILLS):
            agent_files.remove(self.folder, name)

    def _make(self, source: WorkspaceSource, base_git: Path, *, share: bool) -> list[str]:
        """Make all of it in this folder; what is `base.git` here will be at `base_git`."""
        lacks: list[str] = []
        made_as: list[str] = []
        theirs = ""
        if source.repository is None:
            self.code.mkdir(mode=0o700)
        else:
            theirs = self._clone(source, share=share)
            hashes = git.line(["rev-parse", "--show-object-format"], self.code)
            made_as = [f"--object-format={hashes}"]  # whatever the user's git makes by default
            (self.folder / SKILLS).mkdir()
            lacks += self._keep_skills()
        git.run(["init", "--quiet", "--bare", "--template=", *made_as, str(self.base)])
        base = ["--git-dir", str(self.base)]
        commit = "" if source.repository is None else git.commit_of(self.code, "HEAD")
        if commit and not share:  # of the history only what the changes are compared with
            git.run([*base, "fetch", "--quiet", "--depth=1", str(self.code), "HEAD"])
        if source.repository is not None and share:
            self._borrow(base_git)
        if not commit:
            tree = git.line([*base, "hash-object", "-t", "tree", "-w", "/dev/null"])
            commit = git.line([*base, *AUTHOR, "commit-tree", tree, "-m", "Start"])
        else:
            name = git.line(["rev-parse", "--symbolic-full-name", "HEAD"], self.code)
            git.run([*base, "update-ref", CLONED + name, commit])
        git.run([*base, "update-ref", "refs/heads/base", commit])
        if commit != theirs:
            git.run([*base, "update-ref", OWN, commit])
        git.run([*base, "symbolic-ref", "HEAD", "refs/heads/base"])
        if patterns := self._ignored(source):
            agent_files.write(self.base, EXCLUDE, patterns)
        (self.folder / FRESH).touch(mode=0o600)
        self.share_exclude()
        return lacks

    def _keep_skills(self) -> list[str]:
        """Copy the repository's skills to where no agent writes; says which are too large."""
        room = skills.Room()
        try:
            for place in skills.PLACES:
                found = skills.known([skills.SkillFolder(self.code / place, self.code)]).values()
                folders = [str(skill.folder) for skill in found]
                skills.install(self.folder / SKILLS, folders, [place], room)
        except skills.SkillsTooLarge as error:
            return [f"Of the repository, {error}"]
        return []

    def _borrow(self, base_git: Path) -> None:
        """Move the objects of the clone to what will be `base_git`."""
        objects = self.code / ".git/objects"
        shutil.rmtree(self.base / "objects")
        objects.rename(self.base / "objects")
        if shallow := agent_files.read(self.code, f".git/{SHALLOW}", LARGEST_SHALLOW):
            agent_files.write(self.base, SHALLOW, shallow)
        lender = lenders.lent(self.base)
        lenders.lend(self.base, [each for one in lender for each in (one, *lenders.lent(one))])
        for name in ("info", "pack"):
            (objects / name).mkdir(parents=True)
        lenders.lend(self.code / ".git", [base_git])

    def _ignored(self, source: WorkspaceSource) -> bytes:
        """The patterns of what the user's git ignores, everywhere or in the repository here."""
        place = None if source.repository is None else local_path(source.repository)
        users = os.path.realpath(git.users_patterns(str(place or self.folder)))
        found = [read_file(users, LARGEST_PATTERNS) or b""]
        if place is not None:
            # Not as git gives the path of the file: it would follow a link to any file of the user.
            repository = Path(git.common_folder(place))
            found.append(agent_files.read(repository, EXCLUDE, LARGEST_PATTERNS) or b"")
        lines = (line for text in found for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
        # The later ones win, as the repository's do for git.
        return b"".join(b"%s\n" % line for line in lines if line.strip() and line[:1] != b"#")

    def _clone(self, source: WorkspaceSource, *, share: bool) -> str:
        """Clone into `code/`; the commit there, below uncommitted changes; empty for none."""
        assert source.repository is not None
        url = clone_url(source.repository)
        place = local_path(url)
        options = [*git.AS_THEY_ARE, "--quiet", "--no-checkout", "--template=", "--origin=origin"]
        if source.branch:
            options += ["--branch", source.branch]
        try:
            if place is not None:
                git.check_repository(str(place))
                # Only what the branch reaches: no other branch, no stash, nothing thrown away.
                options += ["--no-local", "--single-branch", "--upload-pack", lenders.UPLOAD_PACK]
                lender = lenders.find(self.state_dir, place, source.branch) if share else None
                options += ["--reference", str(lender)] if lender is not None else []
            clone(str(place or url), self.code, options)
            if cloned := git.commit_of(self.code, "HEAD"):
                off = git.programs_off(self.code, filters=False)
                words = ["read-tree", "-m", "-u", "--no-recurse-submodules", cloned]
                git.run(words, self.code, off, timeout=CLONE_SECONDS)
        except GitFailed as error:
            shown = without_secrets(url)
            text = f"cannot clone {shown}: {str(error).replace(url, shown)}"
            raise GitFailed(text, hint=error.hint) from None
        origin = without_secrets(url)
        if place is not None:
            origin = _origin_of(place) or str(place)
        git.run(["remote", "set-url", "origin", origin], self.code)
        if place is not None and source.with_changes:
            copy_uncommitted(place, self.code)
        return cloned

    def _stage(self, upload: UploadedFile) -> str:
        """Copy an uploaded file to `/code/NAME`, never through a link that an agent left there."""
        name = upload.wanted or upload.name
        # Git would obey some files that begin so.
        if os.path.lexists(self.code / name) or name.lower().startswith(".git"):
            name = upload.name
        target = self.code / name
        if not target.is_symlink() and target.is_dir():
            raise GitFailed(f"/code/{name} is a folder: the uploaded file has no place")
        with upload.path.open("rb") as content, replacing(target) as file:
            shutil.copyfileobj(content, file)
        self.exclude(name)
        return name

    def exclude(self, name: str) -> None:
        """Keep an input out of the patch and out of the agent's commits: it is no result."""
        known = agent_files.read(self.base, EXCLUDE, LARGEST_EXCLUDE) or b""
        line = "/" + "".join(f"\\{each}" if each in "*?[\\!# " else each for each in name)
        if os.fsencode(line) not in known.splitlines():
            agent_files.write(self.base, EXCLUDE, known + os.fsencode(line) + b"\n")
        self.share_exclude()

    def share_exclude(self) -> None:
        """Make git in `code/`, if that is a repository, ignore inputs and what the user's does."""
        known = agent_files.read(self.base, EXCLUDE, LARGEST_EXCLUDE)
        repository = self.code / ".git"
        if known is not None and not repository.is_symlink() and repository.is_dir():
            agent_files.write(repository, EXCLUDE, known)


def _counts(name: str) -> bool:
    """Whether a path in `code/` is that of a file there or, in a repository, of a reference."""
    _, of_git, rest = f"/{name}".partition("/.git/")
    parts = (part for part in rest.split("/") if part == _LOGS or part in _REFERENCES)
    return not of_git or next(parts, _LOGS) != _LOGS


def disk_usage(place: Path) -> int:
    """Bytes on disk below a folder, or of a file, hard links counted once; what cannot be read
    counts nothing.
    """
    total, seen = 0, set[tuple[int, int]]()
    for entry in agent_files.walk(place, skip=True) if place.is_dir() else [place]:
        with suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            file = status.st_dev, status.st_ino
            if file in seen:
                continue
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                seen.add(file)
            total += status.st_blocks * 512
    return total


def copy_uncommitted(place: Path, code: Path, *, memory: int = git.MEMORY) -> None:
    """Commit what is uncommitted in the repository at `place` on top of its clone in `code`.

    This is outside the jail, so nothing that its configuration names is run. `memory` bounds what
    git takes (bytes): a file may be sparse. Raises GitFailed.
    """
    with tempfile.TemporaryDirectory(prefix="uncommitted.", dir=code.parent) as folder:
        patch = Path(folder) / "patch"
        try:
            root = git.top_level(str(place))
            index = git.own_index(root, Path(folder))
            git.add_all(root, index, git.new_files(root, index), memory=memory)
            words = [*git.DIFF, "--binary", "--full-index", git.last_commit(root)]
            with patch.open("wb") as file:
                # It is all in git's memory when it is applied.
                git.run(words, root, index, file.fileno(), memory=memory, most=memory)
            if patch.stat().st_size:
                off = git.programs_off(code, filters=False)
                words = ["apply", "--index", "--whitespace=nowarn"]
                git.run([*words, str(patch)], code, off, memory=memory)
                words = [*AUTHOR, "commit", "--quiet", "-m"]
                git.run([*words, "Uncommitted changes"], code, off)
        except GitFailed as error:
            raise GitFailed(f"cannot copy the uncommitted changes: {error}") from None


def _origin_of(place: Path) -> str:
    """Where the repository at `place` was cloned from, as the user's git spells it; empty for none.

    What its own settings include is not read: that may be another repository's file.
    """
    config = os.path.join(git.common_folder(place), "config")
    words = ["config", "--file", config, "--no-includes", "-z", "--get-all", "remote.origin.url"]
    try:
        url = git.run(words, place).split(b"\0")[0].decode("utf-8", "replace").strip()
        spelled = url and git.line(["ls-remote", "--get-url", "--", url], os.sep)
    except GitFailed:
        return ""
    return without_secrets(spelled)
