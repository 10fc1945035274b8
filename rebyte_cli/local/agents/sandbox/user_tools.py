"""The user's own tools and caches: `[local] tools` and `caches` of config.toml, in the jail.

A tool is more than its file: a link leads to an installation, a script needs its interpreter, a
shim the versions that it chooses from. All of that is shown where it is outside, read-only.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ....system.permissions import mounted
from .. import agent_files
from ..adapters import programs
from ..adapters.built_in import LOGINS
from . import jail

# What nothing that is shown may hold or be a part of, besides the agents' logins and rebyte's own
# folders; below HOME unless absolute.
PRIVATE = (
    ".aws", ".azure", ".cache/huggingface/token", ".cargo/credentials.toml", ".claude.json",
    ".config/gcloud", ".config/gh", ".docker", ".git-credentials", ".gnupg",
    ".gradle/gradle.properties", ".kube", ".local/share/keyrings", ".m2/settings.xml", ".mozilla",
    ".netrc", ".npmrc", ".password-store", ".pypirc", ".ssh", "/etc/shadow", "/run/user",
)  # fmt: skip
# Folders of managers whose programs need what is kept elsewhere: where, and the variable with it.
KEPT = {
    ".asdf/shims": ("..", "ASDF_DATA_DIR"),
    ".cargo/bin": ("../../.rustup", "RUSTUP_HOME"),
    ".local/share/mise/shims": ("..", "MISE_DATA_DIR"),
    ".volta/bin": ("..", "VOLTA_HOME"),
}
# Where the jail has its own files, links among them.
LINKS_THERE = (*programs.SYSTEM_FOLDERS, "/dev", "/etc", "/proc", "/var/tmp")  # noqa: S108
DEFAULT_VERSIONS = ".tool-versions"  # of asdf, in HOME
_NAME = r"([\w.+-]{1,40})"
NOT_FOUND = re.compile(
    rf"(?:^|: ){_NAME}: command not found|command not found: {_NAME}"
    rf"|sh: (?:\d+: )?{_NAME}: not found|env: ['\u2018]?{_NAME}['\u2019]?: No such file",
    re.MULTILINE,
)
MOST_NAMED = 5


class ShownTools(NamedTuple):
    """What the jail gets: arguments of bubblewrap, folders of PATH, and variables."""

    arguments: list[str]
    folders: list[str]
    variables: dict[str, str]


def own_folders(*folders: str | os.PathLike[str] | None) -> list[str]:
    """rebyte's own folders, of which a jail shows only what belongs to its run.

    Takes that with config.toml and the keys, and that with the runs; None for one that is not
    known.
    """
    return [str(folder) for folder in folders if folder is not None]


def why_not(path: str, own: Iterable[str]) -> str:
    """Why a path, which may begin with `~`, must not be shown; empty for nothing.

    `own` are rebyte's own folders.
    """
    if not path.startswith(("/", "~/")):
        return "it begins with neither / nor ~/"
    homes, expanded = {str(Path.home()), str(Path.home().resolve())}, os.path.expanduser(path)
    named = [os.path.join(home, each) for each in (*PRIVATE, *LOGINS, *own) for home in homes]
    # A link can lead to a secret from elsewhere, and to elsewhere from the place of one.
    secrets = dict.fromkeys([*named, *map(os.path.realpath, named)])
    for place in dict.fromkeys((os.path.normpath(expanded), os.path.realpath(expanded))):
        for secret in secrets:
            if _is_in(secret, place):
                return f"it holds {_short(secret)}"
            if _is_in(place, secret):
                return f"{_short(secret)} is private"
    return ""


def find_shown(
    options: Mapping[str, Any],
    outside: Mapping[str, str],
    seen: Sequence[str],
    private_home: Path,
    own: Sequence[str],
    named: Sequence[str] = (),
) -> ShownTools:
    """What a jail needs for the `tools` and `caches` of a run's options; missing ones are left out.

    `seen` are the paths that it shows anyway, `named` further ones that the user lets it read, and
    `own` rebyte's own folders. What is private is left out. What it shows in HOME gets a real place
    in the private one: through a link that an agent left there, bubblewrap may make folders
    anywhere.
    """
    search, home = outside.get("PATH", os.defpath), Path.home()
    needs: dict[str, None] = {}
    links: dict[str, str] = {}
    found, variables = list[str](), dict[str, str]()
    more: list[str] = []

    def show(path: str) -> str:
        real = os.path.realpath(path)
        is_new = not any(_is_in(real, one) for one in needs)
        if not programs.in_system(real) and not (is_new and why_not(real, own)):
            needs.update({real: None} if is_new else {})
            links.update(links_to(path))
        return real

    for given in map(os.path.expanduser, options.get("tools", ())):
        if not os.path.isdir(given):
            continue
        folder = Path(show(given))
        found.append(str(folder))
        for path in _around(folder):
            show(path)
        kept, variable = next((KEPT[end] for end in KEPT if folder.match(end)), ("", ""))
        if folder.name == "shims":
            kept = ".."
            manager = shutil.which(folder.parent.name.removeprefix("."), path=search)
            if manager and not _is_in(os.path.realpath(manager), str(folder.parent)):
                found.append(os.path.dirname(show(manager)))
        if kept:
            data = outside.get(variable) or os.path.normpath(folder / kept)
            if os.path.isdir(data):
                place = show(data)
                variables |= {variable: place} if variable else {}
        if variable == "ASDF_DATA_DIR":
            versions = home / DEFAULT_VERSIONS
            if versions.is_file() and not why_not(str(versions), own):
                agent_files.write(private_home, DEFAULT_VERSIONS, b"")
                more += ["--ro-bind", str(versions), _inside(str(versions))]
        for path in _files_of(folder, search):
            show(path)
    shown: list[str] = []
    for path in sorted(needs):
        if not any(_is_in(path, one) for one in shown):
            shown.append(path)
    arguments = _read_only([*named, *shown])
    for link, target in links.items():
        if not any(_is_in(link, path) for path in (*seen, *named, *shown, *LINKS_THERE)):
            arguments += ["--symlink", target, link]
    folders = [folder for folder in found if not programs.in_system(folder)]
    caches = [each for each in options.get("caches", ()) if not why_not(each, own)]
    return ShownTools([*arguments, *more, *_cached(caches, private_home)], folders, variables)


def links_to(path: str) -> dict[str, str]:
    """The links on the way to a file, with what each of them says."""
    links: dict[str, str] = {}
    here, rest = "/", path.split("/")[::-1]
    while rest:
        here = os.path.normpath(os.path.join(here, rest.pop()))
        if here not in links and os.path.islink(here):
            links[here] = target = os.readlink(here)
            rest += target.split("/")[::-1]
            here = "/" if target.startswith("/") else os.path.dirname(here)
    return {link: target for link, target in links.items() if os.path.dirname(link) != "/"}


def _around(folder: Path) -> list[str]:
    """What the programs in a folder are installed with."""
    root = programs.installation(folder)
    return [root] if root else programs.environment_files(folder)


def why_not_all(paths: Iterable[str], own: Sequence[str]) -> str:
    """Why one of the paths that a program needs must not be shown; empty for nothing.

    `own` are rebyte's own folders.
    """
    for path in paths:
        if problem := why_not(path, own):
            return f"it needs {_short(path)}, but {problem}"
    return ""


def _files_of(folder: Path, search: str) -> Iterator[str]:
    """What the programs in a folder need outside it."""
    known: set[str] = set()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        real = Path(os.path.realpath(entry.path))
        if not os.access(real, os.X_OK) or not real.is_file():
            continue
        if not real.is_relative_to(folder):
            yield entry.path
            yield programs.own_files(real)
            yield from _around(real.parent)
        if (runs_it := programs.interpreter(real, search)) and runs_it not in known:
            known.add(runs_it)
            yield runs_it
            yield from programs.interpreter_files(runs_it)


def _read_only(paths: Sequence[str]) -> list[str]:
    """Arguments that show paths; sockets and named pipes in them lead nowhere where that works.

    A read-only folder does not keep anything from connecting to a socket in it, but a socket in an
    overlay is another one than that below. File systems mounted in a folder are not in its overlay.
    """
    points = [point for point, _ in mounted()]
    folders = [
        path
        for path in paths
        if os.path.isdir(path) and not any(_is_in(each, path) and each != path for each in points)
    ]
    if folders and not overlays_work(jail.bubblewrap() or "bwrap", tuple(folders)):
        folders = []
    arguments = []
    for path in paths:
        if path in folders:
            arguments += ["--overlay-src", path, "--tmp-overlay", path, "--remount-ro", path]
        else:
            arguments += ["--ro-bind-try", path, path]
    return arguments


def _cached(caches: Iterable[str], private_home: Path) -> list[str]:
    """Arguments that show caches; what is written there is thrown away where that works."""
    pairs = [(path, _inside(path)) for path in map(os.path.expanduser, caches)]
    pairs = [(path, inside) for path, inside in pairs if os.path.isdir(path)]
    for _, inside in pairs:
        if inside.startswith(f"{jail.HOME}/"):
            agent_files.folder(private_home, os.path.relpath(inside, jail.HOME))
    overlay = [word for path, at in pairs for word in ("--overlay-src", path, "--tmp-overlay", at)]
    if pairs and overlays_work(jail.bubblewrap() or "bwrap", tuple(path for path, _ in pairs)):
        return overlay
    return [word for path, inside in pairs for word in ("--ro-bind", path, inside)]


@functools.cache
def overlays_work(program: str, folders: tuple[str, ...]) -> bool:
    """Whether this bubblewrap (0.11 can), the kernel and the file systems make such overlays."""
    words = [program, "--unshare-user", "--ro-bind", "/", "/", "--tmpfs", "/tmp"]  # noqa: S108
    for number, folder in enumerate(folders):
        words += ["--overlay-src", folder, "--tmp-overlay", f"/tmp/{number}"]  # noqa: S108
    return jail.succeeds([*words, "/bin/sh", "-c", ":"])


def not_found(output: object) -> Iterator[str]:
    """The names of the commands that a shell did not find, as its output says."""
    if isinstance(output, str):
        for found in NOT_FOUND.finditer(output):
            yield next(filter(None, found.groups()))


def hint(names: Iterable[str], search: str) -> str:
    """How to show agents the commands that they did not find; `search` is the PATH outside."""
    named = list(names)[:MOST_NAMED]
    found = (shutil.which(name, path=search) for name in named)
    folders = dict.fromkeys(_short(os.path.dirname(path)) for path in found if path)
    shown = ", ".join(json.dumps(folder) for folder in folders if not why_not(folder, ()))
    what = f"To show it to agents, add {shown}" if shown else "If you have it, add its folder"
    return (
        f"Not found in the sandbox: {', '.join(named)}. {what} to `tools` in [local] of config.toml"
    )


def _short(path: str) -> str:
    home = str(Path.home())
    return f"~{path.removeprefix(home)}" if _is_in(path, home) else path


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _inside(path: str) -> str:
    """Where the programs in the jail look for a path: HOME is another one there."""
    home = str(Path.home())
    return jail.HOME + path.removeprefix(home) if _is_in(path, home) else path
