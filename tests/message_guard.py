"""Makes an f-string fail that would drop the commands and options of a message, as data are lost.

`f"{error.hint}"` is a plain text: `-P NAME` is missing in it, and `rebyte mcp` names no tool.
"""

from __future__ import annotations

from rebyte_cli.errors import Message, Next, Term


def guard_messages() -> None:
    """Do so in this process, and in those that are forked from it."""

    def refuse(message: Message, _specification: str) -> str:
        lost = [part for part in message.parts if isinstance(part, Next | Term)]
        assert not lost, f"an f-string drops what {lost} are; put messages together with +"
        return str.__str__(message)

    Message.__format__ = refuse  # type: ignore[method-assign]
