"""Commits of repositories on other machines, for tasks that start from them.

A command that reaches this service over ssh has its repository elsewhere, so it uploads what is
missing here as a git bundle (this service's own extension). For each repository there is a bare one
here, which all working trees of that share, but no other clone: `rebyte local trust` is about one
of them. Each commit that a task starts from has its own branch in it, so that no other create moves
it away.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ..system import git
from ..system.files import flocked
from ..system.permissions import make_folder
from . import http
from .http import Context, caller_of, invalid, missing
from .wsgi import HttpRequest, HttpResponse

FOLDER = "repositories"
MOST_COMMITS = 100  # that are named to a command, the newest first
_KEY = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def commits(context: Context, request: HttpRequest, key: str) -> HttpResponse:
    """GET /repositories/{key}: `commits`, of which everything that they reach is here."""
    folder = _folder(context, request, key)
    found: list[str] = []
    if folder.is_dir():
        words = ["for-each-ref", "--sort=-committerdate", f"--count={MOST_COMMITS}"]
        said = git.run([*words, "--format=%(objectname)", "refs/heads"], folder)
        found = said.decode("ascii").split()
    return http.reply({"commits": list(dict.fromkeys(found))})


def add(context: Context, request: HttpRequest, key: str) -> HttpResponse:
    """POST /repositories/{key}: take over a commit. The answer has its `path` and `branch` here.

    `fileId` is an uploaded bundle with what is missing, in which `ref` is the commit; without it,
    everything is here. `name` begins the name of the branch.
    """
    body = http.body_of(request)
    folder = _folder(context, request, key)
    commit = http.text(body, "commit", most=64)
    if not _COMMIT.fullmatch(commit):
        invalid("commit must be the whole name of a commit")
    branch = f"{http.text(body, 'name', most=200)}-{commit[:12]}"
    file_id = http.optional_text(body, "fileId", most=64, least=1)
    try:
        git.run(["check-ref-format", f"refs/heads/{branch}"])
        _prepare(folder, "sha256" if len(commit) > 40 else "sha1")
        with flocked(folder):
            bundle = None if file_id is None else _uploaded(context, file_id)
            if bundle is not None and bundle.exists():  # else it was taken over before
                ref = http.text(body, "ref", most=300)
                words = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(bundle)]
                git.run([*words, f"+{ref}:refs/heads/{branch}"], folder)
                bundle.unlink()
            else:
                git.run(["update-ref", f"refs/heads/{branch}", commit], folder)
        words = ["rev-parse", "--verify", "--quiet", f"refs/heads/{branch}"]
        if git.run(words, folder).decode("ascii").strip() != commit:
            invalid("the bundle has another commit")
    except git.GitFailed as error:
        invalid(f"The commits cannot be taken over: {error}")
    return http.reply({"path": str(folder), "branch": branch})


def remove_all(state_dir: Path) -> None:
    """Forget every repository."""
    shutil.rmtree(state_dir / FOLDER, ignore_errors=True)


def _folder(context: Context, request: HttpRequest, key: str) -> Path:
    """Where a repository is, or will be. Raises Refusal for any key but the machine's own."""
    if not (_KEY.fullmatch(key) and caller_of(context, request).is_own):
        raise missing("Repository")
    return context.store.folder / FOLDER / f"{key}.git"


def _prepare(folder: Path, hashes: str) -> None:
    if not (folder / "HEAD").exists():
        make_folder(folder)
        words = ["init", "--quiet", "--bare", "--template=", f"--object-format={hashes}"]
        git.run([*words, str(folder)])


def _uploaded(context: Context, file_id: str) -> Path:
    with context.store.read() as db:
        row = db.execute("SELECT id FROM files WHERE id = ? AND uploaded", (file_id,)).fetchone()
    if row is None:
        raise missing("File")
    return context.store.objects / str(row["id"])
