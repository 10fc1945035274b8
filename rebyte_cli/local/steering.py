"""Words in a prompt that steer the simulation, as test card numbers steer a payment sandbox.

`[[run=2s]] [[fail]] Check this` runs two seconds and fails. Unknown words are left alone, since
`[[ -f x ]]` is ordinary shell; a known word with a value it cannot take is refused.
"""

from __future__ import annotations

import re

STEERING: dict[str, str] = {
    "[[run=2s]]": "the run takes this long (ms, s, m, h; half a second without it)",
    "[[fail]]": "the run ends as failed; an agent computer named so ends in error",
    "[[cancel]]": "the run ends as canceled, with no answer",
    "[[events=50]]": "the run writes this many events (0 to 10000)",
    "[[title=TEXT]]": "the task's title, with \\uXXXX for any character, so that hostile ones fit",
    "[[ask]]": "the run parks on a question at half time until it is answered; "
    "[[ask=2]] asks two at once",
    "[[delegate]]": "the run hands a part to a sub-prompt that has events of its own",
    "[[late-answer=1s]]": "the status is terminal this long before the answer can be read",
    "[[early-done]]": "the first event comes late, and a stream opened before it is told `done`",
    "[[renumber]]": "one event becomes visible late and moves the `seq` of those after it",
    "[[no-keys]]": "events carry no `eventKey`, as older servers send them",
    "[[cut=3]]": "while the run goes on, streams end without `done` after this many events",
    "[[slow-create=2s]]": "the call makes its task at once and answers this much later",
    "[[drop]]": "the call does its work, then the connection closes with no answer",
    "[[drop-before]]": "the connection closes with no answer and nothing was done",
    "[[http=503]]": "the call is refused with this status (400 to 599) and nothing is done; "
    "[[http=429*2]]: only the first two calls with this prompt",
    "[[html=502]]": "as http, but answered with an HTML page, as a gateway does",
}

_WORD = re.compile(r"\[\[([a-z]+(?:-[a-z]+)*)(?:=((?:(?!\]\]).)*))?\]\]")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)?", re.ASCII)
_UNITS = {"ms": 1, "s": 1000, None: 1000, "m": 60_000, "h": 3_600_000}
_LONGEST = 24 * 3_600_000
_REFUSAL = re.compile(r"([45]\d\d)(?:\*(\d{1,3}))?", re.ASCII)
_KNOWN = {re.sub(r"\W*([a-z-]+).*", r"\1", word) for word in STEERING}


class Words:
    """The steering words of one prompt. The accessors raise ValueError for a value that is wrong.

    When a word stands twice the first one counts.
    """

    def __init__(self, prompt: str) -> None:
        self._found: dict[str, str] = {}
        for match in _WORD.finditer(prompt):
            if match[1] in _KNOWN:
                self._found.setdefault(match[1], match[2] or "")

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def duration(self, name: str, otherwise: int) -> int:
        """Milliseconds; at most a day."""
        if name not in self._found:
            return otherwise
        match = _DURATION.fullmatch(self._found[name])
        length = int(float(match[1]) * _UNITS[match[2]]) if match else _LONGEST + 1
        if length > _LONGEST:
            raise ValueError(f"[[{name}]] needs a duration such as 500ms, 2s or 1m, at most 24h")
        return length

    def number(self, name: str, otherwise: int, *, bare: int, low: int, high: int) -> int:
        """An integer between `low` and `high`; `bare` when the word has no value."""
        if name not in self._found:
            return otherwise
        text = self._found[name] or str(bare)
        if not (text.isascii() and text.isdigit() and len(text) < 9 and low <= int(text) <= high):
            raise ValueError(f"[[{name}]] needs a number from {low} to {high}")
        return int(text)

    def refusal(self, name: str) -> tuple[int, int | None] | None:
        """(HTTP status, how many times or None for always) of `http` or `html`."""
        if name not in self._found:
            return None
        match = _REFUSAL.fullmatch(self._found[name])
        if match is None:
            raise ValueError(f"[[{name}]] needs an HTTP status from 400 to 599, as in {name}=503")
        return int(match[1]), int(match[2]) if match[2] else None

    def title(self) -> str | None:
        """The value of `title`, its \\uXXXX escapes decoded (pairs of surrogates joined)."""
        if "title" not in self._found:
            return None
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), self._found["title"])
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def plain(prompt: str) -> str:
    """The prompt without its steering words."""
    return _WORD.sub(lambda match: "" if match[1] in _KNOWN else match[0], prompt).strip()
