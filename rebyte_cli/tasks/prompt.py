"""What the API takes as a prompt, checked before anything is sent."""

from __future__ import annotations

from ..errors import BadUsage

LONGEST = 100_000  # characters, not bytes (seed document)


def check_prompt(text: str) -> str:
    """The prompt, if the API would take it; BadUsage otherwise."""
    if not text.strip():
        raise BadUsage("the prompt is empty")
    if len(text) > LONGEST:
        raise BadUsage(f"the prompt has {len(text):,} characters; the API takes {LONGEST:,}")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can spell it, UTF-8 cannot
        raise BadUsage("the prompt is not valid UTF-8") from None
    return text
