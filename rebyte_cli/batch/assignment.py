"""Which line of a batch is created next, and at which of its places."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .place import OpenPlace, RunParts


class Assignment:
    """The lines that are ready, and the places that have room for them.

    Lines are named by their index in the input. Those of one workspace are a chain: all of them run
    at the place that has one of them, or whose history knows the workspace. Only the main thread
    calls this.
    """

    def __init__(self, places: Sequence[OpenPlace], parts: RunParts) -> None:
        """`places` are asked in this order."""
        self._places = places
        self._by_name = {place.name: place for place in places}
        self._batch, self._plan, self._lines = parts.batch, parts.plan, parts.lines
        self._is_pool = parts.is_pool
        self._follower = {before: index for index, before in parts.plan.after.items()}
        self._chain = parts.plan.head if parts.is_pool else {}
        self._place_by_workspace = self._known_places()
        self._place_of_chain: dict[int, str] = {}
        for index, first in self._chain.items():
            if (place := self._lines[index].place) is not None:
                self._place_of_chain.setdefault(first, place)
        self.ready: deque[int] = deque()  # lines to create that no worker has yet
        self.is_closed = False  # no further line is handed out

    def add(self, index: int) -> None:
        """Have a line created when there is room, unless the batch is stopping."""
        if not self.is_closed:
            self.ready.append(index)

    def take(self) -> tuple[int, OpenPlace] | None:
        """The first line that is ready and may run now, by its turn, and where."""
        if not any(place.is_open for place in self._places):
            return None
        for at, index in enumerate(self.ready):
            for place in self._places_for(index):
                if place.is_open and place.has_room(self._executor_of, index):
                    del self.ready[at]
                    if index in self._chain:
                        self._place_of_chain[self._chain[index]] = place.name
                    return index, place
            if not self._chain and not any(place.limited for place in self._places):
                return None  # what holds for the first one holds for all
        return None

    def close(self) -> None:
        """Hand nothing out any more."""
        self.is_closed = True
        self.ready.clear()

    @property
    def may_continue(self) -> bool:
        """Whether a line that is ready will find room once the service of a place answers."""
        return self._is_pool and any(
            place.may_open and place.has_room(self._executor_of, index)
            for index in self.ready
            for place in self._places_for(index)
        )

    def elsewhere(self) -> list[str]:
        """The places where lines that are left over would have to run, and that take none."""
        here = {place.name for place in self._places if place.place.takes_new}
        bound = {self._bound_to(index) for index in self.ready}
        return sorted(name for name in bound - here if name is not None)

    def unbind(self, index: int) -> None:
        """Any place may have this line, unless one has another line of its workspace."""
        first = self._chain.get(index)
        if first is not None:
            mine = (self._lines[at].place for at, each in self._chain.items() if each == first)
            at = next(filter(None, mine), None)
            if at is None:
                self._place_of_chain.pop(first, None)
            else:
                self._place_of_chain[first] = at

    # What is known of a line

    def place_of(self, index: int) -> OpenPlace:
        """The place that has a line."""
        return self._by_name[self._lines[index].place or self._lines.home]

    def follower(self, index: int) -> int | None:
        """The line that may be created once this one has ended."""
        return self._follower.get(index)

    def workspace_of(self, index: int) -> str | None:
        """The workspace that a line asks for, as far as it is known; None for a new one, too.

        All lines of a chain share one, and what the service told one of them holds for all.
        """
        leader = self._plan.leader.get(index)
        while leader is not None:
            if self._lines[leader].workspace is not None:
                return self._lines[leader].workspace
            index, leader = leader, self._plan.leader.get(leader)
        return self._batch.lines[index].workspace

    def field_of(self, index: int, name: str) -> str:
        """A field of the create of a line, as text, where it is or would be first."""
        place = self._by_name.get(self._lines[index].place or "", self._places[0])
        return str(place.batch.body(self._batch.lines[index]).get(name) or "")

    def _executor_of(self, index: int) -> str:
        return self.field_of(index, "executor")

    def _places_for(self, index: int) -> Iterator[OpenPlace]:
        """Where a line that is ready may run: where the others of its workspace are, if any are."""
        bound = self._bound_to(index)
        return (place for place in self._places if bound in (None, place.name))

    def _bound_to(self, index: int) -> str | None:
        first = self._chain.get(index, index)
        if first in self._place_of_chain:
            return self._place_of_chain[first]
        return self._place_by_workspace.get(self._batch.lines[first].workspace or "")

    def _known_places(self) -> dict[str, str]:
        """The place of each workspace that lines ask for, as far as its history knows of it."""
        asked = {self._batch.lines[index].workspace for index in self._chain}
        return {
            workspace: place.name
            for workspace in asked
            if workspace is not None and not workspace.startswith("@")
            for place in self._places
            if place.place.history.workspace(workspace) is not None
        }
