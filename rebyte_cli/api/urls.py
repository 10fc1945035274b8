"""What base URLs, keys, ids and signed URLs must look like before they are used.

Only `urllib.parse` is imported: settings are resolved on every run of the command, most of
which never open a connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urljoin, urlsplit

from ..errors import BadUsage, KeyProblem
from ..system.addresses import is_loopback, reach

BASE_URL = "https://api.rebyte.ai/v1"  # seed document
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_PATH = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ") | _HOST | frozenset("/~!$'()*+,;=:")
# What a path may hold as it is; % among them, so that what was quoted stays so.
_AS_IS = "/%:@!$&'()*+,;=-._~"
PAGE = 100  # the largest `limit` of a list (vendor docs)
SEE_OTHER = 303  # the response to a request that was carried out is elsewhere (RFC 9110, 15.4.4)
LONGEST_ID = 512  # characters; ids are opaque, and UUIDs in every example (seed document)
_IN_IDS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-.~:@+=,%")


def check_base_url(url: str) -> str:
    """A base URL without its trailing slash, or BadUsage saying what is wrong with it.

    https only, except for this machine; no user name or password, no query, no fragment. The
    URL itself is not repeated when it holds a password.
    """
    url = url.strip()
    parts = _split(url, "base URL")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise BadUsage("the base URL must not contain a user name or password")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise BadUsage("the base URL must not contain a query or a fragment")
    _must_be_safe(parts, "base URL")
    path = parts.path.rstrip("/")
    if not set(path) <= _PATH or {".", ".."} & set(path.split("/")):
        raise BadUsage("the base URL has a path that cannot be used")
    return origin_of(url) + path


def check_target_url(url: str, *, base: str) -> str:
    """A URL that the API at `base` sends us to: a signed URL, or the redirect of a download.

    It must be https, or http on this machine, and no closer to this machine than the API itself:
    loopback only from loopback, private and link-local addresses never from a public one. BadUsage
    otherwise. The URL is never repeated in a message, since its query is a signature.
    """
    parts = _split(url, "signed URL")
    if "@" in parts.netloc:
        raise BadUsage("the signed URL holds a user name or password; it is not used")
    _must_be_safe(parts, "signed URL")
    if reach(parts.hostname or "") < reach(urlsplit(base).hostname or ""):
        raise BadUsage("the signed URL points to a local network that the API is not part of")
    return url


def leads_to_result(status: int, location: str, *, url: str, path: str) -> bool:
    """Whether a redirect says where to find what a POST has created.

    A 303 does, wherever it leads: the POST was carried out (RFC 9110, 15.4.4). Others do if they
    name something in the collection that the POST adds to, at the same origin: after a POST of
    `/tasks`, `/tasks/ID`, while `/tasks/` only says how to spell the address. `url` is where the
    POST went, and `path` its part below the base URL.
    """
    if status == SEE_OTHER:
        return True
    sent = urlsplit(url)
    try:
        target = urlsplit(urljoin(url, location))
    except ValueError:
        return False
    found, collection = target.path.rstrip("/"), path.split("/")[1]
    if not 300 <= status < 400 or (target.scheme, target.netloc) != (sent.scheme, sent.netloc):
        return False
    is_below = found.startswith(f"{sent.path.removesuffix(path)}/{collection}/")
    return is_below and found != sent.path.rstrip("/")


def check_webhook_url(url: str) -> str:
    """A URL that deliveries may be sent to: https (vendor docs), or http to this machine.

    BadUsage for any other, and for one with a user name or a password, which every list of
    webhooks would show.
    """
    parts = _split(url, "URL of a webhook")
    if "@" in parts.netloc:
        raise BadUsage(
            "the URL of a webhook must not contain a user name or password",
            hint="--secret sends a secret with each delivery",
        )
    _check_host(parts, "URL of a webhook")
    if ":" not in (parts.hostname or "") and not _is_dns_name(parts.hostname or ""):
        raise BadUsage("the URL of a webhook has a host name that cannot be used")
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise BadUsage(
            "the URL of a webhook must be https",
            hint="http:// is only accepted for localhost and 127.0.0.1",
        )
    return url


def _is_dns_name(host: str) -> bool:
    """Whether labels and the whole are as long and as spelled as the DNS has them (RFC 1035)."""
    host = host.removesuffix(".")
    labels = host.split(".")
    fits = len(host) <= 253 and all(0 < len(label) < 64 for label in labels)
    return fits and not any(label.startswith("-") or label.endswith("-") for label in labels)


@lru_cache(maxsize=64)  # asked before every call, mostly about the same few URLs
def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, as one string; the default port is left out.

    `https://API.rebyte.ai:443/v1` gives `https://api.rebyte.ai`. A key belongs to one of these.
    """
    parts = _split(url, "URL")
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    if parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme):
        return f"{parts.scheme}://{shown}"
    return f"{parts.scheme}://{shown}:{parts.port}"


def check_key(key: str) -> str:
    """A key without surrounding white space, or KeyProblem. The key is never repeated.

    A newline inside would end the header and let the rest of the key show up in the error of
    the HTTP library, so everything but visible ASCII is refused here.
    """
    key = key.strip()
    if not key:
        raise KeyProblem("the API key is empty")
    if not all("!" <= char <= "~" for char in key):
        raise KeyProblem(
            "the API key contains a space, a line break or a character outside ASCII",
            hint="Copy it again; a key is one word that starts with rbk_",
        )
    return key


def is_id(value: Any) -> bool:
    """Whether a value can be an id: 1 to 512 letters, digits and `-._~:@+=,%`.

    Ids are opaque, but they become words of commands (`rebyte list -o id | xargs rebyte wait`) and
    segments of paths. So nothing in them means anything to a shell or to xargs, and they begin with
    a letter, a digit, `_` or `.`, unlike options, `@last` and `~user`.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID or value in (".", ".."):
        return False
    if not (value[0].isalnum() or value[0] in "_."):
        return False
    # The first test is four times as fast, and a list may have thousands.
    return _IN_IDS.issuperset(value) or all(char in _IN_IDS or char.isalnum() for char in value)


def check_id(value: str, what: str) -> str:
    """An id as the API may hand it out (see `is_id`); BadUsage for what cannot be one."""
    if not is_id(value):
        raise BadUsage(f"{shown_id(value)} is not a {what}")
    return value


def shown_id(value: Any) -> str:
    """What is no id, as a message shows it."""
    return repr(value) if isinstance(value, str) and len(value) <= 80 else "a long or odd value"


def path_id(value: str, what: str = "id") -> str:
    """An id as it goes into a path: percent-encoded. BadUsage as `check_id`."""
    return quote(check_id(value, what), safe="")


def address(base_url: str, path: str, query: Mapping[str, Any] | None) -> tuple[str, str]:
    """The URL of a call, and its path as messages show it: without the query.

    `path` starts after the base URL and may contain a query. It may also start with
    the `/v1` that the base URL ends with, as the vendor's pages write it. None in `query` is
    left out.
    """
    path, _, own = path.partition("#")[0].partition("?")
    path = "/" + path.lstrip("/")
    if base_url.endswith("/v1") and path.startswith("/v1/"):
        path = path[3:]
    pairs = {} if query is None else {k: v for k, v in query.items() if v is not None}
    try:
        encoded = "&".join(filter(None, (quote(own, safe=_AS_IS + "?"), urlencode(pairs))))
        url = base_url + quote(path, safe=_AS_IS)
    except UnicodeEncodeError:
        raise BadUsage("the path contains an invalid character") from None
    return (f"{url}?{encoded}" if encoded else url), path


def _split(url: str, what: str) -> SplitResult:
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise BadUsage(
            f"the {what} contains an invalid character",
            hint=None if url.isascii() else "Write a host outside ASCII in punycode (xn--…)",
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadUsage(f"the {what} cannot be read") from None
    try:
        _ = parts.port
    except ValueError:
        port = parts.netloc.rpartition(":")[2]
        raise BadUsage(f"the {what} has port {port[:20]}, which is not 0 to 65535") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise BadUsage(f"the {what} must start with https:// and name a host")
    return parts


def _check_host(parts: SplitResult, what: str) -> None:
    host = parts.hostname or ""
    if not set(host) <= _HOST and not (":" in host and set(host) <= set("0123456789abcdef:.")):
        raise BadUsage(f"the {what} has a host name that cannot be used")


def _must_be_safe(parts: SplitResult, what: str) -> None:
    _check_host(parts, what)
    host = parts.hostname or ""
    if parts.scheme != "https" and not is_loopback(host):
        raise BadUsage(
            f"the {what} must be https: http would send the key unencrypted to {host}",
            hint="http:// is only accepted for localhost and 127.0.0.1",
        )
