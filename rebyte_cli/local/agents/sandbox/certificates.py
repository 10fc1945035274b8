"""Which certificates of the user the jail shows: files that variables such as SSL_CERT_FILE name.

A variable is no proof that nothing else is there: its value may be relative, and then a repository
says what it leads to, or be a folder of much more than certificates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from ....system.untrusted import read_file
from ..exposed import CERTIFICATE_VARIABLES
from . import jail
from .user_tools import why_not

MOST_BYTES = 10_000_000  # of one file; that of the Mozilla authorities has 250,000
MOST_FILES = 2000  # in a folder


def shown(outside: Mapping[str, str], own: Sequence[str]) -> list[str]:
    """The paths among the values of the environment's variables that the jail shows.

    Absolute ones, of certificates without private keys, in no place that is private, such as
    rebyte's `own` folders. The rest is left out; a program in the jail does not find it.
    """
    named = dict.fromkeys(outside.get(name, "") for name in CERTIFICATE_VARIABLES)
    return [path for path in named if path.startswith("/") and _may_be_shown(path, own)]


def _may_be_shown(path: str, own: Sequence[str]) -> bool:
    real = os.path.realpath(path)
    if any(f"{real}/".startswith(f"/etc/{name}/") for name in jail.ETC):
        return False  # it is shown anyway
    if why_not(path, own):
        return False
    try:
        files = list(_files(real))
    except OSError:
        return False
    return 0 < len(files) <= MOST_FILES and all(map(_holds_certificates, files))


def _files(path: str) -> Iterator[str]:
    """The file, or the files of the folder; a folder in it counts as one, and is none."""
    if not os.path.isdir(path):
        yield path
        return
    with os.scandir(path) as entries:
        for count, entry in enumerate(entries):
            if entry.is_symlink() and not os.path.exists(entry.path):
                continue  # leads nowhere
            yield entry.path
            if count > MOST_FILES:
                return


def _holds_certificates(path: str) -> bool:
    """Whether it is a file of certificates in PEM, and of nothing secret."""
    content = read_file(os.path.realpath(path), MOST_BYTES) or b""
    return b"CERTIFICATE-----" in content and b"PRIVATE KEY-----" not in content
