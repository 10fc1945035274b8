"""A page shown in the user's browser, and nothing but a page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import RebyteError


def check_page(url: object) -> str:
    """The URL, if it is a web page. RebyteError otherwise: a browser opens files and programs too.

    A URL comes from the server, and what a desktop does with `file:` or `javascript:` or a
    handler of some program is nobody's wish.
    """
    from urllib.parse import urlsplit

    text = url if isinstance(url, str) else ""
    try:
        parts = urlsplit(text)
        good = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        )
    except ValueError:
        good = False
    if not good or not text.isprintable() or any(mark in text for mark in " \"'<>\\`"):
        raise RebyteError(f"this is no web page: {text[:200]!r}", code="not_a_page")
    return text


def open_page(url: object) -> bool:
    """Show the page with $BROWSER or the desktop's own browser.

    False when there is no browser to be had. Raises RebyteError for what is no web page.
    """
    page = check_page(url)
    import webbrowser

    with _stdout_kept():
        try:
            return webbrowser.open(page)
        except (webbrowser.Error, OSError):
            return False


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Keep what a browser prints out of stdout, which is for data: some greet whoever starts them.

    On a terminal it stays, for a browser that draws its pages there.
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
