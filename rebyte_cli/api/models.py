"""The documents of the API as types, for annotations; the command imports none of them.

The methods of `RebyteClient` return these plain dictionaries as they came. A key that is not
`NotRequired` is one that the service always sends (or the client checks); every document may hold
further keys. The source of each shape is in its docstring.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class CreatedTask(TypedDict):
    """Response of POST /tasks (seed document). `workspaceId` is in no later response."""

    id: str
    workspaceId: NotRequired[str]
    url: NotRequired[str]
    status: NotRequired[str]
    createdAt: NotRequired[str]


class CreatedPrompt(TypedDict):
    """Response of POST /tasks/{id}/prompts (seed document)."""

    promptId: str


class Usage(TypedDict):
    """What a task used of its model: of the local service, and what the command prints.

    The input includes what the cache gave, the output includes thoughts. `costUsd` is null if no
    price is known, `requests` if nothing counted them; `uncountedRequests` are those of them of
    which the model did not say all that they used, if there were any.
    """

    requests: int | None
    inputTokens: int
    cachedInputTokens: int
    outputTokens: int
    costUsd: float | None
    uncountedRequests: NotRequired[int]


class Prompt(TypedDict):
    """One prompt of a task (seed document).

    `hasChanges` is of the local service: `get_changes` has the changes of this run alone, or none.
    """

    id: str
    status: str
    submittedAt: NotRequired[str]
    completedAt: NotRequired[str | None]
    hasChanges: NotRequired[bool]


class TaskRow(TypedDict):
    """A task in a list (vendor docs): no `status`, no `prompts`, no `workspaceId`."""

    id: str
    url: NotRequired[str]
    title: NotRequired[str | None]
    executor: NotRequired[str | None]
    model: NotRequired[str | None]
    createdAt: NotRequired[str]
    completedAt: NotRequired[str | None]
    usage: NotRequired[Usage]


class Task(TaskRow):
    """Response of GET /tasks/{id} (seed document).

    `finalResult` was seen in a client; `workspaceId` in no source, but a service may send it.
    """

    status: str
    prompts: NotRequired[list[Prompt]]
    finalResult: NotRequired[str]
    workspaceId: NotRequired[str | None]


class TaskPage(TypedDict):
    """Response of GET /tasks (vendor docs), newest first. `total` counts all tasks."""

    data: list[TaskRow]
    total: NotRequired[int]
    limit: NotRequired[int]
    offset: NotRequired[int]


class RunEvent(TypedDict, total=False):
    """One event of a run (seen in clients)."""

    seq: int
    eventKey: str
    timestamp: str
    promptId: str
    eventType: str
    payload: dict[str, Any]


class ContentPrompt(Prompt):
    """One prompt in a content document (seen in clients); `events` only when asked for."""

    userPrompt: NotRequired[str]
    response: NotRequired[str | None]
    events: NotRequired[list[RunEvent]]


class Content(TypedDict):
    """Response of GET /tasks/{id}/content (seen in clients), oldest prompt first."""

    id: NotRequired[str]
    status: NotRequired[str]
    prompts: NotRequired[list[ContentPrompt]]


class PromptEvents(TypedDict):
    """Response of GET /tasks/{id}/prompts/{promptId}/events (seen in a client)."""

    promptId: NotRequired[str]
    events: NotRequired[list[RunEvent]]


class Canceled(TypedDict, total=False):
    """Response of POST /tasks/{id}/cancel; possibly empty (seen in a client)."""

    id: str
    status: str
    canceledPrompts: int


class Visibility(TypedDict):
    """Response of PATCH /tasks/{id}/visibility (vendor docs); a link only when it is public."""

    visibility: NotRequired[Literal["private", "shared", "public"]]
    shareUrl: NotRequired[str]


class FileRef(TypedDict):
    """An uploaded file as POST /tasks takes it (vendor docs)."""

    id: str
    filename: str


class UploadSlot(FileRef):
    """Response of POST /files (vendor docs). `filename` is a unique variant of the one sent."""

    uploadUrl: str


class Artifact(TypedDict, total=False):
    """A file of a workspace (path documented, every field inferred)."""

    name: str
    filename: str
    size: int
    url: str


class ArtifactSlot(TypedDict):
    """A signed URL for a large artifact (inferred)."""

    uploadUrl: str
    publicUrl: NotRequired[str]


class Computer(TypedDict):
    """An agent computer (vendor docs; the last four seen in clients).

    `status` is `provisioning`, `ready` or `error`. `sandboxApiKey` is a secret.
    """

    id: str
    name: NotRequired[str]
    url: NotRequired[str]
    status: NotRequired[str]
    icon: NotRequired[str | None]
    sandboxId: NotRequired[str | None]
    provisionError: NotRequired[str | None]
    createdAt: NotRequired[str]
    updatedAt: NotRequired[str]
    sandboxBaseUrl: NotRequired[str]
    sandboxApiKey: NotRequired[str]
    agentInstructions: NotRequired[str | None]
    views: NotRequired[list[dict[str, Any]]]


class ComputerPage(TypedDict):
    """Response of GET /agent-computers (vendor docs; the counts inferred), newest first."""

    data: NotRequired[list[Computer]]
    total: NotRequired[int]
    limit: NotRequired[int]
    offset: NotRequired[int]


class Webhook(TypedDict):
    """A webhook (vendor docs); its secret is never returned."""

    id: str
    url: NotRequired[str]
    events: NotRequired[list[str]]
    description: NotRequired[str | None]
    hasSecret: NotRequired[bool]
    isActive: NotRequired[bool]
    createdAt: NotRequired[str]
    lastTriggeredAt: NotRequired[str | None]
    failureCount: NotRequired[int]


class Credits(TypedDict, total=False):
    """Response of GET /billing/credits (seen in clients)."""

    balance: float
    expiringBalance: float
    expiringAllowance: float
    totalAvailable: float
    lifetimePurchased: float
    lifetimeUsed: float
    updatedAt: str | None


class Health(TypedDict, total=False):
    """Response of GET /health (seen in a client)."""

    status: str


class SandboxKey(TypedDict, total=False):
    """Response of GET /sandbox/api-key (seen in a client); the key is a secret."""

    apiKey: str
    baseUrl: str


class Account(TypedDict):
    """Response of POST /accounts (seen in a client); the key is shown only once."""

    id: str
    api_key: NotRequired[str]
