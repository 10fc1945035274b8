"""Errors and notes in the words of the tools: those of the library name commands and options."""

from __future__ import annotations

import re
from collections.abc import Callable

_COMMANDS = "create|wait|get|result|follow-up|list|answer|cancel|logs"

# In this order: an option with its value comes before the bare option.
_WORDS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"run the same command again", "call the tool again with the same arguments"),
    (r"(\. )?To run it unconfined: [^\n]*", ""),  # which no tool does
    (r"--forget drops", "`rebyte create --once KEY --forget` in a shell drops"),
    (r"(`rebyte create --once .+? --forget`) lets", r"\1 in a shell lets"),
    (r"`rebyte(?: -P \S+)? result \S+ --wait`", "the tool `wait`"),
    (
        rf"`rebyte(?: -P \S+)? ({_COMMANDS})(?: [^-` ][^` ]*)*`",
        lambda found: f"the tool `{found[1].replace('-', '_')}`",
    ),
    (r"`--once KEY`|--once: KEY", "`once`"),
    (r"--option N", "`options`"),
    (r"--option(?![\w-])", "number in `options`"),
    (r"--text TEXT", "`texts`"),
    (r"--text(?![\w-])", "text in `texts`"),
    (r"(?<![\w-])-g owner/repo", "a `repository` such as owner/repo"),
    (r"(?<![\w-])-g(?!\w)|--github-url", "`repository`"),
    (r"(?<![\w-])-x(?!\w)", "`executor`"),
    (r"(?<![\w-])-b(?!\w)|--branch(?![\w-])", "`branch`"),
)


def for_tools(text: str) -> str:
    """Name the tools and parameters that a text means by commands and options.

    A command that no tool replaces, such as `rebyte auth login`, stays: it is for the user's shell.
    """
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text
