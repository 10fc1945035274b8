"""`--on`: several places for one command, each by the name of its profile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..app import App
from ..errors import BadUsage
from ._options import refuse


class PlaceName(NamedTuple):
    """A place as it is written: `box:8`, or `box` without a number."""

    name: str
    running: int | None = None


def named_places(text: str) -> tuple[PlaceName, ...]:
    """The names of profiles, with commas between them. Raises ValueError."""
    if odd := next((word for word in text.split(",") if ":" in word), None):
        raise ValueError(f"{odd!r} is not the name of a profile")
    return counted_places(text)


def counted_places(text: str) -> tuple[PlaceName, ...]:
    """The same, each with `:N` behind it or without. Raises ValueError."""
    found: list[PlaceName] = []
    for word in text.split(","):
        name, colon, number = word.strip().partition(":")
        if not name:
            raise ValueError(f"{text!r} has an empty name")
        if colon and not (number.isascii() and number.isdecimal() and int(number) > 0):
            raise ValueError(f"{word!r} is not NAME:N with N from 1")
        if any(name == other.name for other in found):
            raise ValueError(f"{name!r} is named twice")
        found.append(PlaceName(name, int(number) if colon else None))
    return tuple(found)


def apps_of(app: App, on: Iterable[PlaceName]) -> dict[str, App]:
    """The command at each place, by name.

    Raises NotFound for an unknown profile, and BadUsage for two of the same service: what one of
    them made could be taken for the other's.
    """
    refuse({"-P and --on": app.options.get("profile")})
    found: dict[str, App] = {}
    origins: dict[str, str] = {}
    for name, _ in on:
        found[name] = app.at(name)
        origin = found[name].settings.origin
        if origin in origins:
            raise BadUsage(f"--on: {origins[origin]} and {name} are the same service, {origin}")
        origins[origin] = name
    return found


def shortened(apps: Iterable[App], ids: Iterable[str]) -> dict[str, str]:
    """For each id the shortest text that stands for it alone at its place."""
    wanted = list(ids)
    found = [app.history.shortest_prefixes(wanted) for app in apps]
    return {each: min((one[each] for one in found), key=len) for each in wanted}
