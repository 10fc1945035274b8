"""The key goes to its own origin, over a line that is safe, and nowhere else."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api import connection
from rebyte_cli.api.retry import RetryPolicy
from rebyte_cli.api.transport import Transport
from rebyte_cli.errors import (
    BadUsage,
    NetworkError,
    OutcomeUnknown,
    RebyteError,
    Redirected,
    Unsent,
)
from tests.certificates import certificate
from tests.servers import (
    KEY,
    Answer,
    Line,
    RawServer,
    closed_port,
    hang_up,
    json_reply,
    reply,
    reset,
    transport_to,
)

pytestmark = pytest.mark.usefixtures("home")


def test_every_request_says_who_asks_and_carries_the_key() -> None:
    with RawServer(json_reply({"id": "t1"})) as server:
        transport_to(server).send("GET", "/tasks/t1", repeat=RetryPolicy.SAFE)
    (request,) = server.requests
    assert request.path == "/v1/tasks/t1"
    assert request.headers["api_key"] == KEY
    assert request.headers["user-agent"].startswith("rebyte-cli/")
    assert "authorization" not in request.headers
    assert "cookie" not in request.headers


def test_requests_of_a_kind_are_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a tenth of the time of a create, and a batch alternates between two kinds."""
    from requests import PreparedRequest

    prepared: list[Any] = []
    prepare = PreparedRequest.prepare

    def counted(request: PreparedRequest, **named: Any) -> None:
        prepared.append(named)
        prepare(request, **named)

    monkeypatch.setattr(PreparedRequest, "prepare", counted)
    with RawServer(json_reply({"id": "t1"})) as server:
        transport = transport_to(server)
        for number in range(5):
            body = {"prompt": "x" * (number + 1)}
            transport.send("POST", "/tasks", body=body, repeat=RetryPolicy.IF_UNSENT)
            transport.send("GET", f"/tasks/t{number}", repeat=RetryPolicy.SAFE)
    assert len(prepared) == 2
    posts = [request for request in server.requests if request.method == "POST"]
    assert [request.json["prompt"] for request in posts] == ["x", "xx", "xxx", "xxxx", "xxxxx"]
    gets = [request for request in server.requests if request.method == "GET"]
    assert [request.path for request in gets] == [f"/v1/tasks/t{number}" for number in range(5)]
    assert {request.headers["api_key"] for request in server.requests} == {KEY}
    assert not any("content-length" in request.headers for request in gets)


def test_the_pool_of_a_host_is_found_once_and_not_after_it_was_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from urllib3 import PoolManager

    found: list[Any] = []
    find = PoolManager.connection_from_host

    def counted(self: PoolManager, *args: Any, **named: Any) -> Any:
        found.append(find(self, *args, **named))
        return found[-1]

    monkeypatch.setattr(PoolManager, "connection_from_host", counted)
    with RawServer(json_reply({"id": "t1"})) as server:
        transport = transport_to(server)
        for _ in range(3):
            transport.send("GET", "/tasks/t1", repeat=RetryPolicy.SAFE)
        assert len(found) == 1
        transport.close()
        transport.send("GET", "/tasks/t1", repeat=RetryPolicy.SAFE)
    assert len(found) == 2
    assert found[0] is not found[1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_case_16_redirect_to_another_host(status: int, method: str) -> None:
    with RawServer(json_reply({"id": "stolen"})) as thief:
        away = reply(status, b"go away", {"Location": f"{thief.base_url}/tasks"})
        with RawServer(away) as server:
            repeat = RetryPolicy.SAFE if method == "GET" else RetryPolicy.IF_UNSENT
            # By a 303 the POST was carried out.
            error = OutcomeUnknown if (method, status) == ("POST", 303) else Redirected
            with pytest.raises(error):
                transport_to(server).send(method, "/tasks", body={}, repeat=repeat)
    assert thief.requests == []
    assert len(server.requests) == 1
    assert (Redirected.exit_status, OutcomeUnknown.exit_status) == (5, 6)


def test_case_17_redirect_from_https_to_http(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    with RawServer(json_reply({})) as plain:
        down = reply(302, b"", {"Location": f"{plain.base_url}/tasks"})
        with RawServer(down, tls=tls.server) as server, pytest.raises(Redirected):
            transport_to(server, ca_bundle=tls.ca_file).send(
                "GET", "/tasks", repeat=RetryPolicy.SAFE
            )
    assert plain.requests == []


def test_case_18_a_create_answered_by_a_redirect_is_an_error_and_no_get() -> None:
    def script(request: object) -> bytes:
        return reply(302, b"", {"Location": "/v1/tasks"})

    with RawServer(script) as server, pytest.raises(Redirected):
        transport_to(server).send(
            "POST", "/tasks", body={"prompt": "x"}, repeat=RetryPolicy.IF_UNSENT
        )
    assert [request.method for request in server.requests] == ["POST"]


def test_a_redirect_with_an_endless_body_is_not_read() -> None:
    def act(line: Line) -> None:
        line.send(b"HTTP/1.1 302 X\r\nLocation: /\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            line.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    with RawServer(lambda request: act) as server, pytest.raises(Redirected):
        transport_to(server, timeout=60).send("GET", "/tasks", repeat=RetryPolicy.SAFE)


def test_case_19_netrc_adds_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = home / ".netrc"
    netrc.write_text("machine 127.0.0.1 login planted password trap\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer(json_reply({})) as server:
        transport_to(server).send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
    assert "authorization" not in server.requests[0].headers


def test_cookies_are_not_kept() -> None:
    with RawServer(json_reply({}, headers={"Set-Cookie": "a=b"})) as server:
        wire = transport_to(server)
        wire.send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
        wire.send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
    assert "cookie" not in server.requests[1].headers


def test_the_key_is_refused_to_another_origin() -> None:
    with RawServer(json_reply({})) as server:
        wire = transport_to(server)
        for url in ("https://evil.example/v1", f"http://127.0.0.1:{server.port + 1}/v1"):
            with pytest.raises(BadUsage, match="belongs to"):
                wire.with_key(url, {})


def test_case_22_a_signed_put_goes_without_the_key(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"a,b\n1,2\n")
    with RawServer(reply(200)) as store, RawServer(json_reply({})) as server:
        transport_to(server).put_signed(f"{store.origin}/bucket/x?signature=s", path, "text/csv")
    (put,) = store.requests
    assert KEY.encode() not in put.raw
    assert (put.method, put.path) == ("PUT", "/bucket/x?signature=s")
    assert put.headers["content-type"] == "text/csv"
    assert put.headers["content-length"] == "8"
    assert put.body == b"a,b\n1,2\n"
    assert server.requests == []


def test_case_22_a_signed_url_of_the_api_itself_gets_no_key_either(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    with RawServer(reply(200)) as server:
        transport_to(server).put_signed(f"{server.origin}/up?sig=1", path, "text/plain")
    assert KEY.encode() not in server.requests[0].raw


def test_case_23_untrusted_certificate_and_unreadable_ca_file_differ(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    missing = str(tmp_path / "nowhere.pem")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    with RawServer(json_reply({}), tls=tls.server) as server:
        with pytest.raises(Unsent) as untrusted:
            transport_to(server).send("GET", "/tasks", repeat=RetryPolicy.SAFE)
        connections = server.connections
        with pytest.raises(BadUsage) as unreadable:
            transport_to(server, ca_bundle=missing).send("GET", "/tasks", repeat=RetryPolicy.SAFE)
        with pytest.raises(BadUsage) as empty:
            transport_to(server, ca_bundle=str(garbage)).send(
                "GET", "/tasks", repeat=RetryPolicy.SAFE
            )
        transport_to(server, ca_bundle=tls.ca_file).send("GET", "/tasks", repeat=RetryPolicy.SAFE)
    assert "not trusted" in untrusted.value.message
    assert connections == 1, "another try cannot end better"
    assert f"cannot read the CA file {missing}: No such file" in unreadable.value.message
    assert "holds no certificate" in empty.value.message
    assert len(server.requests) == 1


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"])
def test_ca_variables_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    tls = certificate(tmp_path)
    monkeypatch.setenv(variable, tls.ca_file)
    with RawServer(json_reply({"a": 1}), tls=tls.server) as server:
        answer = transport_to(server).send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
    assert answer.data == {"a": 1}


# Proxies: what they see, and what their refusals prove

CREATED = json_reply({"id": "t1"}, 201)


def test_loopback_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(json_reply({})) as proxy, RawServer(json_reply({"here": 1})) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.origin)
        answer = transport_to(server).send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
    assert answer.data == {"here": 1}
    assert proxy.requests == []


class Tunnel:
    """A proxy that connects every CONNECT to one server of ours."""

    def __init__(self, server: RawServer) -> None:
        self._port = server.port

    def __call__(self, line: Line) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as far:
            line.send(b"HTTP/1.1 200 Connected\r\n\r\n")
            threading.Thread(target=_pump, args=(far, line.sock), daemon=True).start()
            _pump(line.sock, far)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):  # what ends on one side ends on the other
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def far_client(ca_file: str | None = None, **options: object) -> RebyteClient:
    """A client of a host that only the proxy can reach."""
    options = {"timeout": 60, "random": lambda: 0.0, **options}
    transport = Transport("https://api.invalid/v1", KEY, ca_bundle=ca_file, **options)  # type: ignore[arg-type]  # a dict of options has no types
    return RebyteClient(transport=transport)


def test_a_call_through_a_proxy_is_encrypted_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = certificate(tmp_path, "api.invalid")
    with RawServer(CREATED, tls=tls.server) as server:
        tunnel = Tunnel(server)
        with RawServer(lambda request: tunnel) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:hidden-pw@127.0.0.1:{proxy.port}")
            for _ in range(2):
                assert far_client(tls.ca_file).create_task("x") == {"id": "t1"}
    assert [request.headers["api_key"] for request in server.requests] == [KEY, KEY]
    assert "proxy-authorization" not in server.requests[0].headers
    assert [request.method for request in proxy.requests] == ["CONNECT", "CONNECT"]
    assert KEY.encode() not in b"".join(request.raw for request in proxy.requests)


def test_a_proxy_that_speaks_tls_is_trusted_by_the_same_cas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = certificate(tmp_path, "api.invalid", "localhost")
    with RawServer(CREATED, tls=tls.server) as server:
        tunnel = Tunnel(server)
        with RawServer(lambda request: tunnel, tls=tls.server) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
            assert far_client(tls.ca_file).create_task("x") == {"id": "t1"}
            with pytest.raises(Unsent, match="not trusted"):
                far_client().create_task("x")
    assert len(server.requests) == 1


def test_a_create_that_is_lost_behind_the_proxy_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = certificate(tmp_path, "api.invalid")
    with RawServer(lambda request: reset, tls=tls.server) as server:
        tunnel = Tunnel(server)
        with RawServer(lambda request: tunnel) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
            with pytest.raises(OutcomeUnknown):
                far_client(tls.ca_file).create_task("x")
    assert len(server.requests) == 1


def test_the_environment_is_searched_for_the_proxies_of_a_host_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[str] = []
    search = connection.get_environ_proxies
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "near.example")
    monkeypatch.setattr(
        connection, "get_environ_proxies", lambda url: searched.append(url) or search(url)
    )
    pool = connection.ConnectionPool(ca_bundle=None, size=1)
    for _ in range(3):
        assert pool.proxies("https://far.example/v1/tasks")["https"] == "http://proxy.example:3128"
        assert pool.proxies("https://near.example/v1/tasks") == {}
    assert len(searched) == 2


def test_no_proxy_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(502)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        monkeypatch.setenv("NO_PROXY", "other.example,.invalid")
        with pytest.raises(Unsent, match=r"no such host: api\.invalid"):
            far_client().get_task("t")
    assert proxy.requests == []


def refused(monkeypatch: pytest.MonkeyPatch, proxy: str) -> RebyteError:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(RebyteError) as caught:
        far_client().create_task("x")
    assert "hidden-pw" not in f"{caught.value.as_dict()}{caught.value!r}"
    return caught.value


def test_a_proxy_that_wants_another_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(407)) as proxy:
        error = refused(monkeypatch, f"http://me:hidden-pw@127.0.0.1:{proxy.port}")
    (asked,) = proxy.requests  # it would want it the second time as well
    assert (asked.method, asked.path) == ("CONNECT", "api.invalid:443")
    given = asked.headers["proxy-authorization"].split()[1]
    assert base64.b64decode(given) == b"me:hidden-pw"
    assert KEY.encode() not in asked.raw
    assert isinstance(error, Unsent)
    assert "407" in error.message


@pytest.mark.parametrize("answer", [reply(502), hang_up], ids=["502", "hangs up"])
def test_a_create_that_the_proxy_refused_is_provably_unsent(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    with RawServer(lambda request: answer) as proxy:
        error = refused(monkeypatch, proxy.origin)
    assert isinstance(error, Unsent)
    assert [request.method for request in proxy.requests] == ["CONNECT"] * 4


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused(monkeypatch, f"http://me:hidden-pw@127.0.0.1:{closed_port()}")
    assert isinstance(error, Unsent)
    assert "proxy 127.0.0.1 refused the connection" in error.message


@pytest.mark.parametrize(
    "proxy",
    [
        "http://me:hidden-pw@",
        "me:hidden-pw@:3128",
        "http://me:hidden-pw@h:0",
        "http://me:hidden-pw@h:99999",
        "nonsense://me:hidden-pw@h:1",
    ],
)
def test_a_proxy_variable_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    error = refused(monkeypatch, proxy)
    assert isinstance(error, BadUsage)
    assert "HTTPS_PROXY" in error.message


def test_a_proxy_for_something_else_may_make_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTP_PROXY", "http://me@")
    with pytest.raises(Unsent, match="no such host"):
        far_client().get_task("t")


def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    tls = certificate(tmp_path, "other.example")
    with RawServer(CREATED, tls=tls.server) as server, pytest.raises(Unsent) as caught:
        RebyteClient(transport=transport_to(server, ca_bundle=tls.ca_file)).create_task("x")
    assert "not trusted" in caught.value.message
    assert server.requests == []


def test_the_cas_of_the_system_are_not_trusted_beside_those_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The system's own are where OpenSSL looks by itself, which SSL_CERT_FILE moves.
    named, system = tmp_path / "named", tmp_path / "system"
    named.mkdir()
    system.mkdir()
    trusted, other = certificate(named), certificate(system)
    monkeypatch.setenv("SSL_CERT_FILE", other.ca_file)
    assert ssl.create_default_context().get_ca_certs() != []
    with RawServer(CREATED, tls=other.server) as server, pytest.raises(Unsent):
        RebyteClient(transport=transport_to(server, ca_bundle=trusted.ca_file)).create_task("x")


# Names that a DNS server resolves to this machine


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Host names and their IP addresses; add to it."""
    known: dict[str, str] = {}
    really = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **named: Any) -> Any:
        return really(known.get(host, host), *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_case_64_a_name_that_leads_to_this_machine_is_not_followed(
    tmp_path: Path, names: dict[str, str], address: str
) -> None:
    names["files.example"] = address
    tls = certificate(tmp_path, "files.example")
    with RawServer(reply(200), tls=tls.server) as server:
        wire = Transport("https://api.example/v1", KEY, ca_bundle=tls.ca_file, random=lambda: 0.0)
        url = f"https://files.example:{urlsplit(server.origin).port}/up?sig=1"
        with pytest.raises(NetworkError, match="in a local network that the API is not part of"):
            wire.put_signed(url, b"x", "text/plain")
    assert server.requests == []


def test_an_api_that_is_here_itself_may_name_what_is_here(
    tmp_path: Path, names: dict[str, str]
) -> None:
    """A deployment on one machine, reached by its names."""
    names.update({"api.example": "127.0.0.1", "files.example": "127.0.0.1"})
    tls = certificate(tmp_path, "api.example", "files.example")
    with RawServer(json_reply({"id": "t1"}), tls=tls.server) as server:
        base = f"https://api.example:{urlsplit(server.origin).port}/v1"
        wire = Transport(base, KEY, ca_bundle=tls.ca_file, random=lambda: 0.0)
        wire.send("GET", "/tasks/t1", repeat=RetryPolicy.SAFE)
        wire.put_signed(
            f"https://files.example:{urlsplit(server.origin).port}/up", b"x", "text/plain"
        )
    assert [request.method for request in server.requests] == ["GET", "PUT"]
