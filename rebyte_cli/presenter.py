"""Prints what a command came to: the value that it returned, or the error that ended it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from .app import App
from .errors import (
    Interrupted,
    KeyProblem,
    NotFound,
    OutcomeUnknown,
    ReaderGone,
    RebyteError,
    ResourceNotFound,
    worst,
)


class Presenter:
    """Prints what one run of the command comes to, and knows the exit status for all of it."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._statuses: list[int] = []  # of the errors that were printed

    def show(self, value: Any) -> int:
        """Print what a command returned; returns the exit status."""
        from .output.records import Text
        from .output.render import show

        app = self._app
        # Text has one format, and a page about the configuration must print while that is broken.
        form = "text" if isinstance(value, Text) else app.format
        return show(
            value,
            console=app.console,
            format=form,
            fields=app.fields,
            errors_as_json=app.errors_as_json,
            prepare_error=self._prepared,
            pager=self._pager,
        )

    def _pager(self, variable: str) -> AbstractContextManager[None]:
        """A pager, if there is a terminal that can show one, with a user who can leave it."""
        app = self._app
        if not (app.console.out_live and app.interactive):
            return nullcontext()
        from .output.pager import paged

        return paged(app.console, app.environment, variable)

    def fail(self, error: RebyteError | Interrupted) -> int:
        """Print an error, after the record that it carries; returns the exit status.

        That is the highest-ranking one where errors were printed before it.
        """
        if isinstance(error, ReaderGone) or (isinstance(error, Interrupted) and not error.hint):
            return error.exit_status  # no reader left, or nothing to add to the key press
        from .output.messages import show_error

        app, as_json = self._app, self._app.errors_as_json
        if error.record is not None and not app.text:
            from .output.records import TASK, Records

            self.show(Records(TASK, [app.known.update(error.record)]))
        with suppress(RebyteError):  # stdout is lost: `error` says so, or matters more
            app.console.flush_out()
        if isinstance(error, Interrupted):
            hint = error.hint and app.typed(error.hint)
            show_error(app.console, Interrupted(error.exit_status, hint=hint), as_json=as_json)
            return error.exit_status
        show_error(app.console, self._prepared(error), as_json=as_json)
        return worst(self._statuses)

    def _prepared(self, error: RebyteError) -> RebyteError:
        """An error as it is printed, with the profile in its commands; its status counts."""
        app = self._app
        self._statuses.append(error.exit_status)
        if isinstance(error, OutcomeUnknown) and error.candidates:
            app.history.remember_shown(error.candidates)  # a prefix of one is enough from now on
        if isinstance(error, KeyProblem | NotFound | ResourceNotFound):
            from .other_profiles import with_other_profile

            error = with_other_profile(app, error)
        hint = error.hint and app.typed(error.hint)
        return error.copy_with(message=app.typed(error.message), hint=hint)
