"""`--on`: several places for one command, each by the name of its profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..app import App
from ..errors import BadUsage

if TYPE_CHECKING:
    from ..batch.place import BatchPlace

# Seconds. The local service has a task at once or never, and its list is never stale; but it
# shares a machine with the agents.
LOCAL_SEARCH, LOCAL_SCAN = 2.0, 5.0


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
    if app.options.get("profile"):
        raise BadUsage("-P and --on cannot be used together")
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


def own_options(app: App, resend_after: float | None) -> dict[str, Any]:
    """What of `BatchOptions` the service of a profile decides."""
    from ..batch.place import SEND_AGAIN_AFTER

    is_local, pace = app.settings.is_local, app.pace
    if is_local:
        pace = pace._replace(look_for=LOCAL_SEARCH, shortest_scan=LOCAL_SCAN)
    if resend_after is None:
        resend_after = LOCAL_SEARCH if is_local else SEND_AGAIN_AFTER
    return {
        "send_again_after": resend_after,
        "pace": pace,
        "limits_runs": app.settings.is_own_service,
        "is_exact": is_local,
    }


def place_of(
    app: App, own: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> BatchPlace:
    """The service of a profile as a place of a batch."""
    from ..batch.place import BatchPlace

    settings = app.settings
    return BatchPlace(
        settings.profile,
        settings.origin,
        app.client_for,
        app.history,
        is_local=settings.is_local,
        own=own,
        defaults=defaults or {},
        located=app.known.update,
    )


def places_of(
    apps: Mapping[str, App],
    on: Iterable[PlaceName],
    differing: Mapping[str, Mapping[str, Any]],
    resend_after: float | None,
    most: int,
) -> list[BatchPlace]:
    """The places of a batch: those of `--on`, with `most` lines where it says no number, or one.

    `differing` are the defaults of lines that are not the same at all of them.
    """
    running = {name: {"max_running": number or most} for name, number in on}
    return [
        place_of(app, own_options(app, resend_after) | running.get(name, {}), differing[name])
        for name, app in apps.items()
    ]


def split_defaults(
    every: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What is the same at all places, and by place what is not. Workspaces are the first one's."""
    first = next(iter(every.values()))
    names = {name for fields in every.values() for name in fields} - {"workspaceId"}
    same = {
        name
        for name in names
        if all(name in one and one[name] == first.get(name) for one in every.values())
    }
    common = {name: first[name] for name in first if name in same or name == "workspaceId"}
    own = {
        place: {name: fields[name] for name in fields if name in names - same}
        for place, fields in every.items()
    }
    return common, own
