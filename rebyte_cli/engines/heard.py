"""What a run's stream has told so far: which events are new, and which words were said already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import APIError

# A tuple: what an event says its kind is may be a list, which no set can be asked for.
SPEECH = ("text", "assistant", "message", "response", "result")


class Look:
    """One connection: how many events it showed, whether the agent spoke after its last tool."""

    def __init__(self, prompt_id: str | None, nameless: bool | None = True) -> None:
        """`nameless` says whether events without `promptId` are of that prompt; None: not known."""
        self._prompt_id = prompt_id
        self._nameless = nameless
        self.doubtful = False
        self.count = 0
        self.fresh = False
        self.spoke = False
        self.named = False
        self.done: dict[str, Any] | None = None
        self.error: APIError | None = None
        self.copies: dict[int, int] = {}

    def takes(self, data: Mapping[str, Any]) -> bool:
        """Count an event; False for one of another prompt, and for one that may be (`doubtful`)."""
        owner = data.get("promptId")
        if self._prompt_id is not None:
            if isinstance(owner, str) and owner:
                if owner != self._prompt_id:
                    return False
                self.named = True
            elif not self._nameless:
                self.doubtful = self._nameless is None
                return False
        self.count += 1
        kind = data.get("eventType")
        if kind == "tool_use":
            self.spoke = False
        elif kind in SPEECH and text_of(data):
            self.spoke = True
        return True


class Heard:
    """What is known of the events across connections. `last_seq` is -1 before the first."""

    def __init__(self) -> None:
        self._seen: set[object] = set()
        self._said: list[str] = []  # without white space; an empty one for each tool in between
        self.last_seq = -1

    @property
    def anything(self) -> bool:
        """Whether there was an event at all."""
        return bool(self._seen)

    def is_new(self, data: Mapping[str, Any], look: Look) -> bool:
        """Whether an event was not there on an earlier connection.

        By `eventKey` where there is one. Otherwise by all that it holds but `seq`, and by how
        many like it came before on the same connection: a number may move when a row that
        became readable late is inserted, so the same number need not be the same event.
        """
        seq = data.get("seq")
        if isinstance(seq, int):
            self.last_seq = max(self.last_seq, seq)
        key: object = data.get("eventKey")
        if not isinstance(key, str) or not key:
            rest = {name: value for name, value in data.items() if name != "seq"}
            digest = hash(json.dumps(rest, sort_keys=True))
            copy = look.copies.get(digest, 0)
            look.copies[digest] = copy + 1
            key = (digest, copy)
        if key in self._seen:
            return False
        self._seen.add(key)
        look.fresh = True
        return True

    def told(self, data: Mapping[str, Any]) -> bool:
        """Whether a `result` repeats what was said; remembers what an event says."""
        kind = data.get("eventType")
        if kind == "tool_use":
            self._said.append("")
        text = text_of(data) if kind in SPEECH else ""
        if not text:
            return False
        if kind == "result" and self.was_said(text):
            return True
        self._said.append("".join(text.split()))
        return False

    def was_said(self, text: str) -> bool:
        """Whether this text is what was said last, in one event or in several."""
        wanted = "".join(text.split())
        heard = ""
        for piece in reversed(self._said):
            heard = piece + heard
            if not piece or len(heard) > len(wanted):
                return False
            if heard == wanted:
                return True
        return False


def text_of(data: Mapping[str, Any]) -> str:
    """The text of an event; field names vary by executor (seen in clients)."""
    payload = data.get("payload")
    if isinstance(payload, str):
        return payload
    if not isinstance(payload, dict):
        return ""
    texts = (payload.get(name) for name in ("result", "content", "text"))
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")
