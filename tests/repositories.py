"""Git repositories on disk."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(folder: Path, *words: str) -> str:
    """Run git in a folder, with an author for commits; what it prints."""
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


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
