"""`--notify`: tell how a wait ended, on the terminal that it ran on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ..app import App
from ..errors import CarriesTask, NeedsAnswer, RebyteError, RowOrError, WaitTimeout


class EndNotice:
    """Rings the bell and shows a desktop notice once a wait is over, unless it was interrupted.

    It does neither unless `is_wanted`.
    """

    def __init__(self, app: App, *, is_wanted: bool) -> None:
        self._app = app
        self._is_wanted = is_wanted
        self._ends: Counter[str] = Counter()
        self._title = ""

    def of_outcomes(self, outcomes: Iterator[RowOrError]) -> Iterator[RowOrError]:
        """The outcomes of a wait; the notice comes after the last."""
        with self.given():
            for outcome in outcomes:
                self.see(outcome)
                yield outcome

    def see(self, outcome: RowOrError) -> None:
        """Take note of how a task ended."""
        task = outcome.task if isinstance(outcome, CarriesTask) else outcome
        if isinstance(task, RebyteError):
            return
        status = str(task.get("status"))
        self._ends["waiting for an answer" if isinstance(outcome, NeedsAnswer) else status] += 1
        self._title = str(task.get("title") or task.get("id"))

    @contextmanager
    def given(self) -> Iterator[None]:
        """Give the notice at the end, which `see` was told or which is raised."""
        try:
            yield
        except CarriesTask as end:
            self.see(end)
            self._show(self._summary())
            raise
        except WaitTimeout as error:
            self._show(error.message)
            raise
        except RebyteError as error:
            self._show(f"the wait failed: {error.message}")
            raise
        self._show(self._summary())

    def _summary(self) -> str:
        if sum(self._ends.values()) == 1:
            return f"{self._title[:80]}: {next(iter(self._ends))}"
        words = ", ".join(f"{number} {status}" for status, number in self._ends.items())
        return words or "no task could be read"

    def _show(self, text: str) -> None:
        if not self._is_wanted:
            return
        environment = self._app.environment
        # A bare console would print the text of a sequence that it does not know.
        desktop = environment.get("TERM") not in ("dumb", "linux")
        self._app.console.notify(f"rebyte: {text}", desktop=desktop, in_tmux="TMUX" in environment)
