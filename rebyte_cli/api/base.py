"""What every noun of the client stands on: a transport, and answers of the right shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import BrokenAnswer, OutcomeUnknown, ResourceNotFound
from .faults import lost
from .retry import SECONDS, Repeat

if TYPE_CHECKING:
    from .body import Answer
    from .transport import Transport

PAGE = 100  # the largest page of a list (vendor docs)
REMEMBERED = 10_000  # rows of a list that are told apart from a new one; up to twice as many


class Calls:
    """Calls that give an object or a list, or raise; the nouns inherit from it."""

    @property
    def transport(self) -> Transport:
        """The door to the network."""
        raise NotImplementedError

    def _object(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        repeat: Repeat = Repeat.SAFE,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """A call whose answer is an object."""
        answer = self.transport.send(
            method, path, query=query, body=body, repeat=repeat, timeout=timeout
        )
        if method == "GET" and not answer.raw.strip():
            # As the answer to a change it is a success (seen in clients); whoever reads learns
            # nothing from it.
            raise BrokenAnswer(f"GET {path}: the answer is empty", status_code=answer.status)
        if isinstance(answer.data, dict):
            return answer.data
        raise self._wrong(method, path, answer, repeat, "an object")

    def _anything(
        self, method: str, path: str, *, body: Any = None, repeat: Repeat = Repeat.SAFE
    ) -> dict[str, Any]:
        """A call whose answer no source shows: an object as it came, {} for anything else."""
        answer = self.transport.send(method, path, body=body, repeat=repeat)
        return answer.data if isinstance(answer.data, dict) else {}

    def _rows(
        self, path: str, *names: str, query: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """A GET whose answer is a list, bare or under one of `names`."""
        answer = self.transport.send("GET", path, query=query, repeat=Repeat.SAFE)
        rows = answer.data
        if isinstance(rows, dict):
            rows = next((rows[name] for name in names if name in rows), [] if not rows else None)
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return rows
        raise self._wrong("GET", path, answer, Repeat.SAFE, "a list of objects")

    def _created(
        self, path: str, body: Any, identity: str, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """A POST that makes something; its answer must name it, else the outcome is unknown."""
        made = self._object("POST", path, body=body, repeat=Repeat.IF_UNSENT, timeout=timeout)
        if not isinstance(made.get(identity), str) or not made[identity]:
            raise lost("POST", path, f"the answer holds no {identity}", response=made)
        return made

    def _pages(
        self, path: str, page: int, *, offset: int = 0, total: list[int] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows of a paged list, one call per page, each call when its first row is asked for.

        A row made meanwhile shifts the others onto the next page, so ids seen are dropped; only
        the last ones can come again, so memory stays flat. Two pages with nothing new end it: a
        server that ignores `offset` would go on for ever.
        """
        seen: set[str] = set()
        seen_before: set[str] = set()
        stale = 0
        while True:
            answer = self._object("GET", path, query={"limit": page, "offset": offset})
            rows = answer.get("data")
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise BrokenAnswer(f"GET {path}: the answer has no list under `data`")
            count = answer.get("total")
            if total is not None and isinstance(count, int):
                total[:] = [count]
            stale += 1
            for row in rows:
                identity = str(row.get("id"))
                if identity not in seen and identity not in seen_before:
                    stale = 0
                    seen.add(identity)
                    yield row
            if len(seen) >= REMEMBERED:
                seen, seen_before = set(), seen
            # A server may give less than what was asked for and still have more.
            offset += len(rows)
            more = len(rows) >= page or (isinstance(count, int) and offset < count)
            if not rows or not more or stale == 2:
                return

    def _delete(self, path: str) -> None:
        """A DELETE; a 404 that an earlier try of our own explains is success."""
        try:
            self.transport.send("DELETE", path, repeat=Repeat.SAFE)
        except ResourceNotFound as missing:
            if not missing.retried:
                raise

    def _at_most(self, timeout: float | None) -> float | None:
        """A deadline that does not reach beyond the usual one; None for the usual one."""
        return None if timeout is None else min(timeout, self.transport.limit(SECONDS))

    def _wrong(
        self, method: str, path: str, answer: Answer, repeat: Repeat, wanted: str
    ) -> BrokenAnswer | OutcomeUnknown:
        why = f"the answer is not {wanted}"
        rest = {"status_code": answer.status, "response": answer.data}
        if repeat is Repeat.IF_UNSENT:
            return lost(method, path, why, **rest)
        return BrokenAnswer(f"{method} {path}: {why}", **rest)
