"""What a batch needs from the command around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from .history_writer import TasksCreated, TasksEnded
from .workers import Upload

if TYPE_CHECKING:
    from ..tasks.question_watch import QuestionWatcher
    from .reservations import Reservations


class Callbacks(NamedTuple):
    """What a batch tells the rest of the command, and asks it.

    `note`: a line for the user. `tasks_created`: new tasks, each with its prompt and body.
    `tasks_ended`: tasks that ended. `known_ids`: which of the ids are tasks created on this
    machine. `tasks_with_prompt`: the ids of those with a prompt, by its digest. `upload`: a path to
    `{"id", "filename"}`. `reservations`: what other commands must know of creates under way.
    `questions`: what notices tasks that wait for an answer.
    """

    note: Callable[[str], None]
    tasks_created: TasksCreated
    tasks_ended: TasksEnded
    known_ids: Callable[[Iterable[str]], set[str]]
    tasks_with_prompt: Callable[[str], list[str]]
    upload: Upload
    reservations: Reservations
    questions: QuestionWatcher | None
