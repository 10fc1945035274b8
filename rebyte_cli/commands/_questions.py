"""Ask the questions of a run on the terminal: `answer`, and every command that waits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..app import App
from ..errors import BadUsage
from ..output.console import clean
from ..output.progress import erase_on_suspend
from ..output.prompt_line import PromptLine, in_foreground
from ..output.table import wrap_lines
from ..tasks import questions, transcript

if TYPE_CHECKING:
    from ..api.views import Question, QuestionItem


class TerminalDialog:
    """Shows a question on stderr and reads its answer, item by item, until each fits.

    Whatever else is printed meanwhile appears above the question. A context manager: at its end, an
    open prompt is closed. Until then, Ctrl-Z takes the question away and `fg` brings it back.
    """

    def __init__(self, app: App, *, named: bool = True, shown: bool = False) -> None:
        """`named`: say which task asks. `shown`: the terminal shows each question already."""
        self._console = app.console
        self._note = app.note
        self._named = named
        self._shown = shown
        self._items: list[QuestionItem] = []  # still to answer; the first one is on the terminal
        self._choices: list[questions.ItemAnswer] = []
        self._line: PromptLine | None = None

    def __enter__(self) -> TerminalDialog:
        # Here, and not with each prompt: a batch asks in a thread, and only the main thread can.
        self._restore = erase_on_suspend(self._console)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._restore()

    def begin(self, task_id: str, question: Question) -> bool:
        """Ask the question. False while this process is in the background of its terminal."""
        if not in_foreground(sys.stdin):
            return False
        self._start(task_id, question)
        return True

    def _start(self, task_id: str, question: Question) -> None:
        self._items, self._choices = list(question.items), []
        if self._shown and len(self._items) == 1:
            self._show(again=True)
        else:
            self._show(f"Task {task_id} asks:\n" if self._named else "")

    def listen(self, seconds: float) -> Sequence[questions.ItemAnswer] | None:
        """The answers to all items, or None if they did not come within so many seconds.

        Raises EOFError at Ctrl-D.
        """
        assert self._line is not None
        try:
            said = self._line.read(seconds)
        except UnicodeDecodeError:
            said = ""
        except BaseException:
            self._close()
            raise
        if said is None:
            return None
        self._close()
        try:
            choice = _choice(self._items[0], said.strip())
        except BadUsage as error:
            self._show(f"{error.message}\n", again=True)
            return None
        self._choices.append(choice)
        del self._items[0]
        if self._items:
            self._show()
            return None
        return self._choices

    def withdraw(self, why: str) -> None:
        """Take the question back, and say why."""
        self._close()
        self._note(why)

    def answer(self, task_id: str, question: Question) -> Sequence[questions.ItemAnswer]:
        """Ask one question, however long it takes. Raises EOFError at Ctrl-D."""
        with self:
            self._start(task_id, question)
            while (choices := self.listen(60.0)) is None:
                pass
        return choices

    def _show(self, heading: str = "", *, again: bool = False) -> None:
        """Ask the next item, or only prompt for its answer once more (`again`)."""
        item = self._items[0]
        several = " (or several, separated by commas)" if item.multiple else ""
        wanted = f"Number{several}, or your own words" if item.options else "Answer"
        asked = "" if again else "".join(transcript.item_lines(item))
        columns, _ = self._console.size()
        text = wrap_lines(clean(f"{heading}{asked}{wanted}:"), columns - 1)
        self._line = PromptLine(self._console, f"{text} ")
        self._line.open()

    def _close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


def _choice(item: QuestionItem, said: str) -> questions.ItemAnswer:
    """An answer from what was typed. Raises BadUsage if it does not fit the question."""
    if not said:
        raise BadUsage("the answer is empty; Ctrl-D answers later")
    words = said.replace(",", " ").split()
    if not item.options or not all(word.isascii() and word.isdigit() for word in words):
        return questions.ItemAnswer(text=said)
    numbers = tuple(int(word[:9]) - 1 for word in words)
    questions.check(item, numbers)
    return questions.ItemAnswer(numbers)
