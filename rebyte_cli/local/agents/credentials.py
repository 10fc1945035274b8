"""An agent's login files: lent to the private HOME for one run.

They are copied in before the run and removed after it. While it runs, tokens that the agent
refreshed (see `logins`) go into the original if that has not changed meanwhile, and what another
run refreshed is copied in: services make a refresh token invalid when it is used, so a run with an
old copy would be logged out. A note in the run's folder says what was lent, so that a process that
finds the supervisor dead can clean up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from . import confined, logins

NOTE = "lent.json"
LARGEST = 1_000_000
LEFT = "Your own file was left as it is"


class Loan(NamedTuple):
    """One file that was lent: what it was on either side when last looked at, by digest."""

    outside: str
    inside: str
    entries: list[logins.LoginEntry]


def lend(
    user_home: Path,
    home: Path,
    run_folder: Path,
    files: Mapping[str, Iterable[logins.LoginEntry]],
) -> None:
    """Copy the login files that exist from the user's HOME to the private one."""
    lent: dict[str, Loan] = {}
    for name, entries in files.items():
        content = _content(user_home / name)
        if content is None:
            continue
        lent[name] = Loan(_digest(content), _digest(content), list(entries))
        # The note comes first: a file without one would stay behind after a crash.
        _note(run_folder, user_home, home, lent)
        confined.write(home, name, content)


def exchange(run_folder: Path) -> list[str]:
    """Return the tokens that the agent has refreshed since, and hand it what others have.

    What else it changed stays in the jail: the result says so, once. If both sides have changed,
    both stay as they are. Safe to repeat.
    """
    note, said = _read_note(run_folder), list[str]()
    if note is None:
        return said
    user_home, home, lent = note
    for name, loan in list(lent.items()):
        theirs, ours = confined.read(home, name, LARGEST), _content(user_home / name)
        is_changed_inside = theirs is not None and _digest(theirs) != loan.inside
        is_changed_outside = ours is not None and _digest(ours) != loan.outside
        if is_changed_inside == is_changed_outside or ours is None or theirs is None:
            continue
        if is_changed_inside:
            changed, why = _give_back(user_home / name, ours, theirs, loan)
            if why:
                said.append(f"{name} was changed in the sandbox. {why}")
        else:
            changed = _hand_over(home, name, ours, loan)
        if changed != loan:
            # Last: if this is not written any more, both sides seem changed and stay.
            lent[name] = changed
            _note(run_folder, user_home, home, lent)
    return said


def take_back(run_folder: Path) -> list[str]:
    """Return refreshed tokens to the user's HOME and remove the copies. Safe to repeat.

    The result says what was not returned, as that of `exchange`.
    """
    note = _read_note(run_folder)
    if note is None:
        return []
    said = exchange(run_folder)
    _, home, lent = note
    for name in lent:
        theirs = confined.read(home, name, LARGEST)
        if theirs is not None and logins.parse(theirs) is None:
            said.append(f"{name} was changed in the sandbox. {LEFT}, because it is no login file")
        confined.remove(home, name)
    (run_folder / NOTE).unlink(missing_ok=True)
    return said


def _give_back(original: Path, ours: bytes, theirs: bytes, loan: Loan) -> tuple[Loan, str]:
    """Put refreshed tokens into the original: the loan after that, and what was left out."""
    before, after = logins.parse(ours), logins.parse(theirs)
    if before is None or after is None:
        return loan, ""  # it may not be wholly written yet
    seen = loan._replace(inside=_digest(theirs))
    try:
        result, left_out = logins.refreshed(before, after, loan.entries)
    except logins.OtherLogin as error:
        return seen, f"{LEFT}, because {error}"
    if result != before:
        content = json.dumps(result, indent=2).encode()
        if not _replace(original, content, loan.outside):
            return loan, ""
        seen = seen._replace(outside=_digest(content))
    names = ", ".join(map(repr, left_out))
    return seen, f"Your own file keeps its values of {names}" if names else ""


def _hand_over(home: Path, name: str, ours: bytes, loan: Loan) -> Loan:
    if logins.parse(ours) is None:
        return loan
    confined.write(home, name, ours, evict=False)  # an agent is at work there
    return loan._replace(outside=_digest(ours), inside=_digest(ours))


def _note(run_folder: Path, user_home: Path, home: Path, lent: Mapping[str, Loan]) -> None:
    note = {"from": str(user_home), "to": str(home), "files": lent}
    partial = run_folder / f"{NOTE}.new"
    partial.write_text(json.dumps(note), encoding="utf-8")
    os.replace(partial, run_folder / NOTE)


def _read_note(run_folder: Path) -> tuple[Path, Path, dict[str, Loan]] | None:
    """The user's HOME, the private one, and each file that was lent."""
    try:
        note = json.loads((run_folder / NOTE).read_text(encoding="utf-8"))
        lent = {
            name: Loan(outside, inside, [logins.LoginEntry(*entry) for entry in entries])
            for name, (outside, inside, entries) in note["files"].items()
        }
        return Path(note["from"]), Path(note["to"]), lent
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _replace(original: Path, content: bytes, digest: str) -> bool:
    """Replace the original, atomically, unless it changed since it was lent. Whether it did."""
    partial = original.with_name(f".{original.name}.rebyte")
    try:
        if _digest(original.read_bytes()) != digest:
            return False
        mode = original.stat().st_mode & 0o777
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Through a link, as dotfile managers leave them.
        os.replace(partial, os.path.realpath(original))
    except OSError:
        partial.unlink(missing_ok=True)
        return False
    return True


def _digest(content: bytes) -> str:
    import hashlib  # some milliseconds and megabytes that a run without login files saves

    return hashlib.sha256(content).hexdigest()
