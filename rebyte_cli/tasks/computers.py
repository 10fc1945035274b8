"""Agent computers of the account, joined with the workspaces that the history knows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..api.errors import NO_SUCH_CALL
from ..api.views import text
from ..deadline import GRACE, Deadline
from ..errors import KeyRejected, NetworkError, RebyteError, ResourceNotFound

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..api.models import Computer

SECRET = "sandboxApiKey"  # noqa: S105 -- the name of a field, seen in a client
FIRST_PAUSE = 0.5  # seconds before the second read, doubled after each ...
LONGEST_PAUSE = 2.0  # ... up to the interval that the clients use
# What a row takes from the API, since the history does not know it.
_FROM_API = ("status", "url", "createdAt")


def computers(client: RebyteClient, note: Callable[[str], None]) -> list[Computer]:
    """Every agent computer, or none and a note where they cannot be listed.

    That is a service without this endpoint, a key that may not read it, and no network.
    A rejected key (401) is raised: nothing else would work with it either.
    """
    try:
        return list(client.iter_computers())
    except KeyRejected as error:
        if error.status_code == 401:
            raise
        why = error.message
    except ResourceNotFound:
        why = "this service has no agent computers"
    except NetworkError as error:
        why = error.message
    except RebyteError as error:
        if getattr(error, "status_code", None) not in NO_SUCH_CALL:
            raise
        why = error.message
    note(f"Only workspaces used on this machine: {why}")
    return []


def joined(
    known: Sequence[Mapping[str, Any]], computers: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Workspaces of the history, the last used first, then the computers never used from here.

    In this order, those with a name come before those without.
    """
    by_id = {one_id: one for one in computers if (one_id := text(one.get("id")))}
    odd = [one for one in computers if not text(one.get("id"))]
    rows = [merged(workspace, by_id.pop(workspace["id"], None)) for workspace in known]
    rows += [merged(None, computer) for computer in [*by_id.values(), *odd]]
    yield from sorted(rows, key=lambda row: not row["name"])


def merged(known: Mapping[str, Any] | None, computer: Mapping[str, Any] | None) -> dict[str, Any]:
    """One row: what the history knows, and the state that the API tells. An alias wins over a
    computer's own name, since it is what `-w` takes.
    """
    row = dict(known or {"id": None, "tasks": 0})
    row["id"] = row["id"] or (computer or {}).get("id")
    for name in _FROM_API if computer else ():
        if computer and computer.get(name) is not None:
            row[name] = computer[name]
    row["name"] = row.get("name") or (computer or {}).get("name")
    return row


def ready(
    client: RebyteClient,
    computer: Mapping[str, Any],
    *,
    deadline: Deadline,
    sleep: Callable[[float], None] = time.sleep,
) -> Mapping[str, Any]:
    """The computer once it is up: `status` is `ready` (vendor docs) or `sandboxId` is set (seen
    in clients).

    Raises RebyteError with `provisionError` when it cannot start, WaitTimeout at the deadline.
    """
    found: Mapping[str, Any] = computer
    pause = FIRST_PAUSE
    while not (found.get("status") == "ready" or found.get("sandboxId")):
        if found.get("status") == "error":
            reason = " ".join(str(found.get("provisionError") or "no reason given").split())
            raise RebyteError(
                f"workspace {found.get('id')} did not start: {reason[:300]}",
                code="provision_failed",
            )
        if deadline.has_passed:
            raise deadline.error(
                f"workspace {found.get('id')} is not ready after",
                pending=[str(found.get("id"))],
                hint=f"`rebyte workspace show {found.get('id')}` shows its progress",
            )
        sleep(deadline.cap(pause))
        pause = min(2 * pause, LONGEST_PAUSE)
        try:
            found = client.get_computer(str(computer["id"]), timeout=deadline.for_call(GRACE))
        except NetworkError as error:
            if not deadline.cut_short(error, usual=client.transport.limit()):
                raise
    return found
