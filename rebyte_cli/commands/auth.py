"""The API key: store it, remove it, see which one is used."""

from __future__ import annotations

from typing import Any

import click

from ..app import App
from ..errors import KEYS_PAGE, BadUsage, KeyRejected, RebyteError
from ..output.records import AUTH, Records
from ._base import define_group, define_in


@define_group("auth")
def command() -> None:
    """Keep the API key in the keyring of the operating system.

    A key belongs to the service (scheme, host and port) that it was stored for, and to a
    profile: `-P` says which. REBYTE_API_KEY wins over it when no profile is named, and a
    profile's key_command takes its place.

    Examples:

      rebyte auth login
      pass show rebyte | rebyte -P work auth login --with-key
      rebyte auth status -o json
    """


@define_in(command, "login", kind=AUTH, statuses=(3, 5))
@click.option("--with-key", is_flag=True, help="Read the key from stdin instead of asking.")
@click.option(
    "--insecure-storage",
    is_flag=True,
    help="Keep the key in a file that only you can read, not in the keyring.",
)
def login(app: App, with_key: bool, insecure_storage: bool) -> Records:
    """Ask for the API key, check it against the API, and store it.

    The key is not shown while it is typed. It is never taken as an argument, where other users
    of the machine could see it.

    Examples:

      rebyte auth login
      printf %s "$KEY" | rebyte auth login --with-key
      rebyte -P ci auth login --with-key --insecure-storage < key.txt
    """
    from ..config import credentials

    settings = app.settings
    if settings.is_local:
        raise BadUsage("the profile `local` needs no key")
    if not insecure_storage:
        # Before somebody looks up and types a key that then has no place to go.
        credentials.check_keyring(interactive=app.interactive, note=app.note)
    key = _from_stdin(app) if with_key else _ask(app)
    with app.spinner("Checking the key"):
        app.client_for(key=key).list_tasks(limit=1)
    where = credentials.store_key(
        settings,
        key,
        app.environment,
        interactive=app.interactive,
        insecure=insecure_storage,
        note=app.note,
    )
    app.note(f"Stored the key of profile {settings.profile} for {settings.origin}: {where}")
    in_use = credentials.source_of_key(settings, app.environment)
    if in_use not in ("keyring", f"file {credentials.FILE_NAME}"):
        app.note(f"It is not used as things are: the key comes from {in_use}")
    return Records(AUTH, [_record(app, source=where, key=key, accepted=True)])


@define_in(command, "logout", statuses=(3, 4))
def logout(app: App) -> None:
    """Remove the stored key of the profile.

    Examples:

      rebyte auth logout
      rebyte -P work auth logout
    """
    from ..config import credentials

    profile = app.settings.profile
    origins = credentials.forget_keys(
        profile, app.environment, interactive=app.interactive, note=app.note
    )
    for origin in origins:
        app.note(f"Removed the key of profile {profile} for {origin}")
    if not origins:
        app.note(f"No key is stored for profile {profile}")
    if app.environment.get(credentials.VARIABLE):
        app.note(f"{credentials.VARIABLE} is still set")


@define_in(command, "status", kind=AUTH, statuses=(3, 5))
def status(app: App) -> Records:
    """Say which key would be used, and whether the API accepts it.

    The key itself is never shown, only its last four characters. The status is 3 when there is
    no key or it is rejected, 5 when the API cannot be reached.

    Examples:

      rebyte auth status
      rebyte -P work auth status -o json | jq .accepted
    """
    from ..config.credentials import find_key

    source = key = None
    try:
        found = find_key(app.settings, app.environment, interactive=app.interactive, note=app.note)
        source, key = found.source, found.key
        with app.spinner("Asking the API"):
            app.client_for(key=key).list_tasks(limit=1)
    # Not an error on the way to an answer: that the key is not accepted is the answer.
    except RebyteError as problem:
        refused = False if isinstance(problem, KeyRejected) else None
        record = _record(app, source=source, key=key, accepted=refused, problem=problem)
        return Records(AUTH, [record, problem])
    return Records(AUTH, [_record(app, source=source, key=key, accepted=True)])


def _record(
    app: App,
    *,
    source: str | None,
    key: str | None,
    accepted: bool | None,
    problem: RebyteError | None = None,
) -> dict[str, Any]:
    from ..config.credentials import ending

    settings = app.settings
    base_url = settings.base_url.value
    if settings.is_local and key is not None:
        base_url = app.service.base_url
    return {
        "profile": settings.profile,
        "baseUrl": base_url,
        "origin": settings.origin,
        "source": source,
        "keyEnding": ending(key) if key else None,
        "accepted": accepted,
        "error": {"code": problem.code, "message": problem.message} if problem else None,
    }


def _from_stdin(app: App) -> str:
    from ..api.urls import check_key

    # Bytes, because the text layer would stop at what is not UTF-8, and show it.
    data = app.stdin.buffer.read(65536)
    return check_key(data.decode("utf-8", "replace"))


def _ask(app: App) -> str:
    from ..api.urls import check_key

    if not app.interactive:
        raise BadUsage(
            "there is nobody to ask for the key", hint="give it on stdin with --with-key"
        )
    app.note(f"Get a key at {KEYS_PAGE}")
    return check_key(click.prompt("API key", hide_input=True, err=True))
