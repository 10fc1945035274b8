"""A run as text for people: who said what, each tool call folded to one line.

A line that starts with `>` is the user's, `*` is a tool, `?` a question; the rest is the
agent's answer as it was written.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..api.sse import LARGEST
from ..api.status import canonical_status, is_terminal
from ..api.views import ASKS, SPEECH, EventView, QuestionItem, RawDocument, as_text, first

WIDTH = 100  # characters of a folded line
# What says most about a tool call, in this order (seen in clients).
_TELLING = (
    "command",
    "file_path",
    "path",
    "url",
    "query",
    "pattern",
    "description",
    "prompt",
    "text",
)
_INDENT = "    "
_HELD_UP = ("retry", "limited")


# Characters of speech that an answer is compared with. A longer answer cannot arrive.
LONGEST_SPEECH = LARGEST


class SpokenText:
    """What the agent has said since its last tool call, so that an answer is printed only once.

    Texts are compared without white space: a stream cuts and joins them differently each time.
    Pieces are dropped, the oldest first, beyond `longest` characters.
    """

    def __init__(self, longest: int = LONGEST_SPEECH) -> None:
        self._longest = longest
        self._pieces: deque[str] = deque()
        self._length = 0

    def add(self, words: str) -> None:
        """Remember a piece of speech."""
        piece = _bare(words)
        if not piece:
            return
        self._pieces.append(piece)
        self._length += len(piece)
        while self._length > self._longest:
            self._length -= len(self._pieces.popleft())

    def clear(self) -> None:
        """Forget everything: the agent called a tool, so what follows is a new text."""
        self._pieces.clear()
        self._length = 0

    def ends_with(self, words: str) -> bool:
        """Whether what was said ends with this text, wherever its pieces begin."""
        wanted = _bare(words)
        end = len(wanted)
        for piece in reversed(self._pieces):
            start = end - len(piece)
            if start <= 0:
                return bool(wanted) and piece.endswith(wanted[:end])
            if wanted[start:end] != piece:
                return False
            end = start
        return False


def _bare(words: str) -> str:
    return "".join(words.split())


class Transcript:
    """Turns the events of one prompt, in order, into text.

    `full` unfolds: thoughts, the whole input and output of tools, and what delegated runs did,
    which `delegated` reads (a sub-prompt's id to its events). `speech` prepares what the agent says
    for the terminal.
    """

    def __init__(
        self,
        *,
        full: bool = False,
        delegated: Callable[[str], Iterable[EventView]] | None = None,
        speech: Callable[[str], str] = str,
    ) -> None:
        self._full = full
        self._speech = speech
        self._delegated = delegated
        self._spoken = SpokenText()
        self.has_spoken = False  # whether the agent has said anything
        self._tools: dict[str, str] = {}
        self._unfolded: set[str] = set()

    def event(self, event: EventView) -> Iterator[str]:
        """The text of one event; nothing for what is folded away, said already, or unknown."""
        kind = event.kind
        if kind in SPEECH:
            say = self.answer if kind == "result" else self._say
            yield from say(event.speech)
        elif kind == "tool_use":
            yield from self._use(event)
        elif kind == "tool_result":
            yield from self._outcome(event)
        elif kind == ASKS:
            yield from _question(event)
        elif kind in _HELD_UP:
            yield _folded(_held_up(event))
        elif self._full:
            yield from self._rest(_word(event.raw.get("eventType")), event.payload)

    def answer(self, text: Any) -> Iterator[str]:
        """The final text, unless all of it was said; clients saw it come up to three times."""
        words = as_text(text)
        if not self._spoken.ends_with(words):
            yield from self._say(words)

    def _say(self, words: str) -> Iterator[str]:
        if words.strip():
            self._spoken.add(words)
            self.has_spoken = True
            yield self._speech(words.rstrip() + "\n")

    def _use(self, event: EventView) -> Iterator[str]:
        name = _word(event.tool or "tool")
        if self._full:
            self._tools[event.tool_id] = name
        self._spoken.clear()  # what is said after a tool is a new text, even when it is the same
        given = event.input
        if not self._full:
            yield _folded(f"* {name}: {summary(given)}" if given else f"* {name}")
            return
        yield f"* {name}\n"
        if given:
            yield _indented(_shown(given))

    def _outcome(self, event: EventView) -> Iterator[str]:
        output, sub = event.output, event.sub_prompt_id
        if self._full and sub and self._delegated and sub not in self._unfolded:
            self._unfolded.add(sub)
            inner = Transcript(full=True)
            for each in self._delegated(sub):
                for text in inner.event(each):
                    yield _indented(text)
        if self._full:
            name = self._tools.pop(event.tool_id, "tool")
            yield f"* {name} {'failed' if event.is_error else 'gave'}\n"
            if output:
                yield _indented(_shown(output))
        elif event.is_error:
            yield _folded(f"* failed: {summary(output)}")

    def _rest(self, kind: str, payload: RawDocument) -> Iterator[str]:
        if kind == "thinking":
            thought = first(payload, "content", "thinking", "text")
            yield "* thinking\n" + _indented(str(thought or ""))
        elif payload:
            yield _folded(f"* {kind}: {json.dumps(payload, ensure_ascii=False)}")
        else:
            yield f"* {kind}\n"


def prompt(text: str) -> str:
    """What the user said, each line marked."""
    return "".join(f"> {line}".rstrip() + "\n" for line in text.rstrip().split("\n"))


def ending(status: Any, *, has_spoken: bool = True) -> str:
    """A line for a prompt that did not simply succeed, otherwise nothing.

    A task that the vendor's manager agent answers itself was seen to complete with neither events
    nor a response.
    """
    word = _word(canonical_status(status))
    if word == "completed" and not has_spoken:
        return "(completed without an answer)\n"
    if word == "completed" or not word:
        return ""
    return f"({word})\n" if is_terminal(word) else f"({word}…)\n"


def last_step(events: Sequence[EventView]) -> str:
    """The last thing that a run did, on one line, marked as in a transcript; "" before the first.

    What was said counts with its last line, since text comes in pieces that continue each other.
    """
    for event in reversed(events):
        if event.kind == "tool_use":
            given = summary(event.input) if event.input else ""
            return f"* {_word(event.tool or 'tool')}{f': {given}' if given else ''}"
        if event.kind in _HELD_UP:
            return _held_up(event)
        if event.kind == ASKS:
            asked = event.question
            words = asked.items[0].text if asked else first(event.payload, "question")
            return f"? {summary(words or event.payload)}"
        if event.kind in SPEECH and event.speech:
            return summary(event.speech.strip().rpartition("\n")[2])
    return ""


def _held_up(event: EventView) -> str:
    """Why a run makes no progress, as the service on this machine tells of it."""
    said = {name: summary(value or "") for name, value in event.payload.items()}
    if event.kind == "limited":
        return f"* limited: {said.get('message', '')}; resumes at {said.get('resumesAt', '')}"
    return f"* retry {_word(event.payload.get('attempt') or '')}: {said.get('error', '')}"


def summary(given: Any) -> str:
    """What a tool was given, in a few words on one line."""
    if isinstance(given, Mapping):  # a value of any shape: it is shown, not understood
        telling = first(given, *_TELLING)
        given = telling if isinstance(telling, str) else given
    return " ".join(as_text(given)[: WIDTH * 4].split())


def _word(name: Any) -> str:
    """A name on one line: with a line break in it, it could put words in the user's mouth."""
    return " ".join(str(name)[: WIDTH * 4].split())[:WIDTH]


def _folded(line: str) -> str:
    return (line if len(line) <= WIDTH else line[: WIDTH - 1] + "…") + "\n"


def _indented(text: str) -> str:
    return "".join(f"{_INDENT}{line}".rstrip() + "\n" for line in text.rstrip().split("\n"))


def _shown(value: Any) -> str:
    """A tool's input or output in full; output is often JSON inside a string (seen in clients)."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        only = next(iter(value.values()))
        if isinstance(only, str):
            return only
    return json.dumps(value, ensure_ascii=False, indent=2)


def _question(event: EventView) -> Iterator[str]:
    asked = event.question
    if asked is None:
        yield _folded(f"? {summary(first(event.payload, 'question') or event.payload)}")
        return
    for item in asked.items:
        yield from item_lines(item)


def item_lines(item: QuestionItem) -> Iterator[str]:
    """A question and its options, numbered from 1 as `rebyte answer --option` takes them."""
    yield f"? {' '.join(item.text.split())}\n"
    for number, (label, description) in enumerate(item.options, 1):
        more = f": {description}" if description else ""
        yield f"  {number}. {' '.join(f'{label}{more}'.split())}\n"
