"""The files that simulated runs write, as prompts ask for them, and the patch that they make.

`[[write=PATH:TEXT]]` leaves a `changes.patch` in the workspace of a task that has a repository. If
that is a folder on this machine, it is a patch of the commit that the folder had then.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..system import git

LARGEST = 100_000  # bytes of a file: as long as a prompt
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([nt\\]))")
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


def parse(word: str) -> tuple[str, str]:
    """The path and the content of a `PATH:TEXT`; the file ends with a line break.

    In TEXT, `\\n`, `\\t`, `\\\\` and `\\uXXXX` stand for characters. Raises ValueError for a path
    that no repository can have.
    """
    path, found, text = word.partition(":")
    parts = PurePosixPath(path).parts
    names = {part.casefold() for part in parts}
    if not found or not parts or path.startswith("/") or {"..", ".git"} & names or "\\" in path:
        raise ValueError("[[write]] needs PATH:TEXT, with a path inside the repository")
    content = _ESCAPE.sub(lambda hit: chr(int(hit[1], 16)) if hit[1] else _ESCAPES[hit[2]], text)
    content = content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return str(PurePosixPath(path)), content + "\n"


def base_of(body: Mapping[str, Any], *, may_read: bool) -> list[str] | None:
    """The repository that a task is about: its folder and commit; None for none.

    Both are empty where it is elsewhere, or the caller `may_read` no folder of the user.
    """
    folder, branch = body.get("localRepository"), body.get("branchName")
    if not (folder or body.get("githubUrl")):
        return None
    if not (may_read and isinstance(folder, str) and os.path.isabs(folder)):
        return ["", ""]
    with contextlib.suppress(git.GitFailed):
        git.check_repository(folder)
        if ref := git.ref_of(folder, branch):
            return [folder, git.commit_of(folder, ref)]
    return ["", ""]


def patch(base: Sequence[str], writes: Iterable[tuple[str, str]]) -> bytes:
    """What these files (path and content, the last one counts) change of `base`, as a patch.

    Raises GitFailed.
    """
    folder, commit = base
    with tempfile.TemporaryDirectory(prefix="rebyte-") as scratch:
        made = Path(scratch) / "made.git"
        hashes = "sha256" if len(commit) > 40 else "sha1"
        git.run(["init", "-q", "--bare", "--template=", f"--object-format={hashes}", str(made)])
        variables = git.bare(made)
        if commit:
            words = ["rev-parse", "--path-format=absolute", "--git-path", "objects"]
            objects = git.line(words, folder)
            variables["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = git.quoted(objects)
        else:
            commit = git.line(["hash-object", "-t", "tree", "-w", "/dev/null"], made, variables)
        git.run(["read-tree", commit], made, variables)
        for path, content in dict(writes).items():
            words = ["hash-object", "-w", "--no-filters", "--stdin"]
            blob = git.run(words, made, variables, given=content.encode()).decode().strip()
            listed = git.run(["ls-files", "--stage", "--", path], made, variables)
            mode = "100755" if listed.startswith(b"100755 ") else "100644"
            entry = f"{mode},{blob},{path}"
            git.run(["update-index", "--add", "--replace", "--cacheinfo", entry], made, variables)
        return git.run([*git.DIFF, "--binary", "--full-index", commit], made, variables)
