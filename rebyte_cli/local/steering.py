"""Words in a prompt that steer the simulation, as test card numbers steer a payment sandbox."""

from __future__ import annotations

import re

from ..system.durations import parse_duration

STEERING: dict[str, str] = {
    "[[run=2s]]": "the run takes this long (ms, s, m, h; half a second without it)",
    "[[fail]]": "the run ends as failed; an agent computer with this in its name ends in error",
    "[[cancel]]": "the run ends as canceled, with no answer",
    "[[events=50]]": "the run writes this many events (0 to 10000)",
    "[[title=TEXT]]": "the task's title, with \\uXXXX for any character, even a hostile one",
    "[[limit=2s]]": "the run waits this long for a usage limit of its model to be reset",
    "[[ask]]": "the run stops halfway to ask a question and waits for the answer; "
    "[[ask=2]] asks two at once",
    "[[delegate]]": "the run hands part of the work to a sub-prompt with its own events",
    "[[late-answer=1s]]": "the answer becomes readable this long after the status is terminal",
    "[[early-done]]": "the first event comes late, and a stream opened before it gets `done`",
    "[[usage=IN:OUT]]": "the run uses so many tokens as soon as it begins, in one request; "
    "[[usage=900:80:0.02]] costs dollars as well",
    "[[renumber]]": "one event becomes visible late and changes the `seq` of those after it",
    "[[no-keys]]": "events have no `eventKey`, as on older servers",
    "[[cut=3]]": "while the run is active, streams break off after this many events without `done`",
    "[[slow-create=2s]]": "the call creates its task at once and answers this much later",
    "[[say=TEXT]]": "the answer is TEXT alone, with \\uXXXX for any character",
    "[[write=PATH:TEXT]]": "the run writes this file, and the workspace of a task with a repository"
    " gets a changes.patch; repeatable, with \\n and \\uXXXX in TEXT",
    "[[drop]]": "the call does its work, then closes the connection without answering",
    "[[drop-before]]": "the call closes the connection without answering and does nothing",
    "[[http=503]]": "the call does nothing and answers with this status (400 to 599); "
    "[[http=429*2]]: only the first two calls with this prompt",
    "[[html=502]]": "as http, but with an HTML page, as a gateway answers",
}

# `[[name]]` or `[[name=value]]`, whose value ends at the first `]]` behind it. Without one, it goes
# up to the end of the line, on which no other word can end either: the time is proportional to the
# length of a prompt, which may hold anything.
_WORD = re.compile(r"\[\[([a-z]++(?:-[a-z]++)*+)(?:=((?:(?!\]\])[^\n])*+))?+(\]\])?")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_LONGEST = 86400.0  # seconds
_REFUSAL = re.compile(r"([45]\d\d)(?:\*(\d{1,3}))?", re.ASCII)
_USAGE = re.compile(r"(\d{1,12}):(\d{1,12})(?::(\d{1,6}(?:\.\d{1,9})?))?", re.ASCII)
_KNOWN = {re.sub(r"\W*([a-z-]+).*", r"\1", word) for word in STEERING}


def _steers(word: re.Match[str]) -> bool:
    """Whether what looks like a word is a whole one that means something."""
    return bool(word[3]) and word[1] in _KNOWN


class Words:
    """The steering words of one prompt. The accessors raise ValueError for a value that is wrong.

    When a word appears twice the first one counts.
    """

    def __init__(self, prompt: str) -> None:
        self._found: dict[str, str] = {}
        self.writes: list[str] = []  # the values of all words `write`, in order
        for word in filter(_steers, _WORD.finditer(prompt)):
            name, value = word[1], word[2] or ""
            self._found.setdefault(name, value)
            self.writes += [value] if name == "write" else []

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def duration(self, name: str, default: int) -> int:
        """Milliseconds; at most a day."""
        if name not in self._found:
            return default
        seconds = parse_duration(self._found[name])
        if seconds is None or seconds > _LONGEST:
            raise ValueError(f"[[{name}]] needs a duration such as 500ms, 2s or 1m, at most 24h")
        return round(seconds * 1000)

    def number(self, name: str, default: int, *, bare: int, low: int, high: int) -> int:
        """An integer between `low` and `high`; `bare` when the word has no value."""
        if name not in self._found:
            return default
        text = self._found[name] or str(bare)
        if not (text.isascii() and text.isdigit() and len(text) < 9 and low <= int(text) <= high):
            raise ValueError(f"[[{name}]] needs a number from {low} to {high}")
        return int(text)

    def usage(self) -> tuple[int, int, float | None] | None:
        """(tokens read, tokens written, dollars or None) of `usage`."""
        if "usage" not in self._found:
            return None
        match = _USAGE.fullmatch(self._found["usage"])
        if match is None:
            raise ValueError(
                "[[usage]] needs tokens read and written, and dollars, as in 900:80:0.02"
            )
        return int(match[1]), int(match[2]), float(match[3]) if match[3] else None

    def refusal(self, name: str) -> tuple[int, int | None] | None:
        """(HTTP status, how many times or None for always) of `http` or `html`."""
        if name not in self._found:
            return None
        match = _REFUSAL.fullmatch(self._found[name])
        if match is None:
            raise ValueError(f"[[{name}]] needs an HTTP status from 400 to 599, as in {name}=503")
        return int(match[1]), int(match[2]) if match[2] else None

    def text(self, name: str) -> str | None:
        """The value of `title` or `say`, its \\uXXXX escapes decoded (surrogates joined)."""
        if name not in self._found:
            return None
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), self._found[name])
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def plain(prompt: str) -> str:
    """The prompt without its steering words."""
    return _WORD.sub(lambda word: "" if _steers(word) else word[0], prompt).strip()
