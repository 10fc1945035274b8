"""Open a web page in the user's browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import RebyteError
from ..output.console import is_plain


def is_page(url: object) -> bool:
    """Whether a URL from the server may be opened, or linked in a report: a plain web address.

    A desktop opens files and programs for `file:`, `javascript:` and the schemes of its handlers.
    User information (`https://app.rebyte.ai@evil.example`) and characters that end a link are
    refused too.
    """
    from ..system.untrusted import url_parts

    if not isinstance(url, str) or not is_plain(url) or set(url) & set(" \"'<>\\`"):
        return False
    parts = url_parts(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    return "@" not in parts.netloc


def check_page(url: object) -> str:
    """Return the URL if `is_page`; raise RebyteError otherwise."""
    if not is_page(url):
        text = url if isinstance(url, str) else ""
        raise RebyteError(f"not a web page: {text[:200]!r}", code="not_a_page")
    return str(url)


def open_page(url: object) -> bool:
    """Open the page with $BROWSER or the desktop's default browser.

    `BROWSER` is as in xdg-open: commands separated by colons, each with its arguments and `%s` for
    the URL, which comes last without. Returns False when there is no browser. Raises RebyteError
    for what is not a web page.
    """
    page = check_page(url)
    import webbrowser

    with _stdout_kept():
        for command in os.environ.get("BROWSER", "").split(os.pathsep):
            opened = _run(command, page)
            if opened is not None:
                return opened
        try:
            return webbrowser.open(page)
        except (webbrowser.Error, OSError):
            return False


def _run(command: str, page: str) -> bool | None:
    """Open the page with a command that has arguments.

    None for one that has none, or cannot be started: webbrowser knows how to start the browsers
    that are programs alone, and others are in its list.
    """
    import shlex
    import subprocess

    try:
        words = shlex.split(command)
        in_background = words[-1:] == ["&"]
        words = words[:-1] if in_background else words
        if not words or (len(words) < 2 and not in_background):
            return None
        line = [word.replace("%s", page) for word in words]
        if line == words:
            line.append(page)
        started = subprocess.Popen(line)
    except (OSError, ValueError):
        return None
    return in_background or started.wait() == 0


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Send what a browser prints to stderr, since stdout is for data.

    A terminal is left alone, for browsers that draw their pages there.
    """
    try:
        kept = None if os.isatty(1) else os.dup(1)
        if kept is not None:
            os.dup2(2, 1)
    except OSError:  # one of them is closed
        kept = None
    try:
        yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
