"""What the API takes as a prompt, checked before anything is sent."""

from __future__ import annotations

from ..errors import BadUsage

LONGEST = 100_000  # characters, not bytes (seed document)


def is_empty(text: str) -> bool:
    """Whether a prompt says nothing: it has white space and NUL characters alone."""
    return not text.replace("\0", "").strip()


def check_prompt(text: str) -> str:
    """The prompt, if the API would take it; BadUsage otherwise."""
    if is_empty(text):
        raise BadUsage("the prompt is empty")
    if len(text) > LONGEST:
        raise BadUsage(f"the prompt has {len(text):,} characters; the API takes {LONGEST:,}")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can spell it, UTF-8 cannot
        raise BadUsage("the prompt is not valid UTF-8") from None
    return text
