"""`rebyte` as a library: `from rebyte_cli import RebyteClient, APIError`.

Nothing is imported until a name is asked for, so that the command can answer
`--version` without paying for an HTTP stack.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would double the time of `--version`
if TYPE_CHECKING:
    from typing import Any

    from .api.client import RebyteClient
    from .api.models import (
        Account,
        Artifact,
        ArtifactSlot,
        Canceled,
        Computer,
        ComputerPage,
        Content,
        ContentPrompt,
        CreatedPrompt,
        CreatedTask,
        Credits,
        FileRef,
        Health,
        Prompt,
        PromptEvents,
        RunEvent,
        SandboxKey,
        Task,
        TaskPage,
        TaskRow,
        UploadSlot,
        Visibility,
        Webhook,
    )
    from .api.sse import StreamEvent
    from .errors import (
        AnswerTooLarge,
        APIError,
        BadUsage,
        BrokenAnswer,
        KeyProblem,
        KeyRejected,
        MissingKey,
        NeedsAnswer,
        NetworkError,
        NotFound,
        OutcomeUnknown,
        QuestionAsked,
        RebyteError,
        Redirected,
        ResourceNotFound,
        ServerFault,
        Unsent,
        WaitTimeout,
    )

__version__ = "0.1.0"
__all__ = [
    "APIError",
    "Account",
    "AnswerTooLarge",
    "Artifact",
    "ArtifactSlot",
    "BadUsage",
    "BrokenAnswer",
    "Canceled",
    "Computer",
    "ComputerPage",
    "Content",
    "ContentPrompt",
    "CreatedPrompt",
    "CreatedTask",
    "Credits",
    "FileRef",
    "Health",
    "KeyProblem",
    "KeyRejected",
    "MissingKey",
    "NeedsAnswer",
    "NetworkError",
    "NotFound",
    "OutcomeUnknown",
    "Prompt",
    "PromptEvents",
    "QuestionAsked",
    "RebyteClient",
    "RebyteError",
    "Redirected",
    "ResourceNotFound",
    "RunEvent",
    "SandboxKey",
    "ServerFault",
    "StreamEvent",
    "Task",
    "TaskPage",
    "TaskRow",
    "Unsent",
    "UploadSlot",
    "Visibility",
    "WaitTimeout",
    "Webhook",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        for home in ("errors", "api.client", "api.sse", "api.models"):
            found = vars(import_module(f"{__name__}.{home}")).get(name)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
