"""Files on their way down: names checked, whole files only, what is there already left alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage, RebyteError
from .parallel import in_parallel

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..output.console import Console

AT_ONCE = 4
_SIZES = ("size", "sizeBytes", "size_bytes", "bytes", "fileSize", "contentLength")
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789")]
)


def target_in(folder: Path, name: str) -> Path:
    """Where a file of this name from the server goes: inside `folder`, whatever it says.

    A name may have folders in it (`plots/a.png`). RebyteError for one that would leave the
    folder, that means something else on this system, or whose way leads through a link or a
    file: somebody may have put it there to send us elsewhere.
    """
    parts = name.split("/")
    if not all(map(_is_plain, parts)):
        raise _unsafe(name, "it cannot be a file's name here")
    way = folder
    for part in parts[:-1]:
        way = way / part
        try:
            mode = os.lstat(way).st_mode
        except FileNotFoundError:
            break
        except OSError as error:
            raise _unsafe(name, str(error.strerror)) from None
        if not stat.S_ISDIR(mode):
            raise _unsafe(name, f"{way} is a {'link' if stat.S_ISLNK(mode) else 'file'}")
    return folder.joinpath(*parts)


def _is_plain(part: str) -> bool:
    if part in ("", ".", "..") or any(mark < " " or mark in "\\\x7f" for mark in part):
        return False
    try:
        part.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    if os.name != "nt":
        return True
    stem = part.split(".", 1)[0].rstrip(" ").lower()
    return not (set(part) & set('<>:"|?*') or part[-1] in ". " or stem in _DEVICES)


def _unsafe(name: str, why: str) -> RebyteError:
    return RebyteError(
        f"{name!r} is not written: {why}",
        hint="`rebyte artifact get WS NAME -O FILE` puts it where you say",
        code="unsafe_name",
    )


def is_whole(target: Path, size: Any) -> bool:
    """Whether a plain file of exactly this size stands there: then it was fetched earlier."""
    try:
        found = os.lstat(target)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and type(size) is int and found.st_size == size


def is_same(client: RebyteClient, workspace_id: str, name: str, target: Path) -> bool:
    """Whether a plain file at `target` is the artifact, where no list told its size.

    By the length that its download has; where that is not told either, by its bytes, which is
    the price of knowing.
    """
    try:
        found = os.lstat(target)
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    size = client.artifact_size(workspace_id, name)
    if size is not None:
        return found.st_size == size
    import filecmp

    with _aside(client, workspace_id, name) as copy:
        return filecmp.cmp(copy, target, shallow=False)


def fetch(
    client: RebyteClient,
    workspace_id: str,
    name: str,
    target: Path,
    *,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """One artifact into `target`, whole or not at all: `{"name", "size", "path"}`.

    BadUsage when something stands there and `force` is not set; a link is never followed.
    """
    if os.path.isdir(target) and not os.path.islink(target):
        raise BadUsage(f"{target} is a folder")
    client.get_artifact(workspace_id, name, target, overwrite=force, progress=progress)
    return {"name": name, "size": os.lstat(target).st_size, "path": str(target)}


def fetch_all(
    client: RebyteClient,
    workspace_id: str,
    artifacts: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    force: bool,
    resume: bool,
    console: Console,
    note: Callable[[str], None],
) -> Iterator[Mapping[str, Any] | RebyteError]:
    """Every artifact into `folder`, several at a time, each in its own folders below it.

    With `resume`, what is there with the listed size is kept as it is (see `is_same` where the
    list has none), so that the same command goes on where an earlier one stopped. A name that
    is no good is an error in its place; the others come.
    """
    if folder.exists() and not folder.is_dir():
        raise BadUsage(f"{folder} is not a folder")
    from ..output.progress import bar

    by_name = {str(one.get("name") or one.get("filename") or ""): one for one in artifacts}
    sizes = [_size(one) for one in by_name.values()]
    known = sum(size for size in sizes if type(size) is int) if sizes else None
    lock, kept = Lock(), 0
    with bar(console, f"Downloading {len(by_name)} files", known, size=True) as work:

        def advance(count: int) -> None:
            with lock:
                work.advance(count)

        def get(name: str) -> Mapping[str, Any]:
            nonlocal kept
            target, listed = target_in(folder, name), by_name[name]
            size = _size(listed)
            if not resume or force:
                there = False
            elif size is None:
                there = is_same(client, workspace_id, name, target)
            else:
                there = is_whole(target, size)
            if there:
                advance(int(size or 0))
                with lock:
                    kept += 1
                return {**listed, "name": name, "path": str(target)}
            _make_way(folder, target)
            found = fetch(client, workspace_id, name, target, force=force, progress=advance)
            return {**listed, **found}

        yield from in_parallel(get, list(by_name), workers=AT_ONCE)
    if kept:
        note(f"{kept} of {len(by_name)} were there already")


def _size(listed: Mapping[str, Any]) -> Any:
    """The size that a listing tells, by any name it may have: none is documented."""
    return next((listed[name] for name in _SIZES if type(listed.get(name)) is int), None)


def _make_way(folder: Path, target: Path) -> None:
    """The folders down to `target`, each looked at after it was made: it may have been a link."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        way = folder
        for part in target.relative_to(folder).parts[:-1]:
            way = way / part
            way.mkdir(exist_ok=True)
            if way.is_symlink():
                raise _unsafe(str(target), f"{way} is a link")
    except OSError as error:
        raise BadUsage(f"cannot write to {folder}: {error.strerror}") from None


def pieces(client: RebyteClient, workspace_id: str, name: str) -> Iterator[bytes]:
    """The bytes of one artifact, the first only when all of them have arrived.

    They wait in a temporary file, so that memory stays flat and a broken line gives nothing.
    """
    with _aside(client, workspace_id, name) as copy, copy.open("rb") as source:
        while piece := source.read(1024 * 1024):
            yield piece


@contextmanager
def _aside(client: RebyteClient, workspace_id: str, name: str) -> Iterator[Path]:
    """One artifact, whole, in a temporary file."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        target = Path(folder) / "artifact"
        client.get_artifact(workspace_id, name, target)
        yield target
