"""What a user may write for a task or a workspace, turned into its id.

A TASK is an id, a unique prefix (four characters or more) of an id that was created or shown here,
the URL of its page, `@last` or `@N`, or `-` for one reference per line from stdin. Only the history
is asked, never the API.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..api.urls import BASE_URL, check_id, origin_of
from ..errors import BadUsage, Next, NotFound

if TYPE_CHECKING:
    from .history import History

SHORTEST = 4
# The folders that ids stand in: pages of tasks (seed document; vendor docs for shared ones), the
# API's own paths, and pages of workspaces.
_TASK_FOLDERS = ("run", "share", "tasks")
_WORKSPACE_FOLDERS = ("workspaces", "workspace", "agent-computers", "computer")


def task(history: History, reference: str) -> str:
    """The id of one task.

    What the history does not know is passed on as an id, since tasks are made elsewhere too.
    Raises BadUsage for an ambiguous prefix (with the candidates) or a malformed reference,
    NotFound when `@N` is more than there are.
    """
    if reference == "-":
        raise BadUsage("`-` can mean several tasks, but this command takes only one")
    if reference.startswith("@"):
        return str(_numbered(history, reference)["id"])
    if _is_url(reference):
        return _in_url(history, reference, _TASK_FOLDERS, "task")[1]
    check_id(reference, "task id")
    return _by_prefix(history, reference) or reference


def tasks(
    history: History,
    references: Iterable[str],
    stdin: Iterable[str],
    *,
    ignore_missing: bool = False,
) -> list[str]:
    """The ids of several tasks in the order given, each once; `-` reads stdin, line by line.

    Raises as `task` does, naming the line when the reference came from stdin. With
    `ignore_missing`, an `@N` that names no task is left out.
    """
    found: dict[str, None] = {}
    for reference, number in _each(references, stdin):
        try:
            one = _from_line(history, reference, number) if number else task(history, reference)
        except NotFound:
            if not ignore_missing:
                raise
        else:
            found[one] = None
    return list(found)


def _each(references: Iterable[str], stdin: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each reference and the number of its line of stdin; 0 if it was an argument."""
    for reference in references:
        if reference != "-":
            yield reference, 0
            continue
        for number, line in enumerate(stdin, 1):
            if line.strip():
                yield line.strip(), number


def workspace(history: History, reference: str) -> str:
    """The id of a workspace: its id, alias or URL, or the workspace of a TASK.

    An alias wins over a prefix. What the history does not know is passed on as an id, since an
    agent computer's id is one too. Raises as `task` does; NotFound for a task of which no
    workspace is known.
    """
    if reference.startswith("@"):
        return _workspace_of(_numbered(history, reference))
    if _is_url(reference):
        folders = _WORKSPACE_FOLDERS + _TASK_FOLDERS
        folder, found = _in_url(history, reference, folders, "workspace or task")
        if folder in _WORKSPACE_FOLDERS or history.workspace(found):
            return found
        return _workspace_of(history.task(found) or {"id": found, "workspaceId": None})
    named = history.workspace(reference)
    if named is not None:
        return str(named["id"])
    check_id(reference, "workspace id or alias")
    near = []
    if len(reference) >= SHORTEST:
        near = [str(known["id"]) for known in history.workspaces(reference)]
    task_id = _by_prefix(history, reference)
    of_task = history.task(task_id) if task_id else None
    if of_task and of_task["workspaceId"]:
        near.append(_workspace_of(of_task))
    if len(set(near)) > 1:
        raise _ambiguous(reference, set(near))
    if of_task and not near:
        return _workspace_of(of_task)
    return near[0] if near else reference


def _from_line(history: History, reference: str, number: int) -> str:
    if reference == "-":
        raise BadUsage(f"stdin, line {number}: `-` cannot be used inside stdin")
    try:
        return task(history, reference)
    except (BadUsage, NotFound) as problem:
        raise type(problem)(f"stdin, line {number}: {problem.message}", hint=problem.hint) from None


def _numbered(history: History, reference: str) -> dict[str, object]:
    name = reference[1:]
    if name != "last" and not (name.isascii() and name.isdigit() and len(name) < 10 and int(name)):
        raise BadUsage(
            f"{reference!r} is not a reference",
            hint="Use @last, or @N for the N-th newest task created here",
        )
    newest = history.tasks(1) if name == "last" else []
    found = newest[0] if newest else history.nth(1 if name == "last" else int(name))
    hint = "The history is kept per service; " + Next("list") + " shows all tasks of the account"
    if found is None:
        count = 0 if name == "last" else history.count()
        raise NotFound(
            f"{reference} doesn't exist: {_count(count)} created on this machine for this service",
            hint=hint,
        )
    if found.get("deleted"):
        every = "every task that was created from here" if name == "last" else f"task {found['id']}"
        others = Next("list") + " shows the tasks that are left"
        if name != "last":
            others = "A deleted task keeps its number; @last is the newest that is left\n" + others
        raise NotFound(f"{reference} doesn't exist: {every} was deleted", hint=others)
    return found


def _count(tasks: int) -> str:
    if not tasks:
        return "no task was"
    return "only one task was" if tasks == 1 else f"only {tasks:,} tasks were"


def _by_prefix(history: History, reference: str) -> str | None:
    """The one id that was created or shown here and starts like this."""
    candidates = history.shown(reference)
    if len(reference) < SHORTEST:
        if candidates and reference not in candidates:
            raise BadUsage(
                f"{reference!r} is too short: give at least {SHORTEST} characters of an id"
            )
        return None
    if len(candidates) > 1 and reference not in candidates:
        raise _ambiguous(reference, set(candidates))
    return reference if reference in candidates else next(iter(candidates), None)


def _is_url(reference: str) -> bool:
    return reference.startswith(("https://", "http://"))


def _in_url(history: History, url: str, folders: tuple[str, ...], what: str) -> tuple[str, str]:
    """The id in the URL of a page, or of the API, behind the folder that it stands in.

    BadUsage where it holds none, or where the page is certainly one of another service.
    """
    from itertools import pairwise
    from urllib.parse import unquote

    from ..system.untrusted import url_parts

    parts = url_parts(url)
    for folder, name in pairwise(parts.path.split("/") if parts else ()):
        if folder in folders and name:
            _check_service(history, url)
            return folder, check_id(unquote(name), f"{what} id")
    raise BadUsage(
        f"{url!r} is not the URL of a {what}",
        hint="Copy the page's URL (https://app.rebyte.ai/run/ID), or give the id alone",
    )


def _check_service(history: History, url: str) -> None:
    """Raise BadUsage for a link of rebyte.ai with a service that rebyte carries, or the reverse."""
    from urllib.parse import urlsplit

    from ..system.addresses import is_loopback

    host = urlsplit(url).hostname or ""
    is_of_vendor = f".{host}".endswith(".rebyte.ai")
    carried = not history.origin.startswith(("https://", "http://"))
    if (carried and is_of_vendor) or (history.origin == origin_of(BASE_URL) and is_loopback(host)):
        other = "-P local" if is_loopback(host) else "another profile, such as -P default,"
        raise BadUsage(
            f"{url!r} is a link of another service than the one that is asked",
            hint=f"Use {other} to ask that one",
        )


def _workspace_of(known: dict[str, object]) -> str:
    if not known["workspaceId"]:
        raise NotFound(f"the workspace of task {known['id']} is unknown on this machine")
    return str(known["workspaceId"])


def _ambiguous(reference: str, candidates: set[str]) -> BadUsage:
    shown = sorted(candidates)[:10]
    more = f"\n… and {len(candidates) - 10} more" if len(candidates) > 10 else ""
    return BadUsage(
        f"{reference!r} matches {len(candidates)} ids; use a longer prefix",
        hint="\n".join(shown) + more,
    )
