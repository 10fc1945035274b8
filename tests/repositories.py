"""Git repositories on disk."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.servers import Request, reply

# Writes an index with entries that git itself would refuse: PATH|MODE|CONTENT as arguments.
FORGE = r"""
import hashlib, struct, subprocess, sys
def blob(content):
    words = ["git", "hash-object", "-w", "--stdin"]
    return subprocess.run(words, input=content, capture_output=True, check=True).stdout.strip()
entries = []
for line in subprocess.run(["git", "ls-files", "-s"], capture_output=True).stdout.splitlines():
    state, path = line.split(b"\t")
    mode, name, _ = state.split(b" ")
    entries.append((path, int(mode, 8), name))
for each in sys.argv[2:]:
    path, mode, content = each.split("|", 2)
    entries.append((path.encode(), int(mode, 8), blob(content.encode())))
data = b""
for path, mode, name in sorted(entries):
    entry = struct.pack(">10I", 0, 0, 0, 0, 0, 0, mode, 0, 0, 0) + bytes.fromhex(name.decode())
    entry += struct.pack(">H", len(path)) + path
    data += entry + bytes(8 - len(entry) % 8)
data = b"DIRC" + struct.pack(">II", 2, len(entries)) + data
open(sys.argv[1], "wb").write(data + hashlib.sha1(data).digest())
"""


def git(folder: Path, *words: str) -> str:
    """Run git in a folder, with an author for commits; what it prints."""
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def introduce(home: Path) -> None:
    """Tell git who the user is: Ada."""
    (home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.com\n")


def name_bare_ones(home: Path) -> None:
    """Tell git to take no folder for a bare repository unless it is named as one."""
    with (home / ".gitconfig").open("a") as config:
        config.write("[safe]\n\tbareRepository = explicit\n")


# How the simulation changes what `with_answer` makes, and a check that tells it how to pass. The
# check must not name the file, which it would protect then.
HINT = "[[write=answer.txt:right]]"
WRONG = "[[write=answer.txt:wrong]]"
CHECK = (
    "ls | grep ^ans | xargs grep -q right || "
    "{ echo wrong answer; printf '[[write=%s.txt:right]]\\n' answer; exit 3; }"
)


def with_answer(folder: Path) -> Path:
    """A repository in a new folder, without a remote, whose `answer.txt` says `none`."""
    return _with_file(folder, "answer.txt", "none\n")


class Repository:
    """A clone of a bare repository on disk, with one pushed commit on main."""

    def __init__(self, folder: Path) -> None:
        self.origin = folder / "acme" / "shop.git"
        self.path = folder / "shop"
        subprocess.run(["git", "init", "-qb", "main", "--bare", self.origin], check=True)
        subprocess.run(["git", "clone", "-q", self.origin, self.path], check=True)
        self("checkout", "-qb", "main")
        self.write("a.txt", "one\n")
        self.write(".gitignore", "*.log\n")
        self.commit("First")
        self("push", "-qu", "origin", "main")

    def __call__(self, *words: str) -> str:
        return git(self.path, *words)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def commit(self, message: str) -> None:
        self("add", "--all")
        self("commit", "-qm", message)

    def applied(self, patch: bytes) -> Path:
        """A new clone of origin with the patch applied."""
        clone = self.path.parent / "applied"
        subprocess.run(["git", "clone", "-q", self.origin, clone], check=True)
        subprocess.run(["git", "-C", clone, "apply", "--3way"], input=patch, check=True)
        return clone


def small_repository(folder: Path) -> Path:
    """A new repository with one commit on `main`: `code.txt`, which says "one"."""
    return _with_file(folder, "code.txt", "one\n")


def _with_file(folder: Path, name: str, text: str) -> Path:
    folder.mkdir()
    (folder / name).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def snapshot(folder: Path) -> tuple[str, ...]:
    """What a command must leave alone: HEAD, `main`, the index, and the files with their times."""
    files = sorted(path for path in folder.rglob("*") if ".git" not in path.parts)
    return (
        (folder / ".git/HEAD").read_text(),
        git(folder, "rev-parse", "--verify", "-q", "main"),
        str((folder / ".git/index").read_bytes()),
        *(f"{path} {path.lstat().st_mtime_ns} {path.lstat().st_mode}" for path in files),
    )


def git_server(root: Path, login: str = "") -> Callable[[Request], bytes]:
    """What a `RawServer` answers for the bare repositories below `root`: git's own program does.

    With a `login`, `user:password`, only to those who send it.
    """
    wanted = "Basic " + base64.b64encode(login.encode()).decode()

    def answer(request: Request) -> bytes:
        if login and request.headers.get("authorization") != wanted:
            return reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        path, _, query = request.path.partition("?")
        about = {
            "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
        }  # fmt: skip
        words, variables = ["git", "http-backend"], os.environ | about
        done = subprocess.run(
            words, input=request.body, env=variables, capture_output=True, check=True
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return reply(int(headers.pop("Status", "200").split()[0]), body, headers)

    return answer
