"""Cloning a repository from where the user said, and from nowhere that its server says instead.

git would follow a redirect to any host, this machine included, with the login that the user has
there. But forges redirect to the new name of a repository, and from http to https.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

from ....system import git
from ....system.git import GitFailed
from .source import CLONE_SECONDS, login, without_secrets

MOST_REDIRECTS = 3
# Of what a server can send git elsewhere for, the last two are off unless the user's git has them.
STAY = (
    "-c", "http.followRedirects=false", "-c", "transfer.bundleURI=false",
    "-c", "fetch.uriProtocols=",
)  # fmt: skip
# git prints the headers of responses: it has no other way to tell where a redirect leads.
WITH_HEADERS = {"GIT_TRACE_CURL": "1", "GIT_TRACE_CURL_NO_DATA": "1"}
REDIRECT = re.compile("The requested URL returned error: 30[12378]")
LOCATION = re.compile("<= Recv header: location: *([!-~]+)", re.IGNORECASE)
LOGIN = re.compile("(?<=//)[^/]*@")
FIRST = "/info/refs?service=git-upload-pack"  # what git asks for first, below the address
PORTS = {"http": ":80", "https": ":443"}


def clone(url: str, folder: str | os.PathLike[str], options: Sequence[str]) -> None:
    """Run `git clone` with these options, and the login of the environment if that has one.

    A redirect is followed on the same host and port, or from http to https there. Raises GitFailed,
    with the address of any other redirect.
    """
    place = url
    for _ in range(MOST_REDIRECTS):
        words = [*STAY, "clone", *options, "--", place, os.fspath(folder)]
        extra = login(place, os.environ) | WITH_HEADERS
        try:
            nowhere = subprocess.DEVNULL
            git.run(words, None, extra, nowhere, timeout=CLONE_SECONDS)
            return
        except GitFailed as error:
            locations = LOCATION.findall(error.said)
            if not locations or not REDIRECT.search(error.said):
                raise
        # As the user's own `url.*.insteadOf` spells it, which in a repository may be another's, and
        # not as git's message does, which the server can forge.
        asked = git.line(["ls-remote", "--get-url", "--", place], os.sep)
        found = followed(asked, locations[-1])
        if found is None:
            there = LOGIN.sub("", locations[-1]).removesuffix(FIRST)
            raise GitFailed(
                f"its server redirects to {there}, which is not followed; if you trust that"
                " address, name it with -g"
            )
        place = found
    raise GitFailed("its server redirects git again and again")


def followed(asked: str, location: str) -> str | None:
    """The address to clone instead of `asked`, or None if git is not to follow that `Location`."""
    try:
        here = urlsplit(without_secrets(asked))
        there = urlsplit(urljoin(f"{asked.rstrip('/')}{FIRST}", location))
    except ValueError:
        return None
    sites = {one.netloc.lower().removesuffix(PORTS.get(one.scheme, "")) for one in (here, there)}
    site, *others = sites
    is_same = here.scheme == there.scheme in PORTS
    is_safer = (here.scheme, there.scheme) == ("http", "https") and not re.search(r":\d+$", site)
    address = f"{there.scheme}://{site}{there.path.removesuffix(urlsplit(FIRST).path)}"
    is_first = f"{address}{FIRST}" == there._replace(netloc=site).geturl()
    return address if not others and (is_same or is_safer) and is_first else None
