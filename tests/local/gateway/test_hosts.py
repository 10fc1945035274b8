"""Connections to hosts on the list of a run, which go through the user's proxy here: what a name
resolves to is public nowhere in these tests."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.gateway import request_record
from rebyte_cli.local.gateway.allowed_hosts import HostPort
from rebyte_cli.local.gateway.gateway_settings import GatewaySettings, Limits
from rebyte_cli.local.gateway.refusal import GatewayRefusal
from rebyte_cli.local.gateway.upstream import UpstreamConnector, check_address
from rebyte_cli.system.addresses import ANYWHERE
from tests.certificates import certificate
from tests.local.gateway.harness import (
    KEY,
    SECONDS,
    GatewayProcess,
    model,
)
from tests.local.gateway.upstream import (
    ScriptedServer,
    read_all,
    read_exactly,
    read_head,
    tunnelling_proxy,
)
from tests.servers import RawServer, reply

ALLOWED = ("packages.example", "*.mirror.example", "git.example:9418", "Straße.example")


def connect(place: str, *lines: str) -> bytes:
    return "\r\n".join([f"CONNECT {place} HTTP/1.1", f"Host: {place}", *lines, "", ""]).encode()


def echo(sock: socket.socket) -> None:
    """Send back everything, and the end after the end."""
    while data := sock.recv(65536):
        sock.sendall(data)


@contextlib.contextmanager
def behind_proxy(
    folder: Path, script: Callable[[socket.socket], None] = echo, **limits: Any
) -> Iterator[tuple[GatewayProcess, list[bytes], ScriptedServer]]:
    """A gateway whose user's proxy leads every tunnel to a server with `script`."""
    heads: list[bytes] = []
    with (
        ScriptedServer(script) as server,
        ScriptedServer(tunnelling_proxy(server.port, heads)) as proxy,
    ):
        variables = {"HTTPS_PROXY": f"http://me:p%40ss@127.0.0.1:{proxy.port}"}
        with GatewayProcess(folder, allow=ALLOWED, proxy=variables, **limits) as gateway:
            yield gateway, heads, server


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ("packages.example:443", "packages.example:443"),
        ("PACKAGES.example.:443", "packages.example:443"),
        ("packages.example:80", "packages.example:80"),
        ("a.mirror.example:443", "a.mirror.example:443"),
        ("a.b.mirror.example:443", "a.b.mirror.example:443"),
        ("git.example:9418", "git.example:9418"),
        ("xn--strae-oqa.example:443", None),
        ("strasse.example:443", "strasse.example:443"),
    ],
)
def test_a_tunnel_to_an_allowed_host(tmp_path: Path, place: str, asked: str | None) -> None:
    with behind_proxy(tmp_path) as (gateway, heads, _), gateway.connect() as sock:
        sock.sendall(connect(place) + b"hel")  # some clients do not wait for the answer
        head = read_head(sock)
        if asked is None:
            assert head.startswith(b"HTTP/1.1 403 ")
            return
        assert head == b"HTTP/1.1 200 Connection established\r\n\r\n"
        sock.sendall(b"lo")
        assert read_exactly(sock, 5) == b"hello"
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
        (entry,) = gateway.entries(1)
    (sent,) = heads
    assert sent.startswith(f"CONNECT {asked} HTTP/1.1\r\n".encode())
    assert b"\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n" in sent
    assert (entry.method, entry.path, entry.status) == ("CONNECT", "", 200)
    assert f"{entry.host}:{entry.port}" == asked
    assert (entry.sent, entry.received, entry.refused) == (5, 5, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "entry"),
    [
        ("evil.example:443", "evil.example"),
        ("packages.example:22", "packages.example:22"),
        ("git.example:443", "git.example"),
        ("mirror.example:443", "mirror.example"),
        ("evilmirror.example:443", "evilmirror.example"),
        ("packages.example.evil.example:443", "packages.example.evil.example"),
        ("api.anthropic.com:443", "api.anthropic.com"),
        ("8.8.8.8:443", "8.8.8.8"),
        ("[2001:4860:4860::8888]:853", "[2001:4860:4860::8888]:853"),
    ],
)
def test_other_hosts_are_refused_with_what_would_allow_them(
    tmp_path: Path, place: str, entry: str
) -> None:
    with behind_proxy(tmp_path) as (gateway, heads, server):
        for _ in range(2):
            answer = gateway.send(connect(place))
        gateway.entries(2)
        assert heads == []
        assert server.connections == 0
    assert answer.status == 403
    option = f"--allow {entry}"
    assert answer.message == f"{place} is not on the list of this run; allow it with {option}"
    assert request_record.refusals(gateway.record) == {
        entry: request_record.RefusedHost(2, answer.message, option)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", ["[::1]:443", "127.0.0.1:9", "localhost:443", "10.0.0.1:443", "[fd00::1]:8443"]
)
def test_no_option_is_named_for_what_none_allows(tmp_path: Path, place: str) -> None:
    with GatewayProcess(tmp_path, allow=ALLOWED) as gateway:
        answer = gateway.send(connect(place))
        gateway.entries(1)
    assert answer.status == 403
    host = place.rpartition(":")[0].strip("[]")
    assert answer.message == f"{host} is in no public network: no option allows it"
    (refused,) = request_record.refusals(gateway.record).values()
    assert refused.option is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "packages.example",
        "packages.example:",
        "packages.example:0",
        "packages.example:65536",
        "packages.example:443x",
        "packages.example:+443",
        "packages.example:443:443",
        "user@packages.example:443",
        "packages.example@evil.example:443",
        "packages.example%00.evil.example:443",
        "packages.example%2eevil.example:443",
        "packages.example/:443",
        "packages.example#:443",
        "packages..example:443",
        ".packages.example:443",
        "-x.mirror.example:443",
        "x" * 64 + ".mirror.example:443",
        "x." * 130 + "mirror.example:443",
        "*.mirror.example:443",
        "2130706433:443",
        "0x7f000001:443",
        "017700000001:443",
        "127.1:443",
        "0177.0.0.1:443",
        "0x7f.0.0.1:443",
        "127.0.0.1.mirror.example.0x7f:443",
        "[::1%25lo]:443",
        "[fe80::1%eth0]:443",
        "[::1:443",
        "::1:443",
        "http://packages.example:443",
    ],
)
def test_a_host_in_an_unusual_spelling_is_refused(tmp_path: Path, place: str) -> None:
    with behind_proxy(tmp_path) as (gateway, heads, _):
        answer = gateway.send(connect(place))
        assert "in their usual spelling" in answer.message or answer.status == 400
        assert gateway.entries(1)[0].refused == answer.message
        assert heads == []


def test_each_half_of_a_tunnel_ends_by_itself(tmp_path: Path) -> None:
    client_ended = threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"first")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"second"
        client_ended.set()

    with behind_proxy(tmp_path, serve) as (gateway, _, _), gateway.connect() as sock:
        sock.sendall(connect("packages.example:443"))
        read_head(sock)
        assert read_all(sock) == b"first"
        assert not client_ended.is_set()
        sock.sendall(b"second")
        sock.shutdown(socket.SHUT_WR)
        assert client_ended.wait(SECONDS)
        assert gateway.entries(1)[0].received == 5


@pytest.mark.slow
def test_a_tunnel_passes_more_than_sockets_hold_in_both_directions(tmp_path: Path) -> None:
    size = 20_000_000

    def send(sock: socket.socket) -> None:
        sock.sendall(b"x" * size)
        sock.shutdown(socket.SHUT_WR)

    with behind_proxy(tmp_path) as (gateway, _, _), gateway.connect() as sock:
        sock.sendall(connect("packages.example:443"))
        read_head(sock)
        thread = threading.Thread(target=send, args=(sock,))
        thread.start()
        assert len(read_all(sock)) == size
        thread.join(SECONDS)
        (entry,) = gateway.entries(1)
    assert (entry.sent, entry.received) == (size, size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"sent_by_tunnel": 1000}, "more than 1000 bytes were sent through one connection"),
        ({"sent_by_tunnels": 1500}, "more than 1500 bytes were sent by this run"),
        ({"received_by_tunnel": 1000}, "more than 1000 bytes were received"),
    ],
)
def test_what_tunnels_may_carry_is_limited(
    tmp_path: Path, limits: dict[str, Any], text: str
) -> None:
    with behind_proxy(tmp_path, **limits) as (gateway, _, _):
        size = 1001 if "sent_by_tunnel" in limits else 900
        for number in (1, 2):
            with gateway.connect() as sock:
                sock.sendall(connect("packages.example:443"))
                read_head(sock)
                sock.sendall(b"x" * size)
                if number == 2:
                    with contextlib.suppress(ConnectionResetError):
                        for _ in range(100):
                            if sock.recv(65536):
                                sock.sendall(b"x" * size)
            entries = gateway.entries(number)
    assert entries[1].fault == text


def test_a_silent_tunnel_ends(tmp_path: Path) -> None:
    with behind_proxy(tmp_path, idle_seconds=0.2) as (gateway, _, _), gateway.connect() as sock:
        sock.sendall(connect("packages.example:443"))
        read_head(sock)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert gateway.entries(1)[0].fault == "nothing was sent for 0 s"


def test_plain_http_goes_to_allowed_hosts(tmp_path: Path) -> None:
    """Through the proxy in absolute form, with all headers but those of the connection."""
    answer = reply(200, b"package", {"Set-Cookie": "a=b", "Keep-Alive": "5"})
    with RawServer(answer) as proxy:
        variables = {"http_proxy": f"http://me:pw@127.0.0.1:{proxy.port}"}
        with GatewayProcess(tmp_path, allow=ALLOWED, proxy=variables) as gateway:
            raw = (
                "PUT http://Packages.Example/a%2Fb?c=d HTTP/1.1\r\nHost: evil.example\r\n"
                "Content-Length: 3\r\nRange: bytes=0-\r\nProxy-Authorization: Basic x\r\n"
                "Connection: X-Hop\r\nX-Hop: 1\r\nAuthorization: Bearer mine\r\n\r\nabc"
            )
            got = gateway.send(raw.encode())
            (entry,) = gateway.entries(1)
    (asked,) = proxy.requests
    assert asked.path == "http://packages.example/a%2Fb?c=d"
    assert (asked.method, asked.body) == ("PUT", b"abc")
    assert asked.headers == {
        "authorization": "Bearer mine",
        "connection": "close",
        "content-length": "3",
        "host": "packages.example",
        "proxy-authorization": "Basic bWU6cHc=",
        "range": "bytes=0-",
    }
    assert got.body == b"package"
    assert got.headers == {"set-cookie": "a=b", "connection": "close", "content-length": "7"}
    assert (entry.host, entry.port, entry.path) == ("packages.example", 80, "/a%2Fb")


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    [
        "http://evil.example/",
        "http://packages.example:81/",
        "http://u:p@packages.example/",
        "http://packages.example@evil.example/",
        "http://2130706433/",
        "http:///x",
        "http://",
        "https://packages.example/",
        "ftp://packages.example/",
        "packages.example/",
        "HTTP:/x",
    ],
)
def test_plain_http_goes_nowhere_else(tmp_path: Path, address: str) -> None:
    with RawServer(reply(200)) as proxy:
        variables = {"http_proxy": f"http://127.0.0.1:{proxy.port}"}
        with GatewayProcess(tmp_path, allow=ALLOWED, proxy=variables) as gateway:
            answer = gateway.send(
                f"GET {address} HTTP/1.1\r\nHost: packages.example\r\n\r\n".encode()
            )
            assert gateway.entries(1)[0].refused
    assert answer.status in (400, 403)
    assert proxy.connections == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]", "127.0.0.1."],
)
def test_a_service_of_this_machine_is_refused_though_it_is_on_the_list(
    tmp_path: Path, host: str
) -> None:
    """Also when it is a model's, and by a request that would not need a tunnel."""
    with RawServer(reply(200)) as server:
        place = f"{host}:{server.port}"
        allow = [place, host, f"[::ffff:7f00:1]:{server.port}"]
        route = model(f"http://127.0.0.1:{server.port}")
        with GatewayProcess(tmp_path, [route], allow) as gateway:
            for raw in (
                connect(place),
                f"GET http://{place}/v1/files HTTP/1.1\r\nHost: {place}\r\n\r\n".encode(),
                f"POST http://{place}/v1/messages HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
            ):
                answer = gateway.send(raw)
                assert answer.status == 403
                assert "is in no public network" in answer.message
            gateway.entries(3)
        assert server.connections == 0
        (refused,) = request_record.refusals(gateway.record).values()
        assert refused.option is None


# What follows asks the classes: only they can be told what the DNS says.


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Make every name resolve to addresses; those of the last answer are given again and again."""

    def answer(*answers: list[str]) -> list[str]:
        asked: list[str] = []
        left = list(answers)

        def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
            asked.append(host)
            found = left.pop(0) if len(left) > 1 else left[0]
            return [
                (socket.AF_INET6, 1, 6, "", (each, port, 0, 0))
                if ":" in each
                else (socket.AF_INET, 1, 6, "", (each, port))
                for each in found
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return answer


def outside(proxy: dict[str, str] | None = None) -> UpstreamConnector:
    limits = Limits(connect_seconds=0.5)
    return UpstreamConnector(GatewaySettings(0, (), (), "", proxy or {}, {}, limits))


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["2a00:1450:4001::1", "::1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["::ffff:10.0.0.1"],
        ["64:ff9b::10.0.0.1"],
        ["2002:a00:1::1"],
        ["fe80::1"],
        ["fd00::1"],
        ["224.0.0.1"],
        ["255.255.255.255"],
        ["0.0.0.0"],
    ],
)
@pytest.mark.parametrize("proxy", [False, True])
def test_a_name_that_leads_near_is_refused(
    dns: Callable[..., list[str]], addresses: list[str], proxy: bool
) -> None:
    """Before any connection is made, also if only one of its addresses is near."""
    dns(addresses)
    with ScriptedServer(echo) as server:
        variables = {"https_proxy": f"http://127.0.0.1:{server.port}"} if proxy else {}
        with pytest.raises(GatewayRefusal, match="in no public network") as caught:
            outside(variables).to_allowed("https", HostPort("packages.example", server.port))
        assert server.connections == 0
    assert caught.value.status == 403


def test_the_second_answer_of_the_dns_changes_nothing(dns: Callable[..., list[str]]) -> None:
    """The connection goes to an address that was checked. 192.0.2.0/24 would be refused, and a
    public address that answers there is not at hand: this one cannot be reached."""
    with ScriptedServer(echo) as server:
        asked = dns(["8.8.8.8"], ["127.0.0.1"])
        with pytest.raises(GatewayRefusal) as caught:
            outside().to_allowed("https", HostPort("packages.example", server.port))
        assert server.connections == 0
    assert asked == ["packages.example"]
    assert caught.value.status in (502, 504)


def test_the_connection_goes_to_what_was_checked(
    dns: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    monkeypatch.setattr(
        "rebyte_cli.local.gateway.upstream.check_address",
        lambda _family, address, _target: checked.append(address),
    )
    with ScriptedServer(echo) as server:
        asked = dns(["127.0.0.1"], ["127.0.0.2"])
        place = HostPort("packages.example", server.port)
        with outside().to_allowed("https", place).sock as sock:
            assert sock.getpeername() == ("127.0.0.1", server.port)
    assert (asked, checked) == (["packages.example"], ["127.0.0.1"])


def test_the_addresses_of_this_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all its interfaces, also in a public network, of which this machine may have none."""
    monkeypatch.setattr("rebyte_cli.local.gateway.upstream.reach", lambda _host: ANYWHERE)
    for family, own, other in (
        (socket.AF_INET, "127.0.0.9", "8.8.8.8"),
        (socket.AF_INET6, "::1", "2001:4860:4860::8888"),
    ):
        with pytest.raises(GatewayRefusal, match="in no public network"):
            check_address(family, own, HostPort("x.example", 443))
        check_address(family, other, HostPort("x.example", 443))


def test_no_answer_of_a_proxy_is_taken_for_the_hosts(tmp_path: Path) -> None:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 407 Who?\r\nX: y\r\n\r\n")

    with ScriptedServer(serve) as proxy:
        variables = {"ALL_PROXY": f"http://127.0.0.1:{proxy.port}"}
        with GatewayProcess(
            tmp_path, [model("https://model.example")], ALLOWED, proxy=variables
        ) as gateway:
            for answer in (gateway.ask(), gateway.send(connect("packages.example:443"))):
                assert answer.status == 502
                assert "answered 407 for" in answer.message
                assert KEY.encode() not in answer.raw


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1080", "https://proxy.example", "http://[x"])
def test_a_proxy_of_another_kind_is_named(tmp_path: Path, value: str) -> None:
    with GatewayProcess(tmp_path, allow=ALLOWED, proxy={"all_proxy": value}) as gateway:
        answer = gateway.send(connect("packages.example:443"))
    assert answer.status == 502
    assert answer.message.startswith("all_proxy is not")
    assert value not in answer.message


def test_a_model_behind_the_users_proxy(tmp_path: Path) -> None:
    """TLS goes through the tunnel, and the proxy does not see the key."""
    made = certificate(tmp_path, "model.example")
    heads: list[bytes] = []
    with (
        RawServer(reply(200, b"{}"), tls=made.server) as server,
        ScriptedServer(tunnelling_proxy(server.port, heads)) as proxy,
        GatewayProcess(
            tmp_path,
            [model("https://model.example")],
            proxy={"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"},
            certificates={"SSL_CERT_FILE": made.ca_file},
        ) as gateway,
    ):
        assert gateway.ask().status == 200
    assert heads[0].startswith(b"CONNECT model.example:443 HTTP/1.1\r\n")
    assert server.requests[0].headers["host"] == "model.example"
