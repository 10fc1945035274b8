"""A workspace of real agents: a folder with `code/`, the private `home/`, and `runs/ID/`.

`base.git` remembers what `code/` was when the workspace was made. It is kept outside `code/`,
so that an agent that rewrites its own repository cannot change what its work is compared with.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...system import git
from ...system.git import GitFailed
from . import confined
from .source import CLONE_SECONDS, clone_url, local_path, without_password
from .source import login as source_login

BASE = "base.git"
# A copy on the same disk is not worth half a minute of looking for deltas between loose objects.
UPLOAD_PACK = "git -c pack.window=0 upload-pack"
# Of our own commits: git needs a name, and must not ask for the passphrase of a key.
AUTHOR = (
    "-c", "user.name=rebyte", "-c", "user.email=rebyte@localhost", "-c", "commit.gpgSign=false",
)  # fmt: skip


class WorkspaceSource(NamedTuple):
    """What a workspace starts from: a repository, a branch, and uncommitted changes or not."""

    repository: str | None
    branch: str | None
    with_changes: bool


class UploadedFile(NamedTuple):
    """An uploaded file: its name in `/code`, and where its bytes are."""

    name: str
    path: Path


class Workspace:
    """The folder of one workspace below `state_dir`. Nothing is made until `prepare`."""

    def __init__(self, state_dir: Path, workspace_id: str) -> None:
        self.folder = state_dir / "workspaces" / workspace_id
        self.code = self.folder / "code"
        self.home = self.folder / "home"
        self.base = self.folder / BASE

    def run_folder(self, prompt_id: str) -> Path:
        """Where the files of one run are: its lock, log and raw streams."""
        return self.folder / "runs" / prompt_id

    def prepare(self, source: WorkspaceSource, uploads: Iterable[UploadedFile]) -> None:
        """Make `code/` and `home/` if they are missing, clone the repository, stage the files.

        Raises GitFailed, or OSError when the disk does not take it.
        """
        for folder in (self.folder, self.home):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.base.exists():
            self._start(source)
        for upload in uploads:
            self._stage(upload)

    def remove(self) -> None:
        """Delete everything. Raises nothing for a workspace that is not there."""
        confined.remove_tree(self.folder)

    def _start(self, source: WorkspaceSource) -> None:
        """Make `code/` from its source; `base.git` comes last and says that it is complete."""
        confined.remove_tree(self.code)
        if source.repository is None:
            self.code.mkdir(mode=0o700)
        else:
            self._clone(source)
        making = self.folder / f"{BASE}.new"
        shutil.rmtree(making, ignore_errors=True)
        git.run(["init", "--quiet", "--bare", "--template=", str(making)])
        base = ["--git-dir", str(making)]
        if source.repository is not None and _has_commit(self.code):
            # Of the history only what the changes are compared with.
            git.run([*base, "fetch", "--quiet", "--depth=1", str(self.code), "HEAD"])
            commit = "FETCH_HEAD"
        else:
            tree = git.run([*base, "hash-object", "-t", "tree", "-w", "/dev/null"]).decode().strip()
            commit = git.run([*base, *AUTHOR, "commit-tree", tree, "-m", "Start"]).decode().strip()
        git.run([*base, "update-ref", "refs/heads/base", commit])
        git.run([*base, "symbolic-ref", "HEAD", "refs/heads/base"])
        os.replace(making, self.base)

    def _clone(self, source: WorkspaceSource) -> None:
        assert source.repository is not None
        url = clone_url(source.repository)
        place = local_path(url)
        words = ["clone", "--quiet", "--template="]
        if source.branch:
            words += ["--branch", source.branch]
        try:
            if place is not None:
                git.check_repository(str(place))
                # Only what the branch reaches: no other branch, no stash, nothing thrown away.
                words += ["--no-local", "--single-branch", "--upload-pack", UPLOAD_PACK]
            login = source_login(url, os.environ)
            words += ["--", str(place or url), str(self.code)]
            git.run(words, extra=login, timeout=CLONE_SECONDS)
        except GitFailed as error:
            raise GitFailed(f"cannot clone {without_password(url)}: {error}") from None
        origin = without_password(url)
        if place is not None:
            origin = _origin_of(place) or str(place)
        git.run(["remote", "set-url", "origin", origin], self.code)
        if place is not None and source.with_changes:
            self._bring_changes(place)

    def _bring_changes(self, place: Path) -> None:
        """Commit what is uncommitted in the repository at `place` on top of the clone.

        This is outside the jail, so nothing that its configuration names is run.
        """
        with tempfile.TemporaryDirectory(prefix="uncommitted.", dir=self.folder) as folder:
            patch = Path(folder) / "patch"
            try:
                root = git.top_level(str(place))
                index = git.own_index(root, Path(folder))
                git.add_all(root, index, git.new_files(root, index))
                words = [*git.DIFF, "--binary", "--full-index", "HEAD"]
                with patch.open("wb") as file:
                    git.run(words, root, index, file.fileno())
                if patch.stat().st_size:
                    words = ["apply", "--index", "--whitespace=nowarn"]
                    git.run([*words, str(patch)], self.code)
                    words = [*AUTHOR, "commit", "--quiet", "-m"]
                    git.run([*words, "Uncommitted changes"], self.code)
            except GitFailed as error:
                raise GitFailed(f"cannot copy the uncommitted changes: {error}") from None

    def _stage(self, upload: UploadedFile) -> None:
        """Copy an uploaded file to `/code/NAME`, never through a link that an agent left there."""
        target = self.code / upload.name
        if target.exists() and not target.is_symlink() and target.is_dir():
            raise GitFailed(f"/code/{upload.name} is a folder: the uploaded file has no place")
        partial = self.code / f".{upload.name}.part"
        partial.unlink(missing_ok=True)
        shutil.copyfile(upload.path, partial, follow_symlinks=False)
        os.replace(partial, target)
        self._exclude(upload.name)

    def _exclude(self, name: str) -> None:
        """Keep an input out of the patch and out of the agent's commits: it is no result."""
        path = self.base / "info/exclude"
        path.parent.mkdir(exist_ok=True)
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        line = "/" + "".join(f"\\{each}" if each in "*?[\\!# " else each for each in name)
        if line not in known.splitlines():
            path.write_text(f"{known}{line}\n", encoding="utf-8")
        self.share_exclude()

    def share_exclude(self) -> None:
        """Make git in `code/`, if that is a repository, ignore the inputs."""
        path, repository = self.base / "info/exclude", self.code / ".git"
        if path.exists() and repository.is_dir() and not repository.is_symlink():
            confined.write(repository, "info/exclude", path.read_bytes())


def disk_usage(folder: Path) -> int:
    """Bytes on disk below `folder`, hard links counted once; what cannot be read counts nothing."""
    total, seen, waiting = 0, set(), [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                # Windows does not count in blocks.
                total += getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
    return total


def _has_commit(code: Path) -> bool:
    try:
        git.run(["rev-parse", "--quiet", "--verify", "HEAD"], code)
    except GitFailed:
        return False
    return True


def _origin_of(place: Path) -> str | None:
    try:
        url = git.run(["remote", "get-url", "origin"], place)
    except GitFailed:
        return None
    return without_password(url.decode("utf-8", "replace").strip())
