"""Store, check and remove the API key."""

from __future__ import annotations

from typing import Any

import click

from ..app import App
from ..errors import KEYS_PAGE, BadUsage, KeyProblem, KeyRejected, RebyteError
from ..output.records import AUTH, Records
from ._base import Group
from ._prompts import ask_hidden
from ._stdin import stdin


@click.group("auth", cls=Group)
def command() -> None:
    """Keep the API key in the keyring of the operating system.

    A key belongs to a profile (-P) and to the service (scheme, host and port) that it was stored
    for. REBYTE_API_KEY takes precedence when no profile is named; a profile's key_command
    replaces the stored key.

    Examples:

      rebyte auth login
      pass show rebyte | rebyte -P work auth login --with-key
      rebyte auth status -o json
    """


@command.command("login", kind=AUTH, statuses=(3, 5))
@click.option("--with-key", is_flag=True, help="Read the key from stdin instead of asking.")
@click.option(
    "--insecure-storage",
    is_flag=True,
    help="Store the key in a file that only you can read instead of the keyring.",
)
def login(app: App, with_key: bool, insecure_storage: bool) -> Records:
    """Ask for an API key, check it against the API, and store it.

    The key is not shown while you type it. It cannot be given as an argument, since other users
    of the machine could see it there.

    Examples:

      rebyte auth login
      printf %s "$KEY" | rebyte auth login --with-key
      rebyte -P ci auth login --with-key --insecure-storage < key.txt
    """
    from ..api.urls import check_key
    from ..config.credentials import FoundKey
    from ..config.credentials_file import FILE_NAME

    settings = app.settings
    if settings.is_own_service:
        raise BadUsage(f"the profile `{settings.profile}` needs no key")
    if not insecure_storage:
        # Before the user looks up and types a key that could then not be stored.
        app.keys.keyring.check()
    # Bytes, because the text layer would stop at what is not UTF-8, and show it.
    key = check_key(
        stdin().buffer.read(65536).decode("utf-8", "replace") if with_key else _ask(app)
    )
    with app.spinner("Checking the key"):
        app.client_for(key=FoundKey(key)).list_tasks(limit=1)
    where = app.keys.store(settings, key, insecure=insecure_storage)
    app.note(f"Stored the key of profile {settings.profile} for {settings.origin}: {where}")
    try:
        in_use = app.keys.source(settings)
    except KeyProblem as problem:
        app.note(f"The stored key is not used: {problem.message}")
    else:
        if in_use not in ("keyring", f"file {FILE_NAME}"):
            app.note(f"The stored key is not used: the key comes from {in_use}")
    source = f"file {FILE_NAME}" if insecure_storage else where
    return Records(AUTH, [_record(app, source=source, key=key, accepted=True)])


@command.command("logout", statuses=(3, 4))
def logout(app: App) -> None:
    """Remove the stored key of the profile.

    Examples:

      rebyte auth logout
      rebyte -P work auth logout
    """
    from ..config.credentials import VARIABLE

    profile = app.settings.profile
    origins = app.keys.forget(profile)
    for origin in origins:
        app.note(f"Removed the key of profile {profile} for {origin}")
    if not origins:
        app.note(f"No key is stored for profile {profile}")
    if app.environment.get(VARIABLE):
        app.note(f"{VARIABLE} is still set")


@command.command("status", kind=AUTH, statuses=(3, 5))
def status(app: App) -> Records:
    """Show which key would be used and whether the API accepts it.

    Only the last four characters of the key are shown. The status is 3 when there is no key or
    it is rejected, 5 when the API cannot be reached.

    Examples:

      rebyte auth status
      rebyte -P work auth status -o json | jq .accepted
    """
    source = key = None
    try:
        found = app.keys.find(app.settings)
        key, source = found
        with app.spinner("Asking the API"):
            app.client_for(key=found).list_tasks(limit=1)
    # A key that is not accepted is the answer, not a failure to answer.
    except RebyteError as problem:
        refused = False if isinstance(problem, KeyRejected) else None
        record = _record(app, source=source, key=key, accepted=refused, problem=problem)
        if app.format == "table" and not app.fields:  # stderr says it, with the hint
            del record["error"]
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


def _ask(app: App) -> str:
    if not app.interactive:
        raise BadUsage(
            "cannot ask for the key without a terminal", hint="Pass it on stdin with --with-key"
        )
    app.note(f"Get a key at {KEYS_PAGE}")
    return ask_hidden("API key")
