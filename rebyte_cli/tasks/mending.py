"""Run after run until a task is done: each that completes is examined, and told what is wrong.

What is sent is one follow-up for each try, by the same path as any other, so at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Interrupted, Next, RebyteError, RowOrError, TaskEnded
from ..system.deadline import Deadline
from .answer_schema import Misfit
from .create import follow_up
from .result import answer
from .verdict import AnswerOutcome, RunVerdict
from .wait import LateTargets, WaitTarget

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History
    from .answer_schema import AnswerSchema

TRIES = 3


# The verdict about a completed run of a task; raises RebyteError if there can be none.
Examine = Callable[[Mapping[str, Any], Deadline], RunVerdict]


def answer_outcome(
    client: RebyteClient, task_id: str, schema: AnswerSchema, deadline: Deadline
) -> AnswerOutcome:
    """Whether the answer of a completed task fits; one without any text does not.

    Raises what `result.answer` and `AnswerSchema.value` raise otherwise.
    """
    try:
        text = answer(client, task_id, deadline=deadline)
        value = schema.value(text, task_id=task_id, deadline=deadline)
        return AnswerOutcome(schema.text, value)
    except Misfit as misfit:
        return AnswerOutcome(schema.text, problems=misfit.problems)
    except RebyteError as error:
        if error.code != "no_answer":
            raise
        return AnswerOutcome(schema.text, problems=(error.message,))


class Mending:
    """The runs of tasks that are waited for: a task is done when one passes, or no try is left.

    `examine` is called once for each run, in the thread of the caller. `fields` go with the prompt
    that is sent. It is a `wait.LateTargets` of the wait that `ends` is called with.
    """

    def __init__(
        self,
        client: RebyteClient,
        history: History,
        examine: Examine,
        *,
        tries: int | None = None,
        deadline: Deadline,
        note: Callable[[str], None],
        fields: Mapping[str, Any] | None = None,
        is_wanted: Callable[[Mapping[str, Any]], bool] = lambda task: True,
    ) -> None:
        """`tries` is how many runs are examined at most (None: `TRIES`); `is_wanted` says whether
        there is anything to examine a task with, and may raise RebyteError.
        """
        self._client = client
        self._history = history
        self._examine = examine
        self._most = tries or TRIES
        self._deadline = deadline
        self._note = note
        self._fields = dict(fields or {})
        self._is_wanted = is_wanted
        self._tries: dict[str, int] = {}
        self._ids: list[str] = []  # of the tasks that `ends` was called with
        self._late: LateTargets | None = None  # those that join the wait besides
        self._sent: list[WaitTarget] = []  # prompts that have not joined it yet

    def step(self, outcome: RowOrError) -> RowOrError | WaitTarget:
        """What comes after the end of a run: how the task ended, or the next prompt to wait for.

        A task that completed is examined; what is wrong with it is sent to it.
        """
        if isinstance(outcome, RebyteError):
            return outcome
        task_id = str(outcome["id"])
        try:
            if not self._is_wanted(outcome):
                return outcome
        except RebyteError as error:
            return error.about(task_id)
        number = self._tries[task_id] = self._tries.get(task_id, 0) + 1
        self._note(f"Checking task {task_id} (try {number} of {self._most})")
        try:
            verdict = self._examine(outcome, self._deadline)
        except (KeyboardInterrupt, Interrupted) as stop:
            hint = "The task has completed. Check it with " + Next("check", task_id, "…")
            raise Interrupted.of(stop, hint) from None
        except RebyteError as error:
            return error.about(task_id)
        ended = verdict.of_task(outcome, number)
        if verdict.status != "failed" or number >= self._most or self._deadline.has_passed:
            return ended
        return self._mend(task_id, verdict, number, ended)

    def _mend(
        self, task_id: str, verdict: RunVerdict, number: int, ended: RowOrError
    ) -> RowOrError | WaitTarget:
        """Tell the task what is wrong."""
        body = {"prompt": verdict.prompt(number + 1, self._most), **self._fields}
        assert isinstance(ended, TaskEnded)
        self._note(f"It {ended.verb}: {ended.summary}; the task is told so")
        try:
            sent = follow_up(
                self._client,
                self._history,
                task_id,
                body,
                note=self._note,
                deadline=self._deadline,
            )
        except RebyteError as error:  # what was found out is not lost with it
            self._note(ended.message)
            return error.about(task_id)
        return WaitTarget(task_id, str(sent["promptId"]))

    def ends(
        self,
        wait: Callable[..., Iterator[RowOrError]],
        targets: Sequence[WaitTarget],
        late: LateTargets | None = None,
    ) -> Iterator[RowOrError]:
        """How each of the tasks ended that `wait` (with `late` as argument) waits for.

        Those whose prompts are sent meanwhile join that wait.
        """
        self._ids, self._late = [target.task_id for target in targets], late
        for outcome in wait(late=self):
            step = self.step(outcome)
            if isinstance(step, WaitTarget):
                self._sent.append(step)
            else:
                yield step

    @property
    def ids(self) -> Sequence[str]:
        """The ids of all tasks that are waited for."""
        return self._ids if self._late is None else self._late.ids

    @property
    def under_way(self) -> int:
        """How many prompts and tasks may still join the wait, as far as that is known."""
        return len(self._sent) + (self._late.under_way if self._late is not None else 0)

    def join(self, *, block: bool) -> Sequence[WaitTarget]:
        """The prompts that were sent since the last call, and the targets that join anyway."""
        sent, self._sent = self._sent, []
        if self._late is None:
            return sent
        return [*sent, *self._late.join(block=block and not sent)]
