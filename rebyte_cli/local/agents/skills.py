"""Skills for local agents: folders with SKILL.md, found here or cloned from GitHub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
GITHUB = "github:"
# All four agents read one of these, and the clone in /code stays clean.
PLACES = (".agents/skills", ".claude/skills")
NONE_KNOWN = "Put it into ~/.agents/skills/NAME/SKILL.md, or name one with github:OWNER/REPO/PATH"


class Skill(NamedTuple):
    """One skill that can be named: its slug, its folder, and what its SKILL.md says it is."""

    slug: str
    folder: Path
    description: str


class UnknownSkill(Exception):
    """A skill that is nowhere; `hint` names those that are known."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def folders(config_dir: Path | None, here: Path | None) -> list[Path]:
    """Where skills are, the ones that win first. `here` is the repository to look into."""
    result = [] if config_dir is None else [config_dir / "skills"]
    for root in filter(None, (Path.home(), here)):
        result += [root / place for place in PLACES]
    return result


def known(places: Iterable[Path]) -> dict[str, Skill]:
    """The skills in these folders by slug; the first folder that has a slug wins."""
    result: dict[str, Skill] = {}
    for place in places:
        try:
            entries = sorted(place.iterdir())
        except OSError:
            continue
        for entry in entries:
            if SLUG.fullmatch(entry.name) and (entry / "SKILL.md").is_file():
                skill = Skill(entry.name, entry, _description(entry / "SKILL.md"))
                result.setdefault(entry.name, skill)
    return result


def resolve(slugs: Iterable[str], places: list[Path], cache: Path) -> list[str]:
    """The folders of the named skills. Raises UnknownSkill, or GitError for one to be cloned."""
    found = known(places)
    result = []
    for slug in dict.fromkeys(slugs):
        if slug.startswith(GITHUB):
            result.append(str(_from_github(slug.removeprefix(GITHUB), cache)))
        elif slug in found:
            result.append(str(found[slug].folder.resolve()))
        else:
            names = ", ".join(sorted(found))
            raise UnknownSkill(
                f"There is no skill {slug!r} on this machine",
                f"Known skills: {names}" if names else NONE_KNOWN,
            )
    return result


def install(home: Path, sources: Iterable[str]) -> None:
    """Copy skills into the private HOME; of two with one name, the last."""
    import shutil

    from . import confined

    for source in map(Path, sources):
        for place in PLACES:
            target = confined.folder(home, place) / source.name
            confined.remove(home, f"{place}/{source.name}")
            # Links stay links: what they lead to outside the skill is not for the agent.
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(".git"))


def _from_github(name: str, cache: Path) -> Path:
    """The folder of `OWNER/REPO[/PATH]` (or the repository's URL), cloned once."""
    parts = name.removeprefix("https://github.com/").removesuffix("/").split("/")
    # Anything else git could take for a folder, or for a command of its `ext::` protocol.
    is_github = all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", part) for part in parts[:2])
    if len(parts) < 2 or not is_github or any(part in ("", ".", "..") for part in parts):
        raise UnknownSkill(f"github:{name} is not github:OWNER/REPO or github:OWNER/REPO/PATH")
    clone = _clone(parts[0], parts[1].removesuffix(".git"), cache)
    folder = clone.joinpath(*parts[2:])
    if not (folder / "SKILL.md").is_file():
        folders_with_one = sorted(
            path.parent.relative_to(clone).as_posix() for path in clone.rglob("SKILL.md")
        )
        names = ", ".join(folders_with_one) or "none"
        raise UnknownSkill(f"github:{name} has no SKILL.md", f"Folders that have one: {names}")
    if not folder.resolve().is_relative_to(clone.resolve()):
        raise UnknownSkill(f"github:{name} leads out of its repository")
    return folder


def _clone(owner: str, repository: str, cache: Path) -> Path:
    """The clone of a repository of GitHub in `cache`, made by the first who asks for it."""
    import fcntl
    import shutil

    from ...system import git
    from .source import CLONE_SECONDS, clone_url

    clone = cache / f"{owner}+{repository}"
    if clone.exists():
        return clone
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (cache / f".{clone.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not clone.exists():
            partial = cache / f".{clone.name}.new"
            shutil.rmtree(partial, ignore_errors=True)
            url = clone_url(f"{owner}/{repository}")
            words = ["clone", "--quiet", "--depth=1", "--template="]
            git.run([*words, "--", url, str(partial)], timeout=CLONE_SECONDS)
            partial.rename(clone)
    return clone


def _description(path: Path) -> str:
    """The `description` of SKILL.md's front matter, on one line."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(8192)
    except OSError:
        return ""
    found = re.search(r"^description:[ \t]*(.*(?:\n[ \t]+.+)*)", head, re.MULTILINE)
    words = " ".join(found[1].split()) if found else ""
    return words.removeprefix(">-").removeprefix(">").removeprefix("|").strip(" \"'")
