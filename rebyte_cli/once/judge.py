"""Which task a lost request made: what the rows of a list say together.

The list has an order, and a timestamp names the newest row of before: what stands above that one is
new. A new row is the result if it shows the prompt and no other request has it. Nothing was made
only if every new row is known to be another's, and the list has as many other rows as before.
Everything else is a doubt, which ends in exit status 6. A time decides only which of the rows that
show the prompt may be taken; it never says that a row is not the result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

Row = Mapping[str, Any]
Place = Literal["above", "below", "unknown"]
Owner = Literal["none", "perhaps another", "another"]
MOST_NAMED = 5  # candidates in a message


class Seen(NamedTuple):
    """A row, and what it says about one request.

    `place` is where it stands from the newest row of before the request; unknown if the request has
    no baseline. `owner` says whether another request has it. `is_timely`: it was created while this
    request could create it; of one that stands below, if the clock that says so may be an hour
    behind. `is_as_asked`: it names no other executor or model. `shown` is the digest of the prompt
    that it shows; None if that was not read.
    """

    row: Row
    place: Place
    owner: Owner = "none"
    is_timely: bool = True
    is_as_asked: bool = True
    shown: str | None = None

    def judged(self, digest: str, *, is_exact: bool) -> Literal["result", "doubt", "another's"]:
        """What it is to a request with the prompt of this digest."""
        if self.owner == "another":
            return "another's"
        if self.place == "below":  # it was there, unless the clocks of two machines differ
            may_be = self.is_timely and self.owner == "none" and self.shown in (None, digest)
            return "doubt" if may_be else "another's"
        if self.shown == digest:
            is_free = self.owner == "none"
            return "result" if is_free and self.is_timely and self.is_as_asked else "doubt"
        if self.place == "unknown" and not self.is_timely:
            return "another's"
        return "another's" if is_exact and self.shown is not None else "doubt"


class Verdict(NamedTuple):
    """What one scan says: `task` is certainly the result.

    `same` show the prompt, `unsure` could be the result as well. `is_complete`: the list is whole
    and up to date, and each row that matters was read. `is_counted`: below the rows that are new,
    there are as many as before.
    """

    task: Row | None
    same: Sequence[Row]
    unsure: Sequence[Row]
    is_complete: bool
    is_counted: bool = False

    @property
    def candidates(self) -> list[Row]:
        """Everything that it could be."""
        return [*self.same, *self.unsure]

    @property
    def is_final(self) -> bool:
        """Whether another scan would change nothing."""
        return self.is_complete and (len(self.same) > 1 or bool(self.same and not self.unsure))

    @property
    def shows_none(self) -> bool:
        """Whether this scan, by itself, says that nothing was created."""
        return self.is_complete and self.is_counted and not self.candidates


NOTHING = Verdict(None, (), (), is_complete=False)


def judge(
    digest: str,
    rows: Iterable[Seen],
    *,
    is_complete: bool,
    is_counted: bool,
    is_exact: bool = False,
) -> Verdict:
    """Judge the rows of a list for one request; `share` then says which task is certain.

    `digest` is that of its prompt. `is_exact`: the service is known to show prompts as they were
    sent, so that a row with another prompt is another's.
    """
    same, equal, others = list[Row](), list[Row](), list[Row]()
    for one in rows:
        found = one.judged(digest, is_exact=is_exact)
        if found == "result":
            same.append(one.row)
        elif found == "doubt":
            (equal if one.shown == digest else others).append(one.row)
    return Verdict(None, same, [*equal, *others], is_complete, is_counted)


def share(group: Sequence[Verdict], taken: Collection[str], *, is_contested: bool) -> list[Verdict]:
    """Give each of several requests with the same prompt its task, the first sent first.

    `taken` are ids that others have by now. If it `is_contested`, another request may have made
    what shows the prompt, so that no task is certain; nor is one if there are more than requests.
    """
    most, given, found = len({row["id"] for one in group for row in one.same}), {*taken}, []
    for verdict in group:
        free = [row for row in verdict.same if row["id"] not in given]
        task = None
        if is_contested:
            verdict = verdict._replace(unsure=[*free, *verdict.unsure])
            free = []
        elif free and most <= len(group) and verdict.is_complete:
            task = min(free, key=lambda row: str(row.get("createdAt")))
            given.add(task["id"])
        found.append(verdict._replace(task=task, same=free))
    return found


def any_of(ids: Sequence[str]) -> str:
    """Ids of which one is meant, as words: `a or b`; no more than MOST_NAMED of them."""
    shown = list(ids[:MOST_NAMED])
    if more := len(ids) - len(shown):
        shown.append(f"one of {more} more")
    return " or ".join(shown)
