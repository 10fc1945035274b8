"""Where a repository is: `owner/repo` on GitHub, a URL, or a folder on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from ....system import git
from ....system.untrusted import url_parts

CLONE_SECONDS = 1800
# The login of a clone, on its way from the request to git. Like all REBYTE_*, not for the agent.
USER, PASSWORD = "REBYTE_CLONE_USER", "REBYTE_CLONE_PASSWORD"
# In a password that was not encoded, any character may be but `/`.
_WEB = re.compile(r"((?:\w+(?:\+|::))?(?:http|ftp)s?://)(?:[^/]*@)?([^?#]*)", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)([^/:@]*):[^/]*(?=@)")


def clone_url(repository: str) -> str:
    """The URL of `owner/repo` on GitHub; anything else is a URL or a path already."""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", repository):
        return f"https://github.com/{repository.removesuffix('.git')}.git"
    return repository


def local_path(repository: str) -> Path | None:
    """The folder of a repository on this machine, or None for one elsewhere."""
    if repository.startswith("file://"):
        return Path(unquote(repository.removeprefix("file://")))
    return Path(repository) if repository.startswith("/") else None


def without_secrets(url: str) -> str:
    """The URL without user, password, query and fragment, one that is none too.

    They are not for the agent. The user of ssh, which is no secret, stays.
    """
    found = _WEB.match(url)
    return _PASSWORD.sub(r"\1", url, count=1) if found is None else found[1] + found[2]


def split_login(url: str) -> tuple[str, dict[str, str]]:
    """The URL without user and password, and variables that hand them to `login`."""
    parts = url_parts(url)
    if parts is None or parts.scheme not in ("http", "https"):
        return without_secrets(url), {}
    given, _, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
    if not given:
        return url, {}
    user, _, password = given.partition(":")
    variables = {USER: unquote(user), PASSWORD: unquote(password)}
    return url.replace(f"{given}@", "", 1), variables


def login(url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables with which git logs in where `url` is, if the environment has a login for it.

    Neither git's arguments, which `ps` shows, nor the user's own store of passwords has it.
    """
    parts = url_parts(url)
    if USER not in environment or parts is None or parts.scheme not in ("http", "https"):
        return {}
    name = f"credential.{parts.scheme}://{parts.netloc}.helper"
    helper = f'!f() {{ printf "username=%s\\npassword=%s\\n" "${USER}" "${PASSWORD}"; }}; f'
    # The empty one drops the user's own helpers, which would keep the password.
    return {
        **git.settings_of([(name, ""), (name, helper)]),
        USER: environment[USER],
        PASSWORD: environment[PASSWORD],
    }
