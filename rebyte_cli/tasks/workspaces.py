"""Agent computers of the account, joined with the workspaces that the history knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..api.failures import NO_SUCH_CALL
from ..api.views import text
from ..errors import APIError, NetworkError, Next, RebyteError, ResourceNotFound
from ..system.deadline import GRACE, Deadline, Patience

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..api.models import Computer

SECRET = "sandboxApiKey"  # noqa: S105 -- the name of a field, seen in a client
# What a row takes from the API, since the history does not know it.
_FROM_API = ("status", "url", "createdAt")


def computers(client: RebyteClient, note: Callable[[str], None]) -> list[Computer]:
    """Every agent computer, or none and a note where they cannot be listed.

    That is a service without this endpoint, a key that may not read it, and no network.
    A rejected key (401) is raised: nothing else would work with it either.
    """
    try:
        return list(client.iter_computers())
    except ResourceNotFound:
        why = "this service has no agent computers"
    except RebyteError as error:
        status = getattr(error, "status_code", None)
        if not isinstance(error, NetworkError) and status not in (403, *NO_SUCH_CALL):
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
    row, told = dict(known or {"id": None, "tasks": 0}), computer or {}
    row["id"] = row["id"] or told.get("id")
    row |= {name: told[name] for name in _FROM_API if told.get(name) is not None}
    row["name"] = row.get("name") or told.get("name")
    return row


def ready(
    client: RebyteClient,
    computer: Mapping[str, Any],
    *,
    deadline: Deadline,
    **times: Any,
) -> Mapping[str, Any]:
    """The computer once it is up: `status` is `ready` (vendor docs) or `sandboxId` is set (seen
    in clients). `times` are as in `Patience`; usually it is read ever less often, up to the two
    seconds that the clients use.

    Raises RebyteError with `provisionError` when it cannot start, WaitTimeout at the deadline.
    """
    workspace_id, found = str(computer["id"]), computer
    hint = Next("workspace", "show", workspace_id) + " shows its progress"
    usual = {"first": 0.5, "longest": 2.0, "steady": 0.0, "resume": hint}
    patience = Patience(deadline, client.transport, **{**usual, **times})
    while not (found.get("status") == "ready" or found.get("sandboxId")):
        if found.get("status") == "error":
            reason = " ".join(str(found.get("provisionError") or "no reason given").split())
            raise RebyteError(
                f"workspace {workspace_id} did not start: {reason[:300]}",
                code="provision_failed",
            )
        if deadline.has_passed:
            late = f"workspace {workspace_id} is not ready after"
            raise deadline.error(late, pending=[workspace_id], hint=hint)
        patience.sleep()
        try:
            found = client.get_computer(workspace_id, timeout=deadline.for_call(GRACE))
            patience.answered()
        except APIError as error:
            patience.failed(error)
    return found
