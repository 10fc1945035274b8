"""A run as text for people: who said what, each tool call folded to one line.

A line that starts with `>` is the user's, `*` is a tool, `?` a question; the rest is the
agent's answer as it was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..api.models import is_terminal, same_word
from . import questions

SPEECH = ("text", "assistant", "message", "response")
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


def first(payload: Mapping[str, Any], *names: str) -> Any:
    """The first of these fields that holds something; names vary by executor (seen in clients)."""
    return next((payload[name] for name in names if payload.get(name) not in (None, "")), None)


class Transcript:
    """Turns the events of one prompt, in order, into text.

    `full` unfolds: thoughts, the whole input and output of tools, and what delegated runs did,
    which `delegated` reads (a sub-prompt's id to its events).
    """

    def __init__(
        self,
        *,
        full: bool = False,
        delegated: Callable[[str], Iterable[Mapping[str, Any]]] | None = None,
    ) -> None:
        self._full = full
        self._delegated = delegated
        self._told = ""  # everything the agent said, without white space
        self._tools: dict[str, str] = {}
        self._unfolded: set[str] = set()

    def event(self, event: Mapping[str, Any], *, told: bool = False) -> Iterator[str]:
        """The text of one event; nothing for what is folded away or unknown.

        `told` says that its text was in an earlier event.
        """
        kind = event.get("eventType")
        payload = event.get("payload")
        if not isinstance(payload, Mapping):
            payload = {"content": payload} if isinstance(payload, str) else {}
        if kind in SPEECH:
            if not told:
                yield from self._say(first(payload, "content", "text"))
        elif kind == "result":
            if not told:
                yield from self.answer(first(payload, "result", "content", "text"))
        elif kind == "tool_use":
            yield from self._use(payload)
        elif kind == "tool_result":
            yield from self._outcome(payload)
        elif kind == questions.ASKS:
            yield from _question(payload)
        elif self._full:
            yield from self._rest(_word(kind), payload)

    def answer(self, text: Any) -> Iterator[str]:
        """The final text, unless all of it was told; clients saw it come up to three times."""
        if not isinstance(text, str):
            text = "" if text is None else _json(text)
        bare = "".join(text.split())
        if bare and not self._told.endswith(bare):
            yield from self._say(text)

    def _say(self, text: Any) -> Iterator[str]:
        if not isinstance(text, str):
            text = "" if text is None else _json(text)
        if text.strip():
            self._told += "".join(text.split())
            yield text.rstrip() + "\n"

    def _use(self, payload: Mapping[str, Any]) -> Iterator[str]:
        name = _word(first(payload, "name", "tool_name") or "tool")
        given = first(payload, "input", "params")
        self._tools[str(first(payload, "id", "tool_id"))] = name
        self._told += "\x00"  # what is said after a tool is a new text, even when it is the same
        if not self._full:
            yield _folded(f"* {name}: {summary(given)}" if given else f"* {name}")
            return
        yield f"* {name}\n"
        if given:
            yield _indented(_shown(given))

    def _outcome(self, payload: Mapping[str, Any]) -> Iterator[str]:
        output = first(payload, "output", "content")
        failed = payload.get("is_error") is True or payload.get("isError") is True
        sub = payload.get("subPromptId")
        if self._full and isinstance(sub, str) and self._delegated and sub not in self._unfolded:
            self._unfolded.add(sub)
            inner = Transcript(full=True)
            for event in self._delegated(sub):
                for text in inner.event(event):
                    yield _indented(text)
        if self._full:
            name = self._tools.get(str(first(payload, "id", "tool_id")), "tool")
            yield f"* {name} {'failed' if failed else 'gave'}\n"
            if output:
                yield _indented(_shown(output))
        elif failed:
            yield _folded(f"* failed: {summary(output)}")

    def _rest(self, kind: str, payload: Mapping[str, Any]) -> Iterator[str]:
        if kind == "thinking":
            text = first(payload, "content", "thinking", "text")
            yield "* thinking\n" + _indented(str(text or ""))
        elif payload:
            yield _folded(f"* {kind}: {_json(payload)}")
        else:
            yield f"* {kind}\n"


def prompt(text: Any) -> str:
    """What the user said, each line marked."""
    lines = (text if isinstance(text, str) else "").rstrip().split("\n")
    return "".join(f"> {line}".rstrip() + "\n" for line in lines)


def ending(status: Any) -> str:
    """A line for a prompt that did not simply succeed, otherwise nothing."""
    word = _word(same_word(status))
    if word == "completed" or not word:
        return ""
    return f"({word})\n" if is_terminal(word) else f"({word}…)\n"


def whole(content: Mapping[str, Any], transcript: Callable[[], Transcript]) -> Iterator[str]:
    """The text of a content document (seen in clients): every prompt with its answer."""
    found = content.get("prompts")
    between = ""
    for one in found if isinstance(found, list) else []:
        if isinstance(one, Mapping):
            yield between + prompt(one.get("userPrompt")) + "\n"
            yield from part(one, transcript())
            between = "\n"


def part(one: Mapping[str, Any], transcript: Transcript) -> Iterator[str]:
    """The agent's part of one prompt of a content document."""
    events = one.get("events")
    for event in events if isinstance(events, list) else []:
        if isinstance(event, Mapping):
            yield from transcript.event(event)
    yield from transcript.answer(one.get("response"))
    yield ending(one.get("status"))


def summary(given: Any) -> str:
    """What a tool was given, in a few words on one line."""
    if isinstance(given, Mapping):
        telling = first(given, *_TELLING)
        given = telling if isinstance(telling, str) else given
    text = given if isinstance(given, str) else _json(given)
    return " ".join(text[: WIDTH * 4].split())


def _word(name: Any) -> str:
    """A name on one line: with a line break in it, it could put words in the user's mouth."""
    return " ".join(str(name)[: WIDTH * 4].split())[:WIDTH]


def _folded(line: str) -> str:
    return (line if len(line) <= WIDTH else line[: WIDTH - 1] + "…") + "\n"


def _indented(text: str) -> str:
    return "".join(f"{_INDENT}{line}".rstrip() + "\n" for line in text.rstrip().split("\n"))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _shown(value: Any) -> str:
    """A tool's input or output in full; output is often JSON inside a string (seen in clients)."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        only = next(iter(value.values()))
        if isinstance(only, str):
            return only
    return json.dumps(value, ensure_ascii=False, indent=2)


def _question(payload: Mapping[str, Any]) -> Iterator[str]:
    asked = questions.read(payload)
    if asked is None:
        yield _folded(f"? {summary(first(payload, 'question') or payload)}")
        return
    for item in asked.items:
        yield from item_lines(item)


def item_lines(item: questions.Item) -> Iterator[str]:
    """A question and its options, numbered from 1 as `rebyte answer --option` takes them."""
    yield f"? {' '.join(item.text.split())}\n"
    for number, (label, description) in enumerate(item.options, 1):
        more = f": {description}" if description else ""
        yield f"  {number}. {' '.join(f'{label}{more}'.split())}\n"
