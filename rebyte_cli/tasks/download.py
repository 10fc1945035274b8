"""Download artifacts: names checked, files appear whole, existing files are left alone."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage, Next, RebyteError, RowOrError
from .autorun import reader_of
from .parallel import MakeProgressBar, in_parallel

if TYPE_CHECKING:
    from ..api.client import RebyteClient

AT_ONCE = 4
LONGEST_PART = 255  # bytes of one name; what most file systems take
LONGEST_NAME = 1024  # bytes, folders included
TOO_LONG = "the name is too long"
# What a file system says about a name that it does not take.
_REFUSED_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
FOLDER_MODE = 0o775  # less the umask; never one that everyone may write
_SIZES = ("size", "sizeBytes", "size_bytes", "bytes", "fileSize", "contentLength")
# Characters that HFS+ leaves out when it compares names, as git knows them.
_IGNORED_BY_HFS = dict.fromkeys(
    [*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF]
)
# What NTFS takes for a repository's folder: the name itself, one of its streams, its short name.
_GIT = re.compile(r"\.git(:.*)?|git~\d+", re.DOTALL)


def parts_of(name: str, *, hidden: bool = False) -> list[str]:
    """The parts of an artifact's name, which may have folders in it (`plots/a.png`).

    Raises RebyteError for a name that would leave the folder it is put in, that means something
    else on this system, that is too long, that commands take for an option (`rm *` does), or that
    git would take for a repository (`.git` in any spelling, or the `HEAD` of one that is the folder
    itself): git runs what such files say. Without `hidden` also for one that begins with a dot in
    any part, or that a tool runs by its place.
    """
    parts = name.split("/")
    if not all(map(_is_plain, parts)):
        raise _unsafe(name, "it cannot be the name of a file here")
    if max(map(_size_of, parts)) > LONGEST_PART or _size_of(name) > LONGEST_NAME:
        raise _unsafe(name, TOO_LONG)
    if any(part.startswith("-") for part in parts):
        raise _unsafe(name, "commands would take the name for an option")
    compared = [_compared(part) for part in parts]
    if any(map(_GIT.fullmatch, compared)) or compared[-1] == "head":
        raise _unsafe(name, "git would run what such a file says")
    is_hidden = any(part.startswith(".") for part in compared)
    if not hidden and (is_hidden or reader_of(name, by_place=True)):
        raise RebyteError(
            f"{name!r} was not written: it is hidden, or run by some tool because of its name",
            hint="Check what is in it; --hidden writes it",
            code="hidden_name",
        )
    return parts


def _is_plain(part: str) -> bool:
    if part in ("", ".", "..") or any(mark < " " or mark in "\\\x7f" for mark in part):
        return False
    try:
        part.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _size_of(name: str) -> int:
    return len(os.fsencode(name))


def _compared(part: str) -> str:
    """The part as file systems that fold case and drop characters compare it."""
    return part.translate(_IGNORED_BY_HFS).casefold().rstrip(". ")


def _unsafe(name: str, why: str) -> RebyteError:
    return RebyteError(
        f"{name!r} was not written: {why}",
        hint=Next("artifact", "get", "WS", "NAME", "-O", "FILE")
        + " writes it to a file of your choice",
        code="unsafe_name",
    )


def was_fetched(
    client: RebyteClient, workspace_id: str, name: str, target: Path, size: int | None
) -> bool:
    """Whether `target` is a regular file, and the artifact, which has this size in the list.

    Where the list has none, the length that the download announces is compared; without that,
    the artifact is downloaded and its bytes are.
    """
    try:
        found = os.lstat(target)
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    if size is None:
        size = client.artifact_size(workspace_id, name)
    if size is not None:
        return found.st_size == size
    import filecmp

    with _temporary_copy(client, workspace_id, name) as copy:
        return filecmp.cmp(copy, target, shallow=False)


def fetch(
    client: RebyteClient,
    workspace_id: str,
    name: str,
    target: Path,
    *,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
    folder: int | None = None,
) -> dict[str, Any]:
    """Download one artifact to `target`, whole or not at all: `{"name", "size", "path"}`.

    `folder` is a descriptor of the folder that `target` is in (see `open_folder`), or None. Raises
    BadUsage when `target` exists and `force` is not set; a link is replaced, never followed.
    """
    client.get_artifact(
        workspace_id, name, target, overwrite=force, progress=progress, folder=folder
    )
    place = target if folder is None else Path(target.name)
    size = os.stat(place, dir_fd=folder, follow_symlinks=False).st_size
    return {"name": name, "size": size, "path": str(target)}


def fetch_all(
    client: RebyteClient,
    workspace_id: str,
    artifacts: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    force: bool,
    resume: bool,
    hidden: bool = False,
    progress_bar: MakeProgressBar,
    note: Callable[[str], None],
) -> Iterator[RowOrError]:
    """Download every artifact to `folder`, several at a time, each in its own folders below it.

    With `resume`, a file that `was_fetched` is kept, so that the same command resumes an earlier
    one. A name that is refused (see `parts_of`) is an error in its place; the others are
    downloaded.
    """
    if folder.exists() and not folder.is_dir():
        raise BadUsage(f"{folder} is not a folder")
    by_name = {str(one.get("name") or one.get("filename") or ""): one for one in artifacts}
    sizes = [_size(one) for one in by_name.values()]
    known = sum(size for size in sizes if size is not None) if sizes else None
    lock, kept = Lock(), 0
    with progress_bar(f"Downloading {len(by_name)} files", known) as advance:

        def get(name: str) -> Mapping[str, Any]:
            nonlocal kept
            parts, listed = parts_of(name, hidden=hidden), by_name[name]
            target, size = folder.joinpath(*parts), _size(listed)
            with _name_taken(name), open_folder(folder, parts[:-1], name) as opened:
                if resume and not force and was_fetched(client, workspace_id, name, target, size):
                    advance(size or 0)
                    with lock:
                        kept += 1
                    return {**listed, "name": name, "path": str(target)}
                found = fetch(
                    client,
                    workspace_id,
                    name,
                    target,
                    force=force,
                    progress=advance,
                    folder=opened,
                )
            return {**listed, **found}

        yield from in_parallel(get, list(by_name), workers=AT_ONCE)
    if kept:
        note(f"{kept} of {len(by_name)} already existed")


@contextmanager
def _name_taken(name: str) -> Iterator[None]:
    """Raise RebyteError for the one artifact whose name the file system does not take."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED_NAMES:
            raise
        if error.errno == errno.ENAMETOOLONG:
            raise _unsafe(name, TOO_LONG) from None
        raise _unsafe(name, f"the file system does not take its name ({error.strerror})") from None


def _size(listed: Mapping[str, Any]) -> int | None:
    """The size in a listing, by any name it may have: none is documented."""
    return next((listed[name] for name in _SIZES if type(listed.get(name)) is int), None)


@contextmanager
def open_folder(folder: Path, parts: Sequence[str], name: str) -> Iterator[int]:
    """The folder below `folder` that `parts` lead to, created where it is missing.

    A descriptor of it: every step is taken from the folder before and follows no link, so nothing
    that is moved or linked during the download leads elsewhere. `folder` itself may be a link.
    Raises RebyteError when a part is a link or a file (`name` is the artifact's), BadUsage when it
    cannot be made.
    """
    try:
        _make_folders(folder)
        here = _descend(folder, parts, name)
    except OSError as error:
        if error.errno in _REFUSED_NAMES:
            raise
        raise BadUsage(f"cannot write to {folder}: {error.strerror}") from None
    try:
        yield here
    finally:
        os.close(here)


def _make_folders(folder: Path) -> None:
    for each in [*reversed(folder.parents), folder]:
        if not each.is_dir():
            each.mkdir(FOLDER_MODE, exist_ok=True)


def _descend(folder: Path, parts: Sequence[str], name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    here, way = os.open(folder, flags), folder
    try:
        for part in parts:
            way = way / part
            with suppress(FileExistsError):
                os.mkdir(part, FOLDER_MODE, dir_fd=here)
            mode = os.stat(part, dir_fd=here, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                raise _unsafe(name, f"{way} is a {'link' if stat.S_ISLNK(mode) else 'file'}")
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def pieces(client: RebyteClient, workspace_id: str, name: str) -> Iterator[bytes]:
    """The bytes of one artifact, the first only when all of them have arrived.

    They wait in a temporary file, so that memory stays flat and a broken download yields nothing.
    """
    with _temporary_copy(client, workspace_id, name) as copy, copy.open("rb") as source:
        while piece := source.read(1024 * 1024):
            yield piece


@contextmanager
def _temporary_copy(client: RebyteClient, workspace_id: str, name: str) -> Iterator[Path]:
    """One artifact, whole, in a temporary file."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        target = Path(folder) / "artifact"
        client.get_artifact(workspace_id, name, target)
        yield target
