"""Files that survive a crash, and locks so that two writers lose nothing."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeVar

from ..errors import BadUsage, NotFound, RebyteError
from .deadline import Deadline
from .locks import flock
from .permissions import private_folder

T = TypeVar("T")
SHARED = 0o644  # less the umask: readable for others, as a start file of a shell is


def write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step: whole or not at all, mode 0600, a link stays a link.

    Raises RebyteError when the disk or the folder refuses.
    """
    private_folder(path.parent)
    _write(path, data)


def write_shared(path: Path, data: bytes) -> None:
    """As `write_private`, but with the mode that the file has; a new one is readable for others.

    Its folder stays as it is.
    """
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        mode = None
    _write(path, data, created=SHARED, mode=mode)


def _write(path: Path, data: bytes, *, created: int = 0o600, mode: int | None = None) -> None:
    """The temporary file is in the same folder as the real file, because a rename cannot cross
    file systems.
    """
    real = Path(os.path.realpath(path))
    try:
        # A new file, with the mode of a new one, also replaces an older one with a wider mode.
        with replacing(real, created) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if mode is not None:
                os.chmod(file.name, mode)
        sync_folder(real.parent)
    except OSError as problem:
        raise RebyteError(f"cannot write {path}: {problem.strerror}") from None


@contextmanager
def replacing(target: Path, mode: int = SHARED, *, keep: bool = False) -> Iterator[BinaryIO]:
    """A new, hidden file beside `target`, which it replaces when the block ends without an error.

    With `keep`, a file that has appeared there meanwhile stays. `mode` less the umask, which the
    system takes off: reading it would change it for a moment, for every thread. Raises OSError.
    """
    path = target.with_name(f".{target.name[:100]}.{os.urandom(6).hex()}")
    try:
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
        if keep:
            put_new(path, target)
        else:
            os.replace(path, target)
    finally:
        with suppress(OSError):
            path.unlink()


def put_new(source: Path, target: Path) -> None:
    """Give a file another name if that is free, so that of two who do, one does. Raises OSError.

    It may keep the first name as well.
    """
    try:
        os.link(source, target)  # unlike a rename, it replaces nothing
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not os.path.lexists(target):
            os.replace(source, target)


def sync_folder(folder: Path) -> None:
    """Make the name of a new or renamed file last through a power cut, where that can be done."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path, *, seconds: float = 10.0) -> Iterator[None]:
    """Hold the lock file `path` while the block runs, waiting up to `seconds` for it.

    The kernel drops the lock when its holder dies, however it dies. Raises RebyteError when
    another process keeps it too long.
    """
    private_folder(path.parent)
    release = persistently(lambda: take_lock(path), seconds)
    if release is None:
        raise RebyteError(
            f"another process has kept {path} locked for {seconds:g} s",
            hint="Wait for the other `rebyte` to end, then try again",
        )
    try:
        yield
    finally:
        release()


class LocksUnusable(RebyteError):
    """Locks in a folder keep no one out, so nothing that depends on them is safe."""

    code = "locks_unusable"

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"locks do not work in {folder}, so a task could be created twice: {reason}",
            hint="Use a folder on a local disk: set REBYTE_STATE_DIR, or pass --journal to `batch`",
        )


@cache
def check_locks(folder: Path) -> None:
    """Raise LocksUnusable if locks of this folder do not lock; each folder is tried only once.

    Some network file systems refuse locks, and some grant each of them.
    """
    import tempfile

    with suppress(OSError), tempfile.NamedTemporaryFile(prefix=".lock-", dir=folder) as file:
        try:
            flock(file.fileno(), wait=False)
        except OSError as problem:
            raise LocksUnusable(folder, str(problem.strerror)) from None
        with open(file.name, "rb+") as second:
            try:
                flock(second.fileno(), wait=False)
            except OSError:
                return
        raise LocksUnusable(folder, "a file that is locked can be locked again")


def take_lock(path: Path, *, remove: bool = False) -> Callable[[], None] | None:
    """Take the lock file without waiting: what releases it, or None when another holds it.

    With `remove` the file is deleted on release, for locks of many names.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as problem:
            raise RebyteError(f"cannot open {path}: {problem.strerror}") from None
        if not _try_lock(handle):
            os.close(handle)
            return None
        if _still_there(handle, path):
            break
        os.close(handle)

    def release() -> None:
        if remove:
            with suppress(OSError):
                os.unlink(path)
        os.close(handle)

    return release


def persistently(take: Callable[[], T], seconds: float = 2.0) -> T:
    """Ask again and again for that long, as for a lock: the first true answer, or the last one.

    Two seconds are for locks that a process may have left which was killed: a child that it was
    starting holds them too, until it has become another program. On a busy machine that takes a
    moment.
    """
    deadline = Deadline(seconds)
    while not (taken := take()) and not deadline.has_passed:
        time.sleep(0.02)
    return taken


def _still_there(handle: int, path: Path) -> bool:
    """False when the file was deleted between being opened and being locked: a lock on nothing."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _try_lock(handle: int) -> bool:
    """True when the lock is ours. A file system without locks (some network ones) counts as such.

    Losing a setting to a second writer there is rarer than having no settings at all.
    """
    import errno

    try:
        flock(handle, wait=False)
    except OSError as problem:
        return problem.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
    return True


def read_text(path: str, most: int) -> str:
    """The text of a file of the user, in UTF-8, with LF at the ends of lines.

    `most`: its bytes. Raises NotFound, and BadUsage for a file that cannot be used.
    """
    try:
        with open(path, "rb") as file:  # it may be a device, which has no end
            data = file.read(most + 1)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}") from None
    if len(data) > most:
        raise BadUsage(f"{path} is larger than {most >> 20} MiB")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadUsage(f"{path} is not UTF-8 (byte {error.start + 1})") from None


def content_of(path: Path) -> bytes:
    """What is in a file; nothing if there is none. Raises RebyteError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RebyteError(f"cannot read {path}: {error.strerror}") from None


def tail(path: Path, most: int) -> bytes:
    """The last `most` bytes of a file, or all of it; nothing if it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most))
        return file.read()
    return b""


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, however little is taken at a time. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


@contextmanager
def flocked(
    path: str | Path, *, shared: bool = False, wait: bool = True, create: bool = False
) -> Iterator[int]:
    """Hold a lock on a file or folder while the block runs; its descriptor.

    Without `wait`, BlockingIOError says that another holds it. Raises OSError, for example when the
    path is missing and `create` is not set.
    """
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        flock(descriptor, shared=shared, wait=wait)
        yield descriptor
    finally:
        os.close(descriptor)
