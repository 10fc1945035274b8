"""The hint that names another profile, where that one has what the chosen one has not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import KeyProblem, RebyteError, lines
from .history.references import SHORTEST

if TYPE_CHECKING:
    from .app import App


def with_other_profile(app: App, error: RebyteError) -> RebyteError:
    """The error, with a hint if tasks were created here with a profile for another service.

    For a missing key, for `@last` where nothing was created with this profile, and for the id of a
    task that was created with another one.
    """
    with suppress(RebyteError):
        words = [error.subject] if error.subject else app.argv
        hint = _hint(app, words, is_about_task=not isinstance(error, KeyProblem))
        if hint is not None:
            return error.copy_with(hint=lines(hint, error.hint))
    return error


def _hint(app: App, words: Sequence[str], *, is_about_task: bool) -> str | None:
    from .history.history import History

    if not app.history_file.exists():
        return None
    # Whether it can be read is not what the error is about.
    history = History(app.history_file, origin=app.settings.origin)
    counts, names = history.counts_elsewhere(), _profiles(app)
    if is_about_task:
        ids = [word for word in words if len(word) >= SHORTEST]
        named = history.counts_elsewhere(ids) if ids else {}
        is_for_last = history.count() == 0 and any(word.startswith("@") for word in words)
        counts = named or (counts if is_for_last else {})
    for origin, count in counts.items():
        if origin in names:
            how_many = "1 task was" if count == 1 else f"{count:,} tasks were"
            return (
                f"{how_many} created with profile {names[origin]}: add -P {names[origin]}, or"
                f" rebyte profile use {names[origin]}"
            )
    return None


def _profiles(app: App) -> dict[str, str]:
    """The names of the profiles, by the origin of their service."""
    found: dict[str, str] = {}
    for name in app.config.names():
        with suppress(RebyteError):
            found.setdefault(app.at(name).settings.origin, name)
    return found
