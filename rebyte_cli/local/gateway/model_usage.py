"""The tokens that a model's answer says it used, read while the answer passes.

Where the three wires say it (the vendors' API references):

- anthropic, POST /v1/messages: `usage` of the message; streamed, that of `message_start` and, with
  the counts so far, of each `message_delta`: several come if tools of the vendor work. What a
  compaction on the server used, and another model that was asked for advice, is not in its counts,
  but in `usage.iterations`.
- openai, POST /v1/responses: `usage` of the response; streamed, of the one in `response.completed`,
  or another event that ends it. Some routers say what was read in those before it, too, and OpenAI
  answers with the `status` of what it works on in the background.
  POST /v1/chat/completions: `usage` of the answer; streamed, of the last chunk. Of other vendors
  with this wire, such as xAI, the thoughts are in the total alone. What OpenAI's own tools used
  that generate images is in `tool_usage`, next to the usage, for each tool.
- gemini, :generateContent: `usageMetadata`; :streamGenerateContent: of each chunk, as server-sent
  events or as one array. Code Assist, which logins use, wraps each in `response`.

Only JSON and event streams are read: what else a server can be asked for, such as protobuf, has the
text of the model as it is, which could look as if the server had counted. Not every server names
the form of its answer: the service behind the login of ChatGPT streams events without a
Content-Type, and text/plain is what Go's library makes of none.

The counts of one answer only grow, so the largest of each counts. Nothing of the answer itself is
kept, whatever its size.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...system.untrusted import read_json
from .json_scanner import JsonScanner, Path

# Whether a usage is the last word of its answer: in the event that ends it, or once it has ended.
WITH_END, AT_END, NEVER = "with the end", "at the end", "never"
LONGEST_MODEL = 200  # bytes, as it is recorded
MOST_OTHERS = 5  # other models with their names, so that they fit into a line of the record
LARGEST_NUMBER = 10**15
OF_TOOLS = "tools"
TYPE, STATUS, ERROR = (b"type",), (b"status",), (b"error",)
DONE = {"completed", "incomplete", "failed", "cancelled"}  # of what has a status
# Counts that are within others. A server whose part is the larger one has counted it beside them.
PARTS = {"cached_input_tokens": "input_tokens", "reasoning_tokens": "output_tokens"}
PIECE = 65_536  # bytes that are looked at in one step
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The types of what is read, and those of an answer whose beginning has to show what it is. That is
# none of protobuf's, which begins with the end of a line.
READABLE = re.compile(
    rb"text/event-stream|(?:application|text)/(?:[a-z0-9.-]+\+)?(?:x-)?(?:nd)?json(?:l|lines)?"
)
UNNAMED = {b"", b"text/plain"}
OPENING = re.compile(rb"[{\[]|(?:data|event|id|retry):")
LONGEST_OPENING = 6
# Charsets in which a byte of ASCII is that character. In others, what a model says could look as if
# its server had counted, and no key and no end of a question would be found.
_CHARSET = re.compile(
    rb'\s*=\s*"?(?:utf-?8|(?:us-)?ascii|latin-?1|iso-8859-\d+|windows-125\d)?"?\s*'
)


class Wire(NamedTuple):
    """Where a wire has its usage and its model's name, and its words for `token_counts`.

    Of each usage, it is said whether it is the last one of an answer. `a.b` is the count `b` in the
    object `a` of the usage. Of several ways to name a count, the one that says the most is taken:
    some servers fill in zeros under the names that they do not mean.
    """

    usage: Mapping[Path, str]
    model: Sequence[Path]
    counts: Sequence[dict[str, list[str]]]
    sign: str = ""  # without this count, the last of those ways is not meant
    cost: str = ""
    parts: str = ""  # a list in the usage, whose sums count where they are larger
    own_parts: Collection[object] = ()  # the types of those that are of the model that answered
    total: str = ""  # what of it was not read was written, whatever else the usage says
    end: Sequence[str] = ()  # the types of the events after which none has counts
    tools: Sequence[Path] = ()  # objects of usages that are not in the usage, by the tool


WIRES = {
    "anthropic": Wire(
        usage={(b"usage",): AT_END, (b"message", b"usage"): NEVER},
        model=[(b"model",), (b"message", b"model")],
        counts=[
            {
                "input_tokens": [
                    "input_tokens",
                    "cache_read_input_tokens",
                    "cache_creation_input_tokens",
                ],
                "cached_input_tokens": ["cache_read_input_tokens"],
                "output_tokens": ["output_tokens"],
            }
        ],
        parts="iterations",
        own_parts=(None, "message", "compaction"),
        end=["message_stop"],
    ),
    "openai": Wire(
        usage={(b"usage",): AT_END, (b"response", b"usage"): WITH_END},
        model=[(b"model",), (b"response", b"model")],
        counts=[
            {  # /v1/chat/completions
                "input_tokens": ["prompt_tokens"],
                "cached_input_tokens": ["prompt_tokens_details.cached_tokens"],
                "output_tokens": ["completion_tokens"],
                "reasoning_tokens": ["completion_tokens_details.reasoning_tokens"],
            },
            {  # /v1/responses
                "input_tokens": ["input_tokens"],
                "cached_input_tokens": ["input_tokens_details.cached_tokens"],
                "output_tokens": ["output_tokens"],
                "reasoning_tokens": ["output_tokens_details.reasoning_tokens"],
            },
            {  # Perplexity's research, which is beside its total
                "input_tokens": ["prompt_tokens", "citation_tokens"],
                "output_tokens": ["completion_tokens", "reasoning_tokens"],
                "reasoning_tokens": ["reasoning_tokens"],
            },
        ],
        sign="citation_tokens",
        cost="cost",  # OpenRouter's, in dollars; Perplexity's is an object
        total="total_tokens",
        end=[f"response.{word}" for word in ("completed", "incomplete", "failed", "done")],
        tools=[(b"tool_usage",), (b"response", b"tool_usage")],
    ),
    "gemini": Wire(
        usage={(b"usageMetadata",): AT_END, (b"response", b"usageMetadata"): AT_END},
        model=[(b"modelVersion",), (b"response", b"modelVersion")],
        counts=[
            {
                "input_tokens": ["promptTokenCount", "toolUsePromptTokenCount"],
                "cached_input_tokens": ["cachedContentTokenCount"],
                "output_tokens": ["candidatesTokenCount", "thoughtsTokenCount"],
                "reasoning_tokens": ["thoughtsTokenCount"],
            }
        ],
        total="totalTokenCount",
    ),
}


class UsageReader:
    """Reads the usage out of one answer of a model, whole or streamed.

    `wire` is a key of WIRES. The bytes are those of the answer after any `Content-Encoding`, cut
    anywhere. `model` is the name of the model that answered, once it was read. Bytes that make no
    sense are no error: they say nothing. A usage above 64 KiB is not read.
    """

    def __init__(self, wire: str, content_type: bytes = b"application/json") -> None:
        """`content_type` is what the server calls the answer, empty if it does not say."""
        kinds = {kind.partition(b";")[0].strip().lower() for kind in content_type.split(b",")}
        self._is_unnamed = kinds <= UNNAMED
        self._is_readable = self._is_unnamed or all(map(READABLE.fullmatch, kinds))
        self.model: str | None = None
        self.changes = 0  # how often the counts have grown, or were said to be final
        self._wire = WIRES[wire]
        self._counts: dict[str, int] = {}
        self._cost: float | None = None
        self._total = 0
        self._others: dict[str, dict[str | None, dict[str, int]]] = {}  # by where it says them
        wanted = [*self._wire.usage, *self._wire.model, *self._wire.tools]
        self._scanner = JsonScanner([*wanted, TYPE, STATUS, ERROR], self._found)
        self._is_last = NEVER
        self._is_odd = False  # a count of it is no number of tokens
        self._has_ended = False  # by an event
        self._is_done = True  # unless it has a status that says otherwise
        self._start = b""
        self._feed: Callable[[bytes], None] | None = None

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the answer."""
        self._is_readable &= b"\0" not in data  # as in another charset
        if not self._is_readable:
            return
        if self._feed is None:
            # Which of the two it is shows in the first byte: some servers name the other one.
            data = (self._start + data).removeprefix(BYTE_ORDER_MARK)
            data = data if self._is_unnamed else data.lstrip()
            if BYTE_ORDER_MARK.startswith(data):  # a part of it, or nothing
                self._start = data
                return
            if self._is_unnamed and not OPENING.match(data):
                self._start, self._is_readable = data, len(data) < LONGEST_OPENING
                return
            is_json = data[:1] in b"{["
            events = _Events(self._scanner.feed, self._begin_event, self._break_off)
            self._feed = self._scanner.feed if is_json else events.feed
        for start in range(0, len(data), PIECE):
            self._feed(data[start : start + PIECE])

    def usage(self) -> dict[str, Any]:
        """What was used, as far as the answer has said it: `token_counts`, and `cost_usd`.

        `others` are the counts of it that are of other models than the one that answered, each with
        the `model`, or None if that is not named. Empty before the answer says it, and for one that
        does not.
        """
        used = self._in_words(self._counts)
        written = self._total - used.get("input_tokens", 0)
        if used and written > used.get("output_tokens", 0):
            used["output_tokens"] = written
        others = [{"model": m, **n} for found in self._others.values() for m, n in found.items()]
        for counts in self._others.get(OF_TOOLS, {}).values() if used else ():
            used |= {name: used.get(name, 0) + number for name, number in counts.items()}
        if used and others:
            used["others"] = others
        return used if self._cost is None else used | {"cost_usd": self._cost}

    def is_final(self, *, has_ended: bool) -> bool:
        """Whether the answer has said all that it used; `has_ended` if all of it was read."""
        # Some servers say zero where they have not counted: a model that reads nothing is none. One
        # may write nothing, and leave that to the total.
        used = self._in_words(self._counts)
        read = used.get("input_tokens", 0)
        is_all = has_ended and self._is_done and self._is_last == AT_END
        return (
            self._is_readable
            and not self._is_odd
            and read > 0
            and ("output_tokens" in used or self._total >= read)
            and self._is_last != NEVER
            and (is_all or self._has_ended)
        )

    def _begin_event(self) -> None:
        self._scanner.reset()
        self._is_done = True
        if self._is_last == WITH_END and not self._has_ended:
            self._is_last = NEVER

    def _break_off(self) -> None:
        self._is_last = NEVER  # unless counts follow

    def _found(self, path: Path, text: bytes) -> None:
        try:
            value = read_json(text.decode("utf-8", "replace"))
        except ValueError:
            return
        if path == TYPE:
            is_end = value in self._wire.end
            self.changes += is_end and not self._has_ended
            self._has_ended |= is_end
        elif path == STATUS:
            self._is_done = not isinstance(value, str) or value.lower() in DONE
        elif path == ERROR:
            self._break_off()
        elif path in self._wire.model:
            self.model = model_name(value) or self.model
        elif isinstance(value, dict) and path in self._wire.tools:
            self._note_others(OF_TOOLS, [tool for tool in value.values() if isinstance(tool, dict)])
        elif isinstance(value, dict):
            self._is_last = self._wire.usage[path]
            self._read_usage(value)

    def _read_usage(self, usage: dict[str, Any]) -> None:
        ways = self._wire.counts
        parts = usage.get(self._wire.parts)
        parts = parts if isinstance(parts, list) else []
        own = self._wire.own_parts
        known = [part for part in parts if isinstance(part, dict)]
        others = [part for part in known if part.get("model") or part.get("type") not in own]
        self._note_others(self._wire.parts, others)
        for name in {name for way in ways for names in way.values() for name in names}:
            counts = [each for part in parts if (each := self._count(part, name)) is not None]
            number = max(self._count(usage, name) or 0, sum(counts))
            is_known = bool(counts) or self._count(usage, name) is not None
            if is_known and self._counts.get(name, -1) < number:
                self._counts[name] = number
                self.changes += 1
        total = self._count(usage, self._wire.total) or 0
        if total > self._total:
            self._total = total
            self.changes += 1
        self._cost = _cost(usage, self._wire.cost, self._cost)

    def _note_others(self, where: str, parts: Iterable[dict[str, Any]]) -> None:
        """Keep what parts of the use are of other models, unless more was known already."""
        found: dict[str | None, dict[str, int]] = {}
        names = {name for way in self._wire.counts for each in way.values() for name in each}
        for part in parts:
            told = {n: c for n in names if (c := self._count(part, n)) is not None}
            counts = self._in_words(told)
            if counts:
                name = model_name(part.get("model"))
                is_kept = name in found or len(found) < MOST_OTHERS
                sums = found.setdefault(name if is_kept else None, {})
                sums |= {name: sums.get(name, 0) + number for name, number in counts.items()}
        if _tokens(found) > _tokens(self._others.get(where, {})):
            self._others[where] = found
            self.changes += 1

    def _count(self, usage: object, name: str) -> int | None:
        """The count `name` (`a.b` is that of the object `a`); None if there is none."""
        for key in name.split("."):
            usage = usage.get(key) if isinstance(usage, dict) else None
        if usage is None:
            return None
        if isinstance(usage, str) and len(usage) < 20 and usage.isascii() and usage.isdecimal():
            usage = int(usage)
        if isinstance(usage, bool) or not isinstance(usage, int | float):
            usage = math.nan
        self._is_odd |= not 0 <= usage <= LARGEST_NUMBER
        return math.ceil(usage) if 0 <= usage <= LARGEST_NUMBER else None

    def _in_words(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """Counts of the wire in the words of `token_counts`."""
        used: dict[str, Any] = {}
        sign, ways = self._wire.sign, self._wire.counts
        for names in ways[:-1] if sign and sign not in counts else ways:
            for name, number in token_counts(counts, **names).items():
                used[name] = max(used.get(name, 0), number)
        for part, whole in PARTS.items():
            if used.get(part, 0) > used.get(whole, 0):
                used[whole] = used.get(whole, 0) + used[part]
        return used


def _tokens(others: Mapping[str | None, Mapping[str, int]]) -> int:
    return sum(sum(counts.values()) for counts in others.values())


def is_in_ascii(content_types: Iterable[bytes]) -> bool:
    """Whether these values of Content-Type name no charset but those that contain ASCII."""
    named = re.findall(rb"charset([^;,]*)", b",".join(content_types).lower())
    return all(map(_CHARSET.fullmatch, named))


def model_name(value: object) -> str | None:
    """The name of a model; None for what is none."""
    if isinstance(value, str) and value and value.isprintable():
        return value if len(json.dumps(value)) - 2 <= LONGEST_MODEL else None
    return None


def _cost(usage: dict[str, Any], name: str, before: float | None) -> float | None:
    """The dollars that a usage tells; `before` if it tells none, and None if it tells a part.

    OpenRouter's cost is only its fee where it asks a provider with a key of the user's own (BYOK).
    Older answers have `cost_details` in this case alone.
    """
    told, details = usage.get(name), usage.get("cost_details")
    fee = _dollars(told.get("total_cost") if isinstance(told, dict) else told)
    if fee is None or usage.get("is_byok") is False:
        return before if fee is None else fee
    upstream = details.get("upstream_inference_cost") if isinstance(details, dict) else None
    paid = _dollars(upstream)
    if paid is None:
        return None if usage.get("is_byok") else fee
    return fee + paid


def _dollars(amount: object) -> float | None:
    known = isinstance(amount, int | float) and 0 <= amount <= LARGEST_NUMBER
    return float(amount) if known else None  # type: ignore[arg-type]  # as `known` says


class _Events:
    """Hands the data of each server-sent event on, as one text.

    Source: the standard's section 9.2.6, "Interpreting an event stream".
    """

    FIELD = b"data:"
    _LINE_END = re.compile(rb"\r\n|\r|\n")
    # How lines begin: those of a field, of a comment, or a blank that keeps a connection alive.
    _KNOWN = re.compile(rb"[deir:\s]|\xef")

    def __init__(
        self,
        add: Callable[[bytes], None],
        begin: Callable[[], None],
        break_off: Callable[[], None],
    ) -> None:
        """`begin` is called before what is added is that of another event, and `break_off` for a
        line of no event: Google's servers say so what went wrong in the middle.
        """
        self._add_data = add
        self._begin = begin
        self._break_off = break_off
        self._line = b""  # its first bytes, which tell the field
        self._is_data = False
        self._after_return = False

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the stream."""
        at = int(self._after_return and data.startswith(b"\n"))
        self._after_return = data.endswith(b"\r")
        for end in self._LINE_END.finditer(data, at):
            self._add(data[at : end.start()])
            self._end_line()
            at = end.end()
        self._add(data[at:])

    def _add(self, part: bytes) -> None:
        if len(self._line) < len(self.FIELD):
            line = self._line + part
            part = line[len(self.FIELD) :]
            self._line = line[: len(self.FIELD)]
            self._is_data = self._line == self.FIELD
            if self._line and not self._KNOWN.match(self._line):
                self._break_off()
        if self._is_data and part:
            self._add_data(part)

    def _end_line(self) -> None:
        if not self._line:
            self._begin()
        self._line, self._is_data = b"", False


def token_counts(given: object, **names: Sequence[str]) -> dict[str, int]:
    """The tokens of a run or a step in the names that all agents share.

    `input_tokens` are all that the model read, of which `cached_input_tokens` came from its cache;
    `output_tokens` are all that it wrote, of which `reasoning_tokens` were thoughts. Each is the
    sum of those of the agent's own counts that `names` lists for it, and missing if there is none.
    """
    counts = given if isinstance(given, dict) else {}
    found = {
        ours: [n for name in theirs if type(n := counts.get(name)) is int and n >= 0]
        for ours, theirs in names.items()
    }
    return {ours: sum(numbers) for ours, numbers in found.items() if numbers}
