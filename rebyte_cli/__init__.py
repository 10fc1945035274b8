"""`rebyte` as a library: `from rebyte_cli import RebyteClient, APIError`.

Nothing is imported until a name is asked for, so that the command can answer
`--version` without paying for an HTTP stack.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would double the time of `--version`
if TYPE_CHECKING:
    from typing import Any

    from .api.client import RebyteClient
    from .errors import APIError, RebyteError

__version__ = "0.1.0"
__all__ = ["APIError", "RebyteClient", "RebyteError", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "RebyteClient":
        from .api.client import RebyteClient

        return RebyteClient
    if name in ("APIError", "RebyteError"):
        from . import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
