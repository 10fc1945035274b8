"""Which proxy is the user's, for which host."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rebyte_cli.local.gateway.allowed_hosts import HostPort
from rebyte_cli.local.gateway.user_proxy import Proxy, ProxyUnusable, proxy_for

PROXY = Proxy("proxy.example", 3128, None)


@pytest.mark.parametrize(
    ("variables", "scheme", "expected"),
    [
        ({}, "https", None),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, "https", PROXY),
        ({"https_proxy": "proxy.example:3128"}, "https", PROXY),
        ({"HTTP_PROXY": "http://proxy.example:3128"}, "https", None),
        ({"HTTP_PROXY": "http://proxy.example:3128"}, "http", PROXY),
        ({"ALL_PROXY": "http://proxy.example:3128/"}, "http", PROXY),
        ({"https_proxy": "", "HTTPS_PROXY": "http://proxy.example:3128"}, "https", None),
        ({"HTTPS_PROXY": "http://proxy.example"}, "https", Proxy("proxy.example", 80, None)),
    ],
)
def test_the_variable_for_a_scheme(
    variables: Mapping[str, str], scheme: str, expected: Proxy | None
) -> None:
    assert proxy_for(variables, scheme, HostPort("host.example", 443)) == expected


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_direct"),
    [
        ("*", "host.example", True),
        ("example", "host.example", True),
        (".example", "host.example", True),
        ("*.example", "host.example", True),
        ("ample", "host.example", False),
        ("other.example, HOST.example", "host.example", True),
        ("host.example:443", "host.example", True),
        ("host.example:8443", "host.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("[2a00::1]", "2a00::1", True),
        ("10.0.0.0/99,x/y", "host.example", False),
        ("", "127.0.0.1", True),
        ("", "localhost", True),
    ],
)
def test_no_proxy(no_proxy: str, host: str, is_direct: bool) -> None:
    variables = {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": no_proxy}
    found = proxy_for(variables, "https", HostPort(host, 443))
    assert found == (None if is_direct else PROXY)


@pytest.mark.parametrize(
    "value", ["socks5h://x:1", "https://x", "http://:1", "http://[x", "http://x:y"]
)
def test_what_is_no_http_proxy_is_not_repeated(value: str) -> None:
    """It may hold a password."""
    with pytest.raises(ProxyUnusable) as caught:
        proxy_for({"HTTPS_PROXY": value}, "https", HostPort("host.example", 443))
    assert "HTTPS_PROXY" in str(caught.value)
    assert value.removeprefix("http://") not in str(caught.value)
