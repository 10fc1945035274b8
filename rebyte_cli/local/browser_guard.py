"""Who asks: a program on this machine, or a page of some website in its browser.

A page can make a browser send requests to loopback, and use its own host name that resolves to a
loopback address even lets it read the answers. What the browser says about such a request is
enough to refuse it: `Host` is the name in the page's URL, `Origin` and `Sec-Fetch-Site` are where
the request comes from. Programs send none of the latter two.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from ..system.addresses import is_loopback
from .http import Refusal
from .wsgi import HttpRequest


def check_caller(request: HttpRequest, *, is_page: bool = False) -> None:
    """Refuse a request that was not made to this machine by name, or that a foreign page made.

    Raises Refusal: 421 for a `Host` that is not a loopback name, 403 for another `Origin` or
    `Sec-Fetch-Site`. With `is_page` a link on a foreign page may be followed, since the browser
    then shows what it gets and tells that page nothing.
    """
    host = request.header("Host") or ""
    if not is_loopback(_host_name(host)):
        raise Refusal(421, "misdirected_request", "Host must be a loopback name or address")
    origin, site = request.header("Origin"), request.header("Sec-Fetch-Site")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        raise Refusal(403, "foreign_origin", "Requests of other origins are refused")
    followed = (
        is_page
        and request.method in ("GET", "HEAD")
        and request.header("Sec-Fetch-Mode") == "navigate"
        and request.header("Sec-Fetch-Dest") == "document"
    )
    if site not in (None, "same-origin", "none") and not followed:
        raise Refusal(403, "foreign_origin", "Requests of other sites are refused")


def _host_name(host: str) -> str | None:
    """The name in a `Host` header, in lower case; None for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None
