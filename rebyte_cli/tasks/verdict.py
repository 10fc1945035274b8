"""What a run comes to that its task has completed: whether its changes pass, its answer fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import SchemaMismatch, TaskEnded
from .answer_schema import ASK
from .check import BROKEN, FAILED, PASSED

if TYPE_CHECKING:
    from .check import CheckOutcome


LONGEST_REPEATED = 50_000  # characters of a schema, half of what a prompt may have


class AnswerOutcome(NamedTuple):
    """What an answer comes to: `output` is the value that it holds, or `problems` say why none.

    Those are lines, and there is at least one if the answer does not fit. `schema` is its text.
    """

    schema: str
    output: Any = None
    problems: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """As that of a check."""
        return FAILED if self.problems else PASSED

    @property
    def reason(self) -> str:
        """Why it does not fit."""
        return "; ".join(self.problems)

    def of_task(self, task: Mapping[str, Any]) -> Mapping[str, Any] | TaskEnded:
        """The document of a task with this outcome: itself, or as the error that it stands for."""
        return SchemaMismatch(task, self.reason) if self.problems else task

    def prompt(self, number: int, most: int) -> str:
        """What to tell the task, for try `number` of `most`."""
        problems = "\n".join(f"- {problem}" for problem in self.problems)
        again = ASK + self.schema if len(self.schema) <= LONGEST_REPEATED else ""
        return (
            "Your answer is not JSON that fits the JSON Schema"
            f" (try {number} of {most}):\n\n{problems}\n\n"
            "Answer again, with the whole JSON document and nothing else." + again
        )


class RunVerdict(NamedTuple):
    """The outcomes of what was asked for: a check of the changes, an answer that fits, or both."""

    check: CheckOutcome | None = None
    answer: AnswerOutcome | None = None

    @property
    def _outcomes(self) -> list[CheckOutcome | AnswerOutcome]:
        return [each for each in (self.check, self.answer) if each is not None]

    @property
    def status(self) -> str:
        """Passed, failed, or error: then another run of the task would be of no use."""
        found = {each.status for each in self._outcomes}
        return next((each for each in (BROKEN, FAILED) if each in found), PASSED)

    @property
    def failure(self) -> CheckOutcome | AnswerOutcome | None:
        """The outcome that decides how the task ended; None if all is well."""
        wrong = [each for each in self._outcomes if each.status != PASSED]
        return next((each for each in wrong if each.status == BROKEN), next(iter(wrong), None))

    def fields(self, tries: int) -> dict[str, Any]:
        """What the document of the task gets: `check`, and `output` for an answer that fits.

        `tries` counts the runs that were looked at.
        """
        found: dict[str, Any] = {}
        if self.check is not None:
            found["check"] = self.check.document(tries)
        if self.answer is not None and not self.answer.problems:
            found["output"] = self.answer.output
        return found

    def of_task(self, task: Mapping[str, Any], tries: int) -> Mapping[str, Any] | TaskEnded:
        """The document of a task with its `fields`: itself, or as the error that it stands for."""
        document = {**task, **self.fields(tries)}
        return document if self.failure is None else self.failure.of_task(document)

    def prompt(self, number: int, most: int) -> str:
        """What to tell the task, for try `number` of `most`."""
        wrong = (each for each in self._outcomes if each.status == FAILED)
        return "\n\n".join(each.prompt(number, most) for each in wrong)
