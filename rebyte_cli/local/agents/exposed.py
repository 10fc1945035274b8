"""What a jail can show of the machine: folders under names of their own, and variables."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
# Some have a password: for programs that share the network of this machine.
PROXY_VARIABLES = tuple(each for name in _PROXIES for each in (name, name.lower()))
# Variables that every program in a jail gets, where they are set outside.
SHARED_VARIABLES = (
    "TERM", "LANG", "LANGUAGE", "TZ", "COLORTERM",
    "LC_ADDRESS", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION", "LC_MEASUREMENT",
    "LC_MESSAGES", "LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME",
    *PROXY_VARIABLES,
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
)  # fmt: skip
CERTIFICATE_VARIABLES = SHARED_VARIABLES[-5:]


class Mount(NamedTuple):
    """A folder outside, and the name it has for the agent."""

    outside: Path
    inside: str
