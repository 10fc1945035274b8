"""What the report of a batch says of each line beside its result: its prompt and the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ..deadline import Deadline
from ..errors import KeyProblem, KeyRejected, NetworkError, RebyteError, WaitTimeout
from ..tasks import result
from ..tasks.parallel import in_parallel

if TYPE_CHECKING:
    from ..api.client import RebyteClient

LONGEST_TEXT = 10_000  # characters of one prompt or answer
MOST_TEXT = 40_000_000  # ... and of all of them
SECONDS = 20.0  # for one answer


class LineTexts(NamedTuple):
    """The prompt of a line and the answer of its task; None for an answer that was not read."""

    prompt: str
    answer: str | None


def read_answers(
    client: RebyteClient, ids: Iterable[str | None], note: Callable[[str], None]
) -> Iterator[str | None]:
    """The answer of each task, in order, several read at a time; None for one that has none.

    None in `ids` stands for a line without a finished task. The first fault of the network or the
    key ends the reading, with a note: the report is worth more than a long wait for its answers.
    """
    wanted = list(ids)
    found = in_parallel(
        lambda task_id: result.answer(client, task_id, deadline=Deadline(SECONDS)),
        [task_id for task_id in wanted if task_id is not None],
    )
    left = iter(wanted)
    try:
        for task_id in left:
            answer = None if task_id is None else next(found)
            if isinstance(answer, NetworkError | WaitTimeout):
                raise answer
            yield None if isinstance(answer, RebyteError) else answer
    except (NetworkError, WaitTimeout, KeyProblem, KeyRejected) as error:
        note(f"The report lacks answers: {error.message}")
        yield None
        yield from (None for _ in left)


def excerpt(text: str, lines: int) -> str:
    """A text as a report on so many lines shows it, without the end of a very long one."""
    most = min(LONGEST_TEXT, MOST_TEXT // (2 * lines))
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"
