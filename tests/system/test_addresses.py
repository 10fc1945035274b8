"""Which addresses are near, in every spelling."""

from __future__ import annotations

import pytest

from rebyte_cli.system.addresses import (
    ANYWHERE,
    THIS_LINK,
    THIS_MACHINE,
    THIS_NETWORK,
    is_loopback,
    reach,
)


@pytest.mark.parametrize("host", ["localhost", "::1", "127.0.0.1", "127.255.255.255"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert reach(host) == THIS_MACHINE


@pytest.mark.parametrize(
    "host",
    [
        "127.999.1.1",
        "127.0.0.256",
        "127.1",
        "127.0.0.1.",
        "127.0.0.1.example",
        "127.\u0660.0.1",
        "128.0.0.1",
        "",
        None,
        "a.b",
    ],
)
def test_not_loopback(host: str | None) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "distance"),
    [
        ("0.0.0.0", THIS_MACHINE),
        ("::", THIS_MACHINE),
        ("127.1", THIS_MACHINE),
        ("2130706433", THIS_MACHINE),
        ("0x7f000001", THIS_MACHINE),
        ("0177.0.0.1", THIS_MACHINE),
        ("127.0.0.1.", THIS_MACHINE),
        ("a.localhost", THIS_MACHINE),
        ("::ffff:127.0.0.1", THIS_MACHINE),
        ("::ffff:7f00:1", THIS_MACHINE),
        ("::127.0.0.1", THIS_MACHINE),
        ("64:ff9b::127.0.0.1", THIS_MACHINE),
        ("2002:7f00:1::", THIS_MACHINE),
        ("169.254.169.254", THIS_LINK),
        ("168.63.129.16", THIS_LINK),
        ("fe80::1", THIS_LINK),
        ("fe80::1%eth0", THIS_LINK),
        ("2a00::1%1", THIS_LINK),
        ("10.0.0.1", THIS_NETWORK),
        ("100.64.0.1", THIS_NETWORK),
        ("100.100.100.200", THIS_NETWORK),
        ("172.31.255.255", THIS_NETWORK),
        ("192.0.0.192", THIS_NETWORK),
        ("192.88.99.1", THIS_NETWORK),
        ("192.168.0.1", THIS_NETWORK),
        ("198.18.0.1", THIS_NETWORK),
        ("224.0.0.251", THIS_NETWORK),
        ("240.0.0.1", THIS_NETWORK),
        ("255.255.255.255", THIS_NETWORK),
        ("64:ff9b::10.0.0.1", THIS_NETWORK),
        ("64:ff9b:1::8.8.8.8", THIS_MACHINE),
        ("::ffff:0:8.8.8.8", THIS_NETWORK),
        ("100::1", THIS_NETWORK),
        ("2001:db8::1", THIS_NETWORK),
        ("2001:0:808:808::f7f7:f7f7", THIS_NETWORK),
        ("2002:808:808::1", THIS_NETWORK),
        ("5f00::1", THIS_NETWORK),
        ("fc00::1", THIS_NETWORK),
        ("fd00:ec2::254", THIS_NETWORK),
        ("fec0::1", THIS_NETWORK),
        ("ff02::1", THIS_NETWORK),
        ("8.8.8.8", ANYWHERE),
        ("2a00:1450::1", ANYWHERE),
        ("64:ff9b::8.8.8.8", ANYWHERE),
        ("packages.example", ANYWHERE),
    ],
)
def test_how_far_away_a_host_is(host: str, distance: int) -> None:
    assert reach(host) == distance
