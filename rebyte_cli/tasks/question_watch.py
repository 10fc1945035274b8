"""Questions during a wait: notice that a task asks its user, and ask them, stop, or go on waiting.

Only the events of its run say what a task waits for, so each check costs a separate call.
It happens in the pauses between two rounds of polling: see `Pause` in wait.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from ..api.views import ContentView, Question
from ..errors import KeyRejected, NetworkError, Next, RebyteError
from ..system.deadline import GRACE, Deadline, Patience
from . import questions
from .transcript import last_step

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History

    Policy = Literal["ask", "stop", "wait"]

FIRST_PAUSE = 2.0  # seconds of waiting before the first look at a task
LONGEST_PAUSE = 10.0  # ... and between two later ones
COST = 20  # a task is left alone for so many times as long as looking at it took
BURST = 3  # looks in one pause, while few tasks are waited for
RATE = 1.0  # looks per second that many tasks share
FRESH = 1.0  # seconds after which a look proves nothing about an end
SLICE = 1.0  # seconds between two looks at the clock while a stream stands still


class Dialog(Protocol):
    """Who answers: the user at the terminal."""

    def begin(self, task_id: str, question: Question) -> bool:
        """Ask the question. False if that is not possible at the moment."""

    def listen(self, seconds: float) -> Sequence[questions.ItemAnswer] | None:
        """The answer, or None if none came within so many seconds; the question stays.

        Raises EOFError when the user declines to answer.
        """

    def withdraw(self, why: str) -> None:
        """Take the question back, and say why."""


class QuestionWatcher:
    """Looks for questions during a wait, and reacts to them as the policy says.

    `ask` asks the user through `dialog`, one question after another, and sends the answers; what
    the user declines is left open. `stop` gives up a wait once every task that has not ended waits
    for an answer, `ask` once the user has declined them all; at the time limit, both give up each
    task that asks. `wait` only notes each question.

    No call goes beyond the `deadline` of the wait, but for the two seconds that an answer and the
    last look have at least. A look that fails is tried again later; while a stream stands still, no
    other call tells of an outage, so there it ends with the error.
    """

    def __init__(
        self,
        client: RebyteClient,
        history: History,
        policy: Policy,
        *,
        note: Callable[[str], None],
        dialog: Dialog | None = None,
        deadline: Deadline,
        sleep: Callable[[float], None] = time.sleep,
        doing: Callable[[str, str], None] = lambda _task_id, _step: None,
    ) -> None:
        """`doing` is told the last step of each task that is looked at."""
        self._client = client
        self._history = history
        self._policy = policy
        self._note = note
        self._dialog = dialog
        self._deadline = deadline
        self._clock = deadline.clock
        self._sleep = sleep
        self._doing = doing
        self._open: dict[str, Question] = {}  # by task, in the order in which they were found
        self._answered: set[str] = set()  # message ids: answered here, so no longer open
        self._declined: set[str] = set()  # ... that the user does not want to answer
        self._noted: set[str] = set()
        self._asking: str | None = None  # the task whose question is on the terminal
        self._is_alone = False  # whether no other call tells of an outage
        self._next: dict[str, float] = {}  # when to look at a task
        self._patience: dict[str, Patience] = {}
        self._looked: dict[str, float] = {}
        self._looks = float(BURST)  # that may be spent
        self._earned = self._clock()

    def pause(
        self, seconds: float, pending: Collection[str], *, more_to_come: bool = False
    ) -> Mapping[str, RebyteError]:
        """Spend the time between two rounds; returns the tasks to give up on (a `wait.Pause`).

        Nothing is given up while more tasks are to come than those that are pending now.
        """
        end = self._clock() + seconds
        for task_id in [task_id for task_id in self._open if task_id not in pending]:
            self._close(task_id)
        self._look(pending, end)
        given_up = {} if more_to_come else self._given_up(pending)
        if given_up:
            return given_up
        for task_id, question in self._open.items():
            if self._dialog is None or question.message_id in self._declined:
                self._note_once(task_id, question)
        self._attend(end)
        return self._last_look(pending) if self._deadline.has_passed else {}

    def react(self, task_id: str, question: Question) -> None:
        """React to a question that a stream showed; returns once the run may continue.

        Raises NeedsAnswer when the stream is not worth following until there is an answer.
        """
        if self._is_answered(question):
            return
        self._is_alone = True
        self._open[task_id] = question
        while task_id in self._open and not self._deadline.has_passed:
            if self._policy == "wait":
                self._note_once(task_id, question)
                return
            for error in self.pause(self._deadline.cap(SLICE), [task_id]).values():
                raise error

    # Detecting questions

    def _look(self, pending: Collection[str], end: float) -> None:
        """Look at the tasks whose time has come, as far as the rate and the pause allow."""
        now = self._clock()
        self._looks = min(BURST, self._looks + (now - self._earned) * RATE)
        self._earned = now
        for task_id in pending:
            if task_id not in self._next:
                self._begin_to_look(task_id)
        due = sorted((at, task_id) for task_id, at in self._next.items() if at <= now)
        for _, task_id in due:
            if task_id not in pending:
                del self._next[task_id]
            elif self._looks >= 1 and self._clock() <= end and not self._deadline.has_passed:
                self._looks -= 1
                self._look_at(task_id)

    def _begin_to_look(self, task_id: str) -> None:
        """Look at a task soon, and then ever less often."""
        resume = "See the rest with " + Next("logs", task_id, "-f")
        patience = Patience(
            self._deadline, first=FIRST_PAUSE, longest=LONGEST_PAUSE, steady=0.0, resume=resume
        )
        self._patience[task_id] = patience
        self._next[task_id] = self._clock() + patience.pause()

    def _look_at(self, task_id: str) -> None:
        if task_id not in self._patience:
            self._begin_to_look(task_id)
        began, patience = self._clock(), self._patience[task_id]
        try:
            limit = self._deadline.cap(questions.READ_TIMEOUT)
            content = questions.read(self._client, task_id, timeout=limit)
        except KeyRejected:
            raise
        except RebyteError as error:  # a wait's own calls tell what is wrong
            if self._is_alone and isinstance(error, NetworkError):
                patience.failed(error)
        else:
            patience.answered()
            self._update(task_id, content)
            if started := [prompt for prompt in content.prompts if prompt.has_started]:
                self._doing(task_id, last_step(started[-1].events))
        now = self._clock()
        self._looked[task_id] = now
        self._next[task_id] = now + max(patience.pause(), COST * (now - began))

    def _update(self, task_id: str, content: ContentView) -> None:
        found, known = questions.open_question(content), self._open.get(task_id)
        if found is not None:
            if self._is_answered(found):
                return
            if known is not None and known.message_id != found.message_id:
                self._close(task_id)
            self._open.setdefault(task_id, found)
        elif known is not None and questions.is_over(content, known):
            self._close(task_id)

    def _is_answered(self, question: Question) -> bool:
        """Whether a question was answered from here. What follows it may become readable late."""
        if question.message_id not in self._answered:
            if not self._history.was_answered(question.message_id):
                return False
            self._answered.add(question.message_id)
        return True

    def _close(self, task_id: str) -> None:
        self._open.pop(task_id, None)
        if self._asking == task_id and self._dialog is not None:
            self._asking = None
            self._dialog.withdraw(f"Task {task_id} no longer waits for an answer")

    def _note_once(self, task_id: str, question: Question) -> None:
        if question.message_id not in self._noted:
            self._noted.add(question.message_id)
            self._note(questions.hint(task_id, question))

    # Giving up on a run

    def _given_up(self, pending: Collection[str]) -> dict[str, RebyteError]:
        """The error for each pending task, once all of them wait for answers in vain."""
        if self._policy == "wait" or not all(map(self._is_unattended, pending)):
            return {}
        for task_id in pending:  # others may have ended long after it asked
            if self._clock() - self._looked.get(task_id, 0.0) > FRESH:
                self._look_at(task_id)
        if not all(map(self._is_unattended, pending)):
            return {}
        return {task_id: self._error(task_id, self._open[task_id]) for task_id in pending}

    def _last_look(self, pending: Collection[str]) -> dict[str, RebyteError]:
        """The error of each task that asks at the end of the time limit; `wait` notes it instead.

        A question says more than that its task still runs, and may be younger than the last look.
        There is no time left to ask it.
        """
        self._deadline = self._deadline.with_grace()
        for task_id in sorted(pending, key=lambda task_id: task_id not in self._open):
            if not self._deadline.has_passed:
                self._look_at(task_id)
        asking = {task_id: self._open[task_id] for task_id in pending if task_id in self._open}
        if self._policy == "wait":
            for task_id, question in asking.items():
                self._note_once(task_id, question)
            return {}
        return {task_id: self._error(task_id, question) for task_id, question in asking.items()}

    def _is_unattended(self, task_id: str) -> bool:
        question = self._open.get(task_id)
        if question is None:
            return False
        return self._policy == "stop" or question.message_id in self._declined

    def _error(self, task_id: str, question: Question) -> RebyteError:
        try:
            limit = self._deadline.cap(questions.READ_TIMEOUT)
            task = self._client.get_task(task_id, timeout=limit)
        except RebyteError:
            task = {"id": task_id, "status": "running"}
        return questions.needs_answer(task_id, question, task)

    # Asking

    def _attend(self, end: float) -> None:
        """Until `end`, ask one question after another; without one, sleep."""
        dialog = self._dialog
        while (left := end - self._clock()) > 0:
            if dialog is None or not self._begin(dialog):
                self._sleep(left)
                return
            try:
                choices = dialog.listen(left)
            except EOFError:
                assert self._asking is not None
                self._declined.add(self._open[self._asking].message_id)
                self._asking = None
                return
            if choices is not None:
                self._answer(choices)

    def _begin(self, dialog: Dialog) -> bool:
        """Make sure that a question is on the terminal; False if there is none to ask."""
        if self._asking is not None:
            return True
        for task_id, question in self._open.items():
            if question.message_id in self._declined:
                continue
            if dialog.begin(task_id, question):
                self._asking = task_id
                return True
            self._note_once(task_id, question)
        return False

    def _answer(self, choices: Sequence[questions.ItemAnswer]) -> None:
        """Send an answer. If that fails, the question is asked again."""
        task_id, self._asking = self._asking, None
        assert task_id is not None
        question, limit = self._open[task_id], self._deadline.for_call(GRACE)
        try:
            questions.answer(self._client, self._history, task_id, question, choices, timeout=limit)
        except KeyRejected:
            raise
        except RebyteError as error:
            self._note(f"Could not send the answer: {error.message}")
            if error.code != "not_waiting":
                return
        del self._open[task_id]
        self._answered.add(question.message_id)
        self._begin_to_look(task_id)
