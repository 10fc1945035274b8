"""Whether something that was sent is there: the search for what a lost answer would have named.

Only the prompt proves anything. The list says which tasks are young enough and `content` says
what they were asked; where it does not, nobody can tell. Times are the server's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import (
    APIError,
    NetworkError,
    OutcomeUnknown,
    RebyteError,
    Redirected,
    ServerFault,
    Unsent,
)

if TYPE_CHECKING:
    from ..api.client import RebyteClient


# -- When something happened, by the server's clock, as far as that can be known from here.

SKEW = timedelta(seconds=2)  # between the machines behind one API
# How long after it was sent a create can still make its task. The client gives up after ten.
LIFE = timedelta(minutes=15)
# How far wrong our own clock may be where the server never told the time.
BLIND = timedelta(hours=1)


class ServerClock:
    """The server's time for what this process did, by `Date` headers and our monotonic clock."""

    def __init__(self, client: RebyteClient, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._mark = clock()
        self._wall = wall()

    def now(self) -> datetime:
        """The server's time; ours when the server never told its own."""
        return self._client.transport.server_now() or wall()

    def near(self, one: str, other: str) -> bool:
        """Whether two written times may lie within the life of one attempt of each other.

        Either may be the server's time or ours, as in `window_of`.
        """
        mine, theirs = parse_time(one), parse_time(other)
        if mine is None or theirs is None:
            return True
        wrong = self.now() - wall()
        shifts = (timedelta(0), wrong, -wrong)
        return any(abs(mine - theirs + shift) <= LIFE for shift in shifts)

    def window(self) -> tuple[datetime, datetime]:
        """When something sent as this object was made can have taken effect.

        A `Date` header is older than its arrival, so the beginning is never too late by it.
        """
        now = self._client.transport.server_now()
        if now is None:
            return self._wall - BLIND, self._wall + BLIND + LIFE
        began = now - timedelta(seconds=self._clock() - self._mark)
        return began - SKEW, began + SKEW + LIFE

    def window_of(self, written: str) -> tuple[datetime, datetime]:
        """The same for a beginning that an earlier process wrote down.

        It wrote the server's time or that of this machine, whose clock may be wrong by as much
        as it is now. Both readings are allowed for.
        """
        one = parse_time(written) or wall()
        server = self._client.transport.server_now()
        if server is None:
            return one - BLIND, one + BLIND + LIFE
        other = one + (server - wall())
        return min(one, other) - SKEW, max(one, other) + SKEW + LIFE


def is_past(client: RebyteClient, written: Any, seconds: float) -> bool:
    """Whether a time that the server wrote is so many seconds ago by its own clock.

    False where either is not known.
    """
    moment, now = parse_time(written), client.transport.server_now()
    return moment is not None and now is not None and (now - moment).total_seconds() >= seconds


def parse_time(written: Any) -> datetime | None:
    """A time as the API writes it; None when it cannot be read."""
    if not isinstance(written, str):
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def wall() -> datetime:
    """This machine's time (UTC), right or wrong."""
    return datetime.now(UTC)


PAGE = 100
PAGES = 50
READS = 200  # transcripts asked for in one look, at most
OVERLAP = 5
SHORTEST_CUT = 20  # characters; a shorter beginning of a prompt proves nothing


def is_lost(error: RebyteError) -> bool:
    """Whether something was sent and its answer is lost, so that only a look can tell.

    Not so when it provably never arrived, was answered by a redirect, or by a 500: that one did
    answer, and a task it made in spite of that is looked for by the next attempt.
    """
    if isinstance(error, OutcomeUnknown):
        return True
    return isinstance(error, NetworkError) and not isinstance(
        error, Unsent | Redirected | ServerFault
    )


def digest_of(prompt: str) -> str:
    """What stands for a prompt where its text must not be kept (SHA-256, hexadecimal).

    Line ends and blanks around the text do not count: servers change them.
    """
    return hashlib.sha256(_plain(prompt).encode("utf-8", "surrogatepass")).hexdigest()


class LostRequest(NamedTuple):
    """What was sent and lost.

    `digest` is that of its prompt; `prompt` the text, where this process has it; `body` what was
    asked for beside it. `window` gives the first and the last server time at which it can have
    taken effect; it is asked after the first answer, which tells the server's time. A match up to
    `doubt` before the window, or after it, is a candidate but not certain.
    """

    digest: str
    window: Callable[[], tuple[datetime, datetime]]
    prompt: str | None = None
    body: Mapping[str, Any] = MappingProxyType({})
    doubt: timedelta | None = None


class Matches(NamedTuple):
    """What one look saw: `same` are certain by their prompt, `unsure` could not be told apart.

    `whole` says that every task of the time in question was looked at.
    """

    same: list[dict[str, Any]]
    unsure: list[dict[str, Any]]
    whole: bool

    @property
    def is_settled(self) -> bool:
        """Whether another look would change nothing."""
        return len(self.same) > 1 or (len(self.same) == 1 and not self.unsure)

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Everything it could be."""
        return [*self.same, *self.unsure]


class Search:
    """Looks for one lost create, as often as it is called, asking for no transcript in vain."""

    def __init__(self, client: RebyteClient, knows: Callable[[Iterable[str]], set[str]]) -> None:
        """`knows` picks, from ids, those that are known to be something else."""
        self._client = client
        self._knows = knows
        self._prompts: dict[str, str] = {}

    def __call__(self, sent: LostRequest, *, seconds: float | None = None) -> Matches:
        """One look at the list and the young tasks in it, over after about `seconds`.

        Raises the APIError of the list when it cannot be had.
        """
        over = None if seconds is None else time.monotonic() + seconds
        rows, whole = self._young(sent, over)
        known = self._knows([row["id"] for row in rows])
        same: list[dict[str, Any]] = []
        unsure: list[dict[str, Any]] = []
        first, last = sent.window()
        strangers = [row for row in rows if row["id"] not in known]
        for row in strangers[:READS]:
            match = is_prompt(self._first_prompt(row["id"], over), sent)
            created = parse_time(row.get("createdAt"))
            inside = created is not None and first <= created <= last
            if match and inside and not contradicts(row, sent.body):
                same.append(row)
            elif match or (match is None and (inside or created is None)):
                unsure.append(row)
        return Matches(same, unsure, whole and len(strangers) <= READS)

    def _young(self, sent: LostRequest, over: float | None) -> tuple[list[dict[str, Any]], bool]:
        """Rows of the list whose creation fits, newest first, and whether these are all."""
        fitting: dict[str, dict[str, Any]] = {}
        seen: set[str] = set()
        offset = 0
        for _ in range(PAGES):
            answer = self._client.list_tasks(limit=PAGE, offset=offset, timeout=_left(over))
            rows = _rows(answer.get("data"))
            first, last = sent.window()
            if sent.doubt is not None:
                first, last = first - sent.doubt, datetime.max.replace(tzinfo=UTC)
            oldest = None
            for row in rows:
                created = parse_time(row.get("createdAt"))
                oldest = created or oldest
                if created is None or first <= created <= last:
                    fitting[row["id"]] = row
            ids = {row["id"] for row in rows}
            total = answer.get("total")
            at_end = isinstance(total, int) and offset + len(rows) >= total
            # The list is newest first: behind an old last row everything is older still.
            if at_end or ids <= seen or (oldest is not None and oldest < first):
                return list(fitting.values()), True
            seen |= ids
            # A few rows twice: a task deleted meanwhile moves the later ones up.
            offset += max(len(rows) - OVERLAP, 1)
        return list(fitting.values()), False

    def _first_prompt(self, task_id: str, over: float | None) -> str | None:
        """What the task was asked, or None while nobody says."""
        if task_id not in self._prompts:
            try:
                content = self._client.task_content(task_id, timeout=_left(over))
            except APIError:
                return None
            prompts = _rows(content.get("prompts"), identified=False)
            asked = prompts[0].get("userPrompt") if prompts else None
            if not isinstance(asked, str) or not asked.strip():
                return None
            self._prompts[task_id] = asked
        return self._prompts[task_id]


def is_prompt(asked: str | None, sent: LostRequest) -> bool | None:
    """Whether `asked` is the prompt that was sent; None when nobody can tell.

    A server may add to a prompt or cut it, so what contains ours, or is its beginning, may be it.
    """
    if asked is None:
        return None
    if digest_of(asked) == sent.digest:
        return True
    if sent.prompt is None:
        return False
    theirs, ours = _plain(asked), _plain(sent.prompt)
    cut = theirs.rstrip("…. ")
    if ours in theirs or (len(cut) >= SHORTEST_CUT and ours.startswith(cut)):
        return None
    return False


def contradicts(row: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether a row names another executor or model than the one that was asked for.

    That makes a match doubtful, no more: a consumer's notes say that servers may ignore both. A
    model with no digit in it is a tier ("lite"), which the server turns into a model's name.
    """
    for name in ("executor", "model"):
        wanted, has = body.get(name), row.get(name)
        if not isinstance(wanted, str) or not isinstance(has, str):
            continue
        if name == "model" and not any(letter.isdigit() for letter in wanted):
            continue
        if wanted and has and wanted != has:
            return True
    return False


def find_prompts(content: Mapping[str, Any], sent: LostRequest) -> Matches:
    """The prompts of a task's content that a lost follow-up may have made."""
    same, unsure = [], []
    first, last = sent.window()
    for prompt in _rows(content.get("prompts")):
        submitted = parse_time(prompt.get("submittedAt"))
        if submitted is not None and not first <= submitted <= last:
            continue
        asked = prompt.get("userPrompt")
        match = is_prompt(asked if isinstance(asked, str) and asked.strip() else None, sent)
        if match and submitted is not None:
            same.append(prompt)
        elif match is not False:
            unsure.append(prompt)
    return Matches(same, unsure, whole=True)


def _left(over: float | None) -> float | None:
    return None if over is None else max(over - time.monotonic(), 0.05)


def _plain(prompt: str) -> str:
    return prompt.replace("\r\n", "\n").replace("\r", "\n").strip()


def _rows(data: Any, *, identified: bool = True) -> list[dict[str, Any]]:
    return [
        dict(row)
        for row in (data if isinstance(data, list) else [])
        if isinstance(row, Mapping) and (not identified or isinstance(row.get("id"), str))
    ]


def pauses(first: float = 0.5, growth: float = 1.6, most: float = 4.0) -> Iterator[float]:
    """Seconds between two looks: short at first, since a task is mostly there at once."""
    pause = first
    while True:
        yield pause
        pause = min(pause * growth, most)
