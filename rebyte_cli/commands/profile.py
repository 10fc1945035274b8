"""Manage profiles: named sets of settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import BadUsage, MissingKey, Next, NotFound
from ..output.records import PROFILE, SETTING, RecordKind, RecordList, Records
from ._base import Group, choose_format
from ._options import completer

if TYPE_CHECKING:
    from ..config.settings import Config

name_argument = click.argument("name", metavar="NAME", shell_complete=completer("own_profiles"))


def _names(_ctx: click.Context, _param: click.Parameter, _incomplete: str) -> list[str]:
    from ..config.fields import FIELDS

    return list(FIELDS)


def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For TAB, which finds it by this name: each setting up to its value."""
    return [f"{name}=" for name in _names(ctx, param, incomplete)]


@click.group("profile", cls=Group)
@click.pass_obj
def command(app: App) -> None:
    """Named sets of settings: base URL, defaults for create, output, where the key comes from.

    Settings: base_url, executor, model, skills (commas between), output, key_command (split as
    a shell does), env_key (true or false), ca_bundle, timeout (seconds), history (true or false),
    ssh and remote_command (another machine, see `rebyte man places`).
    The profile `local` always exists: it is the service inside this command, and needs no account.

    Examples:

      rebyte profile create work executor=opencode skills=deep-research,pdf
      rebyte profile use work
      rebyte -P work profile show
    """
    app.mends_config = True
    choose_format(app)


@command.command("list", kind=PROFILE, statuses=())
def list_(app: App) -> RecordList:
    """List the profiles.

    Example:

      rebyte profile list -o id
    """
    config = app.config
    return _listed(PROFILE, [_record(config, name) for name in config.names()], config)


@command.command("show", kind=SETTING, statuses=(4,))
@click.argument("name", metavar="[NAME]", required=False, shell_complete=completer("profiles"))
def show(app: App, name: str | None) -> RecordList:
    """Print each setting and its source. NAME is the same as -P NAME.

    Examples:

      rebyte profile show
      rebyte profile show work -o json
    """
    from ..config.fields import FIELDS
    from ..config.settings import resolve

    options = {**app.options, "profile": name} if name else app.options
    settings = resolve(options, app.environment, app.config)
    try:
        key = app.keys.source(settings)
    except MissingKey:
        key = "none"
    rows: list[dict[str, Any]] = [
        {"name": "profile", "value": settings.profile, "source": settings.profile_source},
        {"name": "key", "value": None, "source": key},
    ]
    rows += [{"name": field, **getattr(settings, field)._asdict()} for field in FIELDS]
    return _listed(SETTING, rows, app.config)


@command.command("create", kind=PROFILE, statuses=())
@click.argument("name", metavar="NAME")
@click.argument("values", metavar="[KEY=VALUE]…", nargs=-1, shell_complete=settings)
@click.option("--use", "use_it", is_flag=True, help="Also make it the default profile.")
def create(app: App, name: str, values: tuple[str, ...], use_it: bool) -> Records:
    """Create a profile.

    Examples:

      rebyte profile create work
      rebyte profile create staging base_url=https://rebyte.example.com/v1 --use
      rebyte profile create box ssh=me@box.example
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise BadUsage("a profile name has at most 64 letters, digits, dots, _ and -")
    table = _parsed(values)
    _not_local(name)

    with _editing(app, name) as (document, config):
        if name in config.profiles:
            raise BadUsage(
                f"profile {name} already exists", hint=f"rebyte profile set {name} KEY=VALUE"
            )
        document.setdefault("profiles", {})[name] = table
        if use_it:
            document["default_profile"] = name
    return Records(PROFILE, [_record(app.config, name)])


@command.command("set", kind=PROFILE, statuses=(4,))
@name_argument
@click.argument("values", metavar="KEY=VALUE…", nargs=-1, required=True, shell_complete=settings)
def set_(app: App, name: str, values: tuple[str, ...]) -> Records:
    """Change settings of a profile.

    `rebyte man config` explains each KEY.

    Examples:

      rebyte profile set default output=json
      rebyte profile set work skills=pdf,deep-research timeout=120
      rebyte profile set local executor=claude
      rebyte profile set work key_command='pass show rebyte/work'
    """
    from ..api.urls import origin_of
    from ..config.fields import LOCAL, LOCAL_FIELDS

    table = _parsed(values)
    if name == LOCAL and not set(table) <= LOCAL_FIELDS:
        raise BadUsage(
            f"the profile `local` is built in and takes only {', '.join(sorted(LOCAL_FIELDS))}"
        )

    with _editing(app, name) as (document, config):
        config.profile(name)
        document.setdefault("profiles", {}).setdefault(name, {}).update(table)
    if "base_url" in table:
        new = origin_of(table["base_url"])
        old = app.keys.origins(name)
        if old and new not in old:
            app.note(
                f"The key stored for {old[0]} is not sent to {new}. Store one for it with "
                + Next("-P", name, "auth", "login")
            )
    return Records(PROFILE, [_record(app.config, name)])


@command.command("unset", kind=PROFILE, statuses=(4,))
@name_argument
@click.argument("keys", metavar="KEY…", nargs=-1, required=True, shell_complete=_names)
def unset(app: App, name: str, keys: tuple[str, ...]) -> Records:
    """Reset settings of a profile to their defaults.

    Example:

      rebyte profile unset work skills output
    """
    from ..config.fields import check_name

    with _editing(app, name) as (document, config):
        table = config.profile(name)
        for key in keys:
            # A setting that is not known can be removed if it is there.
            if key not in table:
                check_name(key)
            document.get("profiles", {}).get(name, {}).pop(key, None)
    return Records(PROFILE, [_record(app.config, name)])


@command.command("use", kind=PROFILE, statuses=(4,))
@click.argument("name", metavar="NAME", shell_complete=completer("profiles"))
def use(app: App, name: str) -> Records:
    """Make a profile the default, used when -P is not given.

    Examples:

      rebyte profile use work
      rebyte profile use local
    """
    with _editing(app, name) as (document, config):
        config.profile(name)
        document["default_profile"] = name
    return Records(PROFILE, [_record(app.config, name)])


@command.command("delete", statuses=(3, 4))
@click.argument(
    "names", metavar="NAME…", nargs=-1, required=True, shell_complete=completer("own_profiles")
)
@click.option("--keep-key", is_flag=True, help="Keep the stored key.")
def delete(app: App, names: tuple[str, ...], keep_key: bool) -> None:
    """Delete profiles and their stored keys.

    Example:

      rebyte profile delete staging
    """
    from ..config.json_schema import edit_config

    for name in names:
        _not_local(name)
        app.config.profile(name)
    for name in names:
        # The key first: nothing would lead to the key of a profile that is gone.
        origins = [] if keep_key else app.keys.forget(name)
        with edit_config(app.config_path, note=app.note) as document:
            found = document.get("profiles", {}).pop(name, None)
            if document.get("default_profile") == name:
                del document["default_profile"]
                app.note("The default profile is `default` again")
        if found is None and not origins:
            raise NotFound(f"profile {name} has no settings and no key")
        app.note(f"Deleted profile {name}" + (" and its key" if origins else ""))
    _note_unknown(app)


@contextmanager
def _editing(app: App, name: str) -> Iterator[tuple[dict[str, Any], Config]]:
    """Change a profile under the lock of the file: its document, and what that said before."""
    from ..config.json_schema import edit_config
    from ..config.settings import Config

    with edit_config(app.config_path, note=app.note) as document:
        yield document, Config(document, path=app.config_path)
        if {"base_url", "ssh"} <= document.get("profiles", {}).get(name, {}).keys():
            raise BadUsage(
                f"profile {name} would have both base_url and ssh, and a service is in one place",
                hint="Unset the other one first: " + Next("profile", "unset", name, "KEY"),
            )
    _note_unknown(app)


def _listed(kind: RecordKind, rows: list[dict[str, Any]], config: Config) -> RecordList:
    """The rows, and after them the names in the file that mean nothing, as an error."""
    unknown = config.unknown
    return RecordList(kind, [*rows, *([unknown] if unknown else [])])


def _note_unknown(app: App) -> None:
    """Read the changed file, and say which names in it still mean nothing."""
    for cached in ("config", "settings"):
        app.__dict__.pop(cached, None)
    if app.config.unknown is not None:
        app.warn(app.config.unknown.message)


def _not_local(name: str) -> None:
    if name == "local":
        raise BadUsage("the profile `local` is built in and cannot be created or deleted")


def _parsed(values: Iterable[str]) -> dict[str, Any]:
    from ..config.fields import parse_value

    table = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals:
            # Not repeated: it may be a key in the wrong place.
            raise BadUsage("a setting is given as KEY=VALUE", hint="For example output=json")
        table[key.strip()] = parse_value(key.strip(), value)
    return table


def _record(config: Config, name: str) -> dict[str, Any]:
    from ..api.urls import BASE_URL
    from ..config.fields import FIELDS

    values = {field: config.value(name, field) for field in FIELDS}
    if name != "local" and not values["ssh"]:
        values["base_url"] = values["base_url"] or BASE_URL
    set_here = {
        _camel_case(field): value
        for field, value in values.items()
        if value is not None or field == "base_url"
    }
    return {"name": name, "default": name == config.default_profile, **set_here}


def _camel_case(field: str) -> str:
    first, *more = field.split("_")
    return first + "".join(map(str.title, more))
