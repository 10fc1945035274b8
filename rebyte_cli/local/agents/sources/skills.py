"""Skills for local agents: folders with SKILL.md, found here or cloned from GitHub."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from posixpath import dirname, join, normpath
from typing import NamedTuple, TypeAlias

from .. import agent_files

SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
GITHUB = "github:"
# All four agents read one of these, and the clone in /code stays clean.
PLACES = (".agents/skills", ".claude/skills")
# With a manifest a skill is a plugin, whose hooks claude runs before the model says a word.
NOT_COPIED = (".git", ".claude-plugin")
# Of all skills of a run together: a repository can link to one folder as often as it likes, and
# a run has three copies of what it begins with, for which `keep_free` has room by default.
LARGEST, MOST_FILES = 100_000_000, 10_000  # bytes, and files, folders and links
LONGEST_DESCRIPTION = 1024  # characters; the most that the format of skills allows
DEEPEST = 100  # folders; Python copies a folder by calls within calls
MOST = f"{LARGEST // 10**6} MB in {MOST_FILES:,} files, {DEEPEST} folders deep"
MOST_LINKS = 40  # on the way to a skill, as the kernel follows
MOST_NAMED = 50  # in a hint
LITERALLY = {"GIT_LITERAL_PATHSPECS": "1"}
# What a run copies: a folder, whose name is the slug, or a skill of a repository with its slug, its
# folder and the top of the repository.
Source: TypeAlias = str | list[str]
NONE_KNOWN = "Put it into ~/.agents/skills/NAME/SKILL.md, or name one with github:OWNER/REPO/PATH"


class Skill(NamedTuple):
    """One skill that can be named: its slug, its folder, what its SKILL.md says it is, and the
    repository that it is a part of.
    """

    slug: str
    folder: Path
    description: str
    top: Path | None = None


class SkillFolder(NamedTuple):
    """A folder with skills; those of a repository do not lead out of its `top`."""

    folder: Path
    top: Path | None = None


class UnknownSkill(Exception):
    """A skill that is nowhere; `hint` names those that are known."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class SkillsTooLarge(OSError):
    """Skills that are more than a run may have; the text names the first that was not copied."""


class Room:
    """What skills that are copied may still take."""

    def __init__(self) -> None:
        self._bytes, self._files = LARGEST, MOST_FILES
        self.is_over = False

    def take(self, folder: str, names: Iterable[str], depth: int) -> bool:
        """Whether there is room for these of a folder, so deep in its skill. Raises OSError."""
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            self._files -= 1
            # That of a folder depends on what was in it before, and on the disk.
            self._bytes -= 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            if self._files < 0 or self._bytes < 0:
                break
        self.is_over |= self._files < 0 or self._bytes < 0 or depth > DEEPEST
        return not self.is_over


def folders(config_dir: Path | None, here: Path | None) -> list[SkillFolder]:
    """Where skills are, the ones that win first. `here` is the repository to look into."""
    result = [] if config_dir is None else [SkillFolder(config_dir / "skills")]
    result += [SkillFolder(Path.home() / place) for place in PLACES]
    if here is not None:
        result += [SkillFolder(here / place, here) for place in PLACES]
    return result


def known(places: Iterable[SkillFolder]) -> dict[str, Skill]:
    """The skills in these folders by slug; the first folder that has a slug wins.

    A repository can have any number: of each folder, the first `MOST_FILES` names count.
    """
    result: dict[str, Skill] = {}
    for place, top in places:
        try:
            names = sorted(filter(SLUG.fullmatch, os.listdir(place)))
        except OSError:
            continue
        for entry in (place / name for name in names[:MOST_FILES]):
            if not (entry / "SKILL.md").is_file():
                continue
            if top is None or _stays(entry, top):
                skill = Skill(entry.name, entry, _description(entry / "SKILL.md"), top)
                result.setdefault(entry.name, skill)
    return result


def _stays(skill: Path, top: Path) -> bool:
    """Whether a folder is a part of a repository, and neither all of it nor git's own."""
    top = top.resolve()
    found = skill.resolve(), (skill / "SKILL.md").resolve()
    return found[0] != top and all(
        path.is_relative_to(top) and ".git" not in path.relative_to(top).parts for path in found
    )


def resolve(slugs: Iterable[str], places: list[SkillFolder], cache: Path) -> list[Source]:
    """The named skills. Raises UnknownSkill, or GitFailed when git cannot clone or read one."""
    found = known(places)
    result: list[Source] = []
    for slug in dict.fromkeys(slugs):
        if slug.startswith(GITHUB):
            result.append(str(_from_github(slug.removeprefix(GITHUB), cache)))
        elif slug in found:
            result.append(_source(found[slug]))
        elif any(
            top and SLUG.fullmatch(slug) and (folder / slug).exists() for folder, top in places
        ):
            raise UnknownSkill(
                f"The skill {slug!r} leads out of its repository, or has no SKILL.md"
            )
        else:
            names = ", ".join(sorted(found))
            raise UnknownSkill(
                f"There is no skill {slug!r} on this machine",
                f"Known skills: {names}" if names else NONE_KNOWN,
            )
    return result


def _source(skill: Skill) -> Source:
    if skill.top is None:
        return str(skill.folder)
    folder, top = skill.folder.resolve(), skill.top.resolve()
    tracked = _tracked(folder, top)
    # What the user has put there and not committed is the user's own. Not what a link leads to: a
    # repository can link to wherever the user keeps secrets in it.
    is_own = not tracked and folder.relative_to(top) == skill.folder.relative_to(skill.top)
    if is_own:
        return str(skill.folder)
    if folder / "SKILL.md" not in tracked:
        raise UnknownSkill(f"SKILL.md of the skill {skill.slug!r} is not tracked by git")
    return [skill.slug, str(folder), str(top)]


def _tracked(folder: Path, top: Path) -> set[Path]:
    """The files below `folder` that the repository at `top` tracks, and the folders with them."""
    from ....system import git

    # Of the names in the index, which can be forged, none is opened.
    words = ["ls-files", "-z", "--", f":(literal){folder.relative_to(top)}"]
    files = [top / name for name in git.paths(words, top)]
    return {path for file in files for path in (file, *file.parents)}


def install(
    home: Path, sources: Iterable[Source], places: Iterable[str] = PLACES, room: Room | None = None
) -> None:
    """Copy skills into the private HOME; of two with one name, the last.

    There is so much `room` for those of all places, or as much as a run may have in each. Raises
    GitFailed, SkillsTooLarge and other OSErrors.
    """
    copies = {place: room or Room() for place in places}
    for source in sources:
        slug, folder, *top = [Path(source).name, source] if isinstance(source, str) else source
        tracked = _tracked(Path(folder), Path(top[0])) if top else None
        for place, left in copies.items():
            _copy(Path(folder), tracked, home, f"{place}/{slug}", left)


def _copy(source: Path, tracked: set[Path] | None, home: Path, name: str, room: Room) -> None:
    """Copy a folder, or what is `tracked` of it, to `name` in the private HOME."""
    import shutil

    def left_out(here: str, names: list[str]) -> Iterable[str]:
        kept = {
            each
            for each in names
            if each not in NOT_COPIED and (tracked is None or Path(here, each) in tracked)
        }
        depth = len(Path(here).relative_to(source).parts)
        return set(names) - kept if room.take(here, kept, depth) else names

    agent_files.folder(home, str(PurePosixPath(name).parent))
    agent_files.remove(home, name)
    if not room.is_over:
        # Links stay links: what they lead to outside the skill is not for the agent.
        shutil.copytree(source, home / name, symlinks=True, ignore=left_out)
    if room.is_over:
        agent_files.remove(home, name)
        raise SkillsTooLarge(
            f"skills were not copied from {PurePosixPath(name).name} on: those of a run may have"
            f" {MOST}"
        )


def _from_github(name: str, cache: Path) -> Path:
    """The folder of `OWNER/REPO[/PATH]` (or the repository's URL), made by the first who asks."""
    from ....system.files import flocked
    from ....system.permissions import make_folder

    parts = name.removeprefix("https://github.com/").removesuffix("/").split("/")
    # Anything else git could take for a folder, or for a command of its `ext::` protocol.
    is_github = all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", part) for part in parts[:2])
    if len(parts) < 2 or not is_github or any(part in ("", ".", "..") for part in parts):
        raise UnknownSkill(f"github:{name} is not github:OWNER/REPO or github:OWNER/REPO/PATH")
    owner, repository, path = parts[0], parts[1].removesuffix(".git"), "/".join(parts[2:])
    whole = cache / f"{owner}+{repository}"
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    tops = (whole, whole.with_name(f"{whole.name}@{digest}") if path else whole)
    top = next((one for one in tops if (one / path / "SKILL.md").is_file()), None)
    if top is None:
        top = tops[-1]
        make_folder(cache)
        with (
            flocked(cache / f".{whole.name}.lock", create=True),
            agent_files.new_folder(cache, f".{whole.name}@new") as making,
        ):
            if not top.exists():
                clone = _clone(f"{owner}/{repository}", whole, making)
                _check_out(clone, name, path, making)
                (making / "tree").rename(top)
    if not (top / path).resolve().is_relative_to(top.resolve()):
        raise UnknownSkill(f"github:{name} leads out of its repository")
    return top / path


def _clone(repository: str, whole: Path, making: Path) -> Path:
    """git's folder for a repository of GitHub, without its files: what they take is not known."""
    from .clone import clone as make_clone
    from .source import clone_url

    clone = whole.with_name(f"{whole.name}@git")
    if not clone.exists():
        agent_files.remove_tree(making)
        options = ["--quiet", "--depth=1", "--bare", "--template="]
        make_clone(clone_url(repository), making, options)
        making.rename(clone)
    return clone


def _check_out(clone: Path, name: str, path: str, making: Path) -> None:
    """Write the files of a skill to `making/tree`, with links on the way to it.

    Raises UnknownSkill for what is none, or is more than a run may have: a repository of some
    kilobytes can have a large file under any number of names.
    """
    from ....system import git

    *links, folder = _way(clone, name, path)
    above = [str(each / ".gitattributes") for each in PurePosixPath(folder, "x").parents]
    wanted = [*links, *above, folder] if folder else []
    listed = git.paths(
        ["ls-tree", "-rtlz", "--full-tree", "HEAD", "--", *wanted],
        clone, LITERALLY | git.bare(clone), most=MOST_FILES * git.LONGEST_PATH,
    )  # fmt: skip
    sizes = {}
    for entry in listed:
        state, _, file = entry.partition("\t")
        sizes[file] = state.split()[-1]
    if str(PurePosixPath(folder, "SKILL.md")) not in sizes:
        raise UnknownSkill(f"github:{name} has no SKILL.md", _others(clone))
    size = sum(int(size) for size in sizes.values() if size != "-")  # of a submodule
    depth = max(file.count("/") for file in sizes) - folder.count("/")
    if size > LARGEST or len(sizes) > MOST_FILES or depth > DEEPEST:
        raise UnknownSkill(f"github:{name} is too large: a skill may have {MOST}")
    agent_files.remove_tree(making)
    (making / "tree").mkdir(parents=True)
    variables = LITERALLY | git.bare(clone)
    variables |= git.programs_off(clone, variables, filters=False) | {
        "GIT_WORK_TREE": str(making / "tree"),
        "GIT_INDEX_FILE": str(making / "index"),
    }  # fmt: skip
    found = [each for each in wanted if each == folder or each in sizes] or ["."]
    git.run(["checkout", "--quiet", "HEAD", "--", *found], making / "tree", variables)
    if not (making / "tree" / path / "SKILL.md").is_file():
        raise UnknownSkill(f"SKILL.md of github:{name} is no file in its folder")


def _way(clone: Path, name: str, path: str) -> list[str]:
    """The links on the way to a path in a repository, and where it ends; the root is empty."""
    from ....system import git

    passed: list[str] = []
    variables = LITERALLY | git.bare(clone)
    while path:
        above = [str(each) for each in (PurePosixPath(path), *PurePosixPath(path).parents)]
        words = ["ls-tree", "-z", "--full-tree", "HEAD", "--", *above[:-1]]
        entries = [entry.partition("\t") for entry in git.paths(words, clone, variables)]
        links = {file: state.split()[2] for state, _, file in entries if state[:6] == "120000"}
        if not links:
            break
        link = min(links, key=len)
        target = git.run(["cat-file", "blob", links[link]], clone, variables, most=git.LONGEST_PATH)
        passed.append(link)
        below = path[len(link) + 1 :]
        path = normpath(join(dirname(link), os.fsdecode(target), below))
        path = "" if path == "." else path
        leads_out = path.startswith(("/", "../")) or path == ".." or "\0" in path
        if leads_out or len(passed) > MOST_LINKS:
            raise UnknownSkill(f"github:{name} leads out of its repository")
    return [*passed, path]


def _others(clone: Path) -> str:
    """The hint that names the folders with a skill in a repository."""
    from ....system import git

    words = ["ls-tree", "-rz", "--name-only", "--full-tree", "HEAD"]
    files = git.paths(words, clone, git.bare(clone))
    found = (PurePosixPath(file) for file in files if file.endswith("SKILL.md"))
    folders_with_one = sorted(str(each.parent) for each in found if each.name == "SKILL.md")
    more = ", …" if len(folders_with_one) > MOST_NAMED else ""
    names = ", ".join(folders_with_one[:MOST_NAMED]) or "none"
    return f"Folders that have one: {names}{more}"


def _description(path: Path) -> str:
    """The `description` of SKILL.md's front matter, on one line."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(8192)
    except OSError:
        return ""
    found = re.search(r"^description:[ \t]*(.*(?:\n[ \t]+.+)*)", head, re.MULTILINE)
    words = " ".join(found[1].split()) if found else ""
    words = words.removeprefix(">-").removeprefix(">").removeprefix("|").strip(" \"'")
    return words[:LONGEST_DESCRIPTION]
