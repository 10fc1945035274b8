"""Where the key may go: base URLs, origins, keys, ids."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from rebyte_cli.api.urls import (
    address,
    check_base_url,
    check_key,
    check_target_url,
    origin_of,
    path_id,
)
from rebyte_cli.errors import BadUsage, KeyProblem


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://api.rebyte.ai/v1", "https://api.rebyte.ai/v1"),
        ("https://API.Rebyte.AI:443/v1/", "https://api.rebyte.ai/v1"),
        ("https://rebyte.example:8443", "https://rebyte.example:8443"),
        (" http://127.0.0.1:8787/v1\n", "http://127.0.0.1:8787/v1"),
        ("http://localhost/v1", "http://localhost/v1"),
        ("http://[::1]:8787/v1", "http://[::1]:8787/v1"),
    ],
)
def test_a_base_url_is_kept_in_one_spelling(given: str, kept: str) -> None:
    assert check_base_url(given) == kept


@pytest.mark.parametrize(
    "url",
    [
        "http://api.rebyte.ai/v1",
        "http://127.0.0.1.evil.example/v1",
        "http://localhost.evil.example",
        "http://127.evil.example.com",
        "http://0.0.0.0/v1",
        "http://[::ffff:10.0.0.1]/v1",
    ],
)
def test_case_20_http_off_loopback_is_refused(url: str) -> None:
    with pytest.raises(BadUsage, match="must be https"):
        check_base_url(url)


@pytest.mark.parametrize("url", ["https://user:pass-word@api.rebyte.ai/v1", "https://@h/v1"])
def test_case_21_user_info_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(BadUsage) as caught:
        check_base_url(url)
    assert "user name" in caught.value.message
    assert "pass-word" not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.rebyte.ai/v1",
        "ftp://api.rebyte.ai",
        "https://",
        "https:///v1",
        "https://api.rebyte.ai/v1?x=1",
        "https://api.rebyte.ai/v1#x",
        "https://api.rebyte.ai/v1?",
        "https://api.rebyte.ai:99999/v1",
        "https://api.rebyte.ai:port/v1",
        "https://api.rebyte.ai\\@evil.example/v1",
        "https://api.rebyte.ai/v1/../v2",
        "https://api.re\nbyte.ai/v1",
        "https://api.rebyte.ai/v 1",
        "https://rébyte.ai/v1",
        "https://[::1/v1",
        "https://a%2eb/v1",
    ],
)
def test_a_base_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(BadUsage):
        check_base_url(url)


def test_an_origin_leaves_out_the_default_port_and_the_case() -> None:
    assert origin_of("https://API.rebyte.ai:443/v1/tasks?x") == "https://api.rebyte.ai"
    assert origin_of("http://127.0.0.1:80") == "http://127.0.0.1"
    assert origin_of("https://api.rebyte.ai:80") == "https://api.rebyte.ai:80"
    assert origin_of("http://[::1]:8787/v1") == "http://[::1]:8787"
    assert origin_of("https://api.rebyte.ai") != origin_of("https://api.rebyte.ai.evil.example")


@pytest.mark.parametrize("tail", ["\n", "\r\n", " ", "\t"])
def test_case_12_space_around_a_key_is_trimmed(tail: str) -> None:
    assert check_key("rbk_abc" + tail) == "rbk_abc"


@pytest.mark.parametrize("key", ["rbk_a\nbc", "rbk_a\rbc", "rbk_ä", "rbk a", "rbk_\x00a", "\x7f"])
def test_case_13_a_key_that_is_not_one_word_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(KeyProblem) as caught:
        check_key(key)
    assert key not in str(caught.value.as_dict())


def test_an_empty_key_is_a_problem() -> None:
    with pytest.raises(KeyProblem):
        check_key(" \n")


@pytest.mark.parametrize(
    "value",
    [
        *("", ".", "..", "a/b", "a?b#c", "a\\b", "a b", "a\tb", "a\u00a0b"),
        *(
            "-a",
            "--exec=x",
            "@last",
            "~a",
            "=a",
            ":a",
            "%1",
            "a'b",
            'a"b',
            "a$b",
            "a`b",
            "a*",
            "a;b",
        ),
        *("a\n", "a\x00", "\x7f", "\x85", "\ud800", "\u202e", "a" * 513, None, 7, ["a"]),
    ],
)
def test_invalid_ids_are_refused(value: Any) -> None:
    with pytest.raises(BadUsage):
        path_id(value)


@pytest.mark.parametrize(
    "value",
    [
        *("a", "7", "_", "a.b", "a:b", "a-", "a~b", "a@b", "a+b=", "a,b"),
        *("..a", "a%2fb", "..%2f..", "ä", "x" * 512),
    ],
)
def test_any_other_id_is_one_segment_of_the_path(value: str) -> None:
    url, shown = address("https://h/v1", f"/tasks/{path_id(value)}/content", None)
    path = urlsplit(url).path
    assert urlsplit(url)[3:] == ("", "")
    assert [unquote(part) for part in path.split("/")] == ["", "v1", "tasks", value, "content"]
    assert shown == f"/tasks/{path_id(value)}/content"


def test_an_address_keeps_what_was_quoted_and_drops_what_is_none() -> None:
    base = "https://h/v1"
    assert address(base, "/tasks", {"limit": 5, "include": None}) == (
        f"{base}/tasks?limit=5",
        "/tasks",
    )
    assert address(base, "tasks?limit=1", {"offset": 2})[0] == f"{base}/tasks?limit=1&offset=2"
    assert address(base, "/v1/tasks", None) == (f"{base}/tasks", "/tasks")
    assert address(base, "/a%2Fb c#d", None)[0] == f"{base}/a%2Fb%20c"
    assert address(base, "//evil.example/x", None)[0] == f"{base}/evil.example/x"
    assert address("https://h", "@evil.example", None)[0] == "https://h/@evil.example"


PUBLIC = "https://api.rebyte.ai/v1"
PRIVATE = "https://10.1.2.3/v1"
LOCAL = "http://127.0.0.1:8000/v1"
NEAR = [
    "https://127.0.0.1/x", "https://localhost/x", "https://a.localhost/x", "https://localhost./x",
    "https://[::1]/x", "https://[::ffff:127.0.0.1]/x", "https://0.0.0.0/x", "https://[::]/x",
    "https://127.1/x", "https://2130706433/x", "https://0x7f.1/x", "https://0x7f000001/x",
    "https://017700000001/x",
]  # fmt: skip
LINK_LOCAL = ["https://169.254.169.254/latest", "https://[fe80::1]/x"]
PRIVATES = [
    "https://10.0.0.1/x",
    "https://192.168.1.1/x",
    "https://172.16.0.1/x",
    "https://[fd00::1]/x",
]


@pytest.mark.parametrize("url", [*NEAR, *LINK_LOCAL, *PRIVATES])
def test_case_64_a_public_api_leads_into_no_local_network(url: str) -> None:
    with pytest.raises(BadUsage):
        check_target_url(url, base=PUBLIC)


@pytest.mark.parametrize("url", [*NEAR, *LINK_LOCAL])
def test_case_64_a_private_api_leads_no_nearer_than_itself(url: str) -> None:
    with pytest.raises(BadUsage):
        check_target_url(url, base=PRIVATE)
    assert check_target_url(PRIVATES[0], base=PRIVATE) == PRIVATES[0]


def in_ipv6(address: str) -> dict[str, str]:
    """An IPv4 address as a gateway, a tunnel or a system would take it out of an IPv6 one."""
    number = int(IPv4Address(address))
    high, low = f"{number >> 16:x}", f"{number & 0xFFFF:x}"
    flipped = number ^ 0xFFFFFFFF
    return {
        "NAT64": f"64:ff9b::{address}",
        "local NAT64 (/96)": f"64:ff9b:1::{address}",
        "local NAT64 (/48)": f"64:ff9b:1:{high}:{low[:-2] or 0}:{low[-2:]}00::",
        "6to4": f"2002:{high}:{low}::1",
        "Teredo": f"2001:0:808:808::{flipped >> 16:x}:{flipped & 0xFFFF:x}",
        "mapped": f"::ffff:{address}",
        "compatible": f"::{address}",
    }


@pytest.mark.parametrize("form", in_ipv6("10.0.0.1"))
def test_case_64_an_address_inside_another_counts(form: str) -> None:
    for near in ("127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1"):
        url = f"https://[{in_ipv6(near)[form]}]/x"
        with pytest.raises(BadUsage):
            check_target_url(url, base=PUBLIC)
    for near in ("127.0.0.1", "169.254.169.254"):
        url = f"https://[{in_ipv6(near)[form]}]/x"
        with pytest.raises(BadUsage):
            check_target_url(url, base=PRIVATE)
    if "local" not in form and form not in ("Teredo", "6to4"):  # of which none is for the public
        public = f"https://[{in_ipv6('8.8.8.8')[form]}]/x"
        assert check_target_url(public, base=PUBLIC) == public


@pytest.mark.parametrize("base", [PUBLIC, PRIVATE, LOCAL])
def test_a_target_is_https_unless_it_is_here(base: str) -> None:
    for url in ("https://store.example/x?sig=1", "https://8.8.8.8/x"):
        assert check_target_url(url, base=base) == url
    for url in (
        "http://store.example/x",
        "http://8.8.8.8/x",
        "ftp://store.example",
        "https://a@b/",
    ):
        with pytest.raises(BadUsage):
            check_target_url(url, base=base)
    here = "http://127.0.0.1:9000/x"
    if base == LOCAL:
        assert check_target_url(here, base=base) == here
    else:
        with pytest.raises(BadUsage):
            check_target_url(here, base=base)


def test_loopback_is_an_address_of_four_octets() -> None:
    with pytest.raises(BadUsage, match="must be https"):
        check_base_url("http://127.999.1.1/v1")
