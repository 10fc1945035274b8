"""Who can read and change our files.

A `config.toml` names programs to run and a history names tasks to delete, so one that another
user can write is not believed.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ..errors import BadUsage, RebyteError

LOCK_NAME = ".lock"
SCHEMA_NAME = "config.schema.json"
LARGEST = 1 << 20  # bytes of a private file; far more than settings and keys need
# What may be in a folder for it to be ours, and so ours to close to others.
_OURS = {"config.toml", "credentials.json", LOCK_NAME, SCHEMA_NAME}
MOUNTS = Path("/proc/self/mountinfo")
_WITHOUT_MODES = {
    "9p", "cifs", "drvfs", "exfat", "fuseblk", "msdos", "ntfs", "ntfs3", "smb3", "vfat",
}  # fmt: skip
_UNMAPPED = 65534  # what the owner of a folder looks like where a sandbox does not map it


class UnsafeFile(BadUsage):
    """A file that another user can change, or that is not a file; the hint says how to fix it."""

    code = "unsafe_file"


def private_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each for its owner alone whatever the umask is.

    One that exists is closed to others only when it holds nothing but our files:
    `REBYTE_CONFIG_DIR` may name a folder that other programs need. Raises RebyteError when the
    folder cannot be made.
    """
    try:
        is_new = make_folder(folder)
        if not folder.is_dir():
            raise RebyteError(f"{folder} is not a folder")
        if not is_new:
            _close_to_others(folder)
    except OSError as problem:
        raise RebyteError(f"cannot create {folder}: {problem.strerror}") from None


def make_folder(folder: Path) -> bool:
    """As `private_folder`, but a folder that exists stays as it is; whether it is new.

    Raises OSError.
    """
    missing = []
    for each in (folder, *folder.parents):
        if os.path.lexists(each):
            break
        missing.append(each)
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
    return bool(missing)


def _close_to_others(folder: Path) -> None:
    found = folder.stat()
    ours = found.st_uid == os.getuid() and _OURS.issuperset(os.listdir(folder))
    if ours and found.st_mode & 0o077:
        folder.chmod(0o700)


def read_private(path: Path) -> bytes:
    """The content of a file that only its owner can change.

    Raises UnsafeFile when others can, or for a device, a pipe or more than LARGEST bytes;
    OSError when the file is missing or cannot be read.
    """
    # Opening a pipe would wait for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(21, "Is a directory")
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile(f"{path} is not a regular file")
        check_private(path)
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UnsafeFile(f"{path} is larger than {LARGEST >> 20} MiB")
    return data


def check_private(path: Path, *, shared_folder: bool = False) -> None:
    """Raise UnsafeFile when another user can change a file, or replace it in its folder.

    The file need not exist. A link is judged by whose it is, where it is and where it leads. With
    `shared_folder`, members of the folder's group may write to the folder (not to the file), as
    those of a project do. A group whose only member is this user counts as the user.
    """
    real = Path(os.path.realpath(path))
    try:
        if os.lstat(path).st_uid not in _trusted():  # in /tmp, a link that another user left
            raise UnsafeFile(f"{path} belongs to another user", hint=_chown(path))
    except (FileNotFoundError, NotADirectoryError):
        pass
    try:
        _check_file(real)
        for folder in dict.fromkeys((path.parent.absolute(), real.parent)):
            _check_folder(path, folder, shared=shared_folder)
            for above in folder.parents:
                _check_folder(path, above, shared=True)
    except (FileNotFoundError, NotADirectoryError):
        return


def _check_file(path: Path) -> None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):  # a device has no end, and a pipe waits for its writer
        raise UnsafeFile(f"{path} is not a regular file")
    if found.st_uid not in _trusted():
        raise UnsafeFile(f"{path} belongs to another user", hint=_chown(path))
    if _others_write(found) and not _is_exempt(path):
        raise UnsafeFile(f"other users can change {path}", hint=f"chmod go-w {_quoted(path)}")


def _check_folder(path: Path, folder: Path, *, shared: bool) -> None:
    found = os.stat(folder)
    sticky = found.st_mode & stat.S_ISVTX  # there, only its owner can replace a file
    exposed = found.st_mode & stat.S_IWOTH if shared else _others_write(found)
    if exposed and not sticky and not _is_exempt(folder):
        raise UnsafeFile(
            f"other users can replace {path}: they can write to {folder}",
            hint=f"chmod {'o' if shared else 'go'}-w {_quoted(folder)}",
        )
    if not shared and found.st_uid not in {*_trusted(), _UNMAPPED}:
        raise UnsafeFile(
            f"another user can replace {path}: {folder} belongs to them", hint=_chown(folder)
        )


def _trusted() -> set[int]:
    """Root, ourselves, and who became root with sudo."""
    trusted = {0, os.geteuid()}
    sudo = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and sudo.isdecimal():
        trusted.add(int(sudo))
    return trusted


def _others_write(found: os.stat_result) -> bool:
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _is_own_group(found.st_gid)


def _is_own_group(group: int) -> bool:
    """Whether a group is the one that many systems make for each user, with no other member."""
    import grp
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
        found = grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == name and set(found.gr_mem) <= {name}


def _is_exempt(path: Path) -> bool:
    """Whether modes mean nothing here: a file system that is read-only, or that has no modes.

    Mounted configuration of a container is of the first kind, a Windows drive under WSL of the
    second: everything on it looks writable for all, and chmod changes nothing.
    """
    try:
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return True
        return _file_system_of(os.path.realpath(path)) in _WITHOUT_MODES
    except OSError:
        return False


def _file_system_of(path: str) -> str:
    """The type of the file system that a path is on, as Linux names it; empty elsewhere."""
    longest, found = "", ""
    for point, kind in mounted():
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(longest):  # of two at one place, the later covers
            longest, found = point, kind
    return found


def mounted() -> list[tuple[str, str]]:
    """Where file systems are mounted, with their types, in this order; nothing but on Linux.

    See proc_pid_mountinfo(5). A name may have any other line end than that of the kernel.
    """
    try:
        lines = os.fsdecode(MOUNTS.read_bytes()).split("\n")[:-1]
    except OSError:
        return []
    result = []
    for line in lines:
        # 36 35 98:0 / /mnt/c rw,noatime shared:1 - 9p C: rw
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        result.append((point, after.partition(" ")[0]))
    return result


def _chown(path: Path) -> str:
    return f"sudo chown -h $(id -u) {_quoted(path)}"


def _quoted(path: Path) -> str:
    from shlex import quote

    return quote(str(path))
