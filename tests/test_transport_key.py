"""The key goes to its own origin, over a line that is safe, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebyte_cli.api.retry import RetryPolicy
from rebyte_cli.errors import BadUsage, Redirected, Unsent

from .certificates import certificate
from .servers import (
    KEY,
    Line,
    RawServer,
    json_reply,
    reply,
    wire_to,
)

pytestmark = pytest.mark.usefixtures("home")


def test_every_request_says_who_asks_and_carries_the_key() -> None:
    with RawServer(json_reply({"id": "t1"})) as server:
        wire_to(server).send("GET", "/tasks/t1", repeat=RetryPolicy.SAFE)
    (request,) = server.requests
    assert request.path == "/v1/tasks/t1"
    assert request.headers["api_key"] == KEY
    assert request.headers["user-agent"].startswith("rebyte-cli/")
    assert "authorization" not in request.headers
    assert "cookie" not in request.headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_case_16_redirect_to_another_host(status: int, method: str) -> None:
    with RawServer(json_reply({"id": "stolen"})) as thief:
        away = reply(status, b"go away", {"Location": f"{thief.base_url}/tasks"})
        with RawServer(away) as server:
            repeat = RetryPolicy.SAFE if method == "GET" else RetryPolicy.IF_UNSENT
            with pytest.raises(Redirected) as caught:
                wire_to(server).send(method, "/tasks", body={}, repeat=repeat)
    assert thief.requests == []
    assert len(server.requests) == 1
    assert caught.value.exit_status == 5


def test_case_17_redirect_from_https_to_http(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    with RawServer(json_reply({})) as plain:
        down = reply(302, b"", {"Location": f"{plain.base_url}/tasks"})
        with RawServer(down, tls=tls.server) as server, pytest.raises(Redirected):
            wire_to(server, ca_bundle=tls.ca_file).send("GET", "/tasks", repeat=RetryPolicy.SAFE)
    assert plain.requests == []


def test_case_18_a_create_answered_by_a_redirect_is_an_error_and_no_get() -> None:
    def script(request: object) -> bytes:
        return reply(302, b"", {"Location": "/v1/tasks"})

    with RawServer(script) as server, pytest.raises(Redirected):
        wire_to(server).send("POST", "/tasks", body={"prompt": "x"}, repeat=RetryPolicy.IF_UNSENT)
    assert [request.method for request in server.requests] == ["POST"]


def test_a_redirect_with_an_endless_body_is_not_read() -> None:
    def act(line: Line) -> None:
        line.send(b"HTTP/1.1 302 X\r\nLocation: /\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            line.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    with RawServer(lambda request: act) as server, pytest.raises(Redirected):
        wire_to(server, timeout=20).send("GET", "/tasks", repeat=RetryPolicy.SAFE)


def test_case_19_netrc_adds_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = home / ".netrc"
    netrc.write_text("machine 127.0.0.1 login planted password trap\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer(json_reply({})) as server:
        wire_to(server).send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
    assert "authorization" not in server.requests[0].headers


def test_cookies_are_not_kept() -> None:
    with RawServer(json_reply({}, headers={"Set-Cookie": "a=b"})) as server:
        wire = wire_to(server)
        wire.send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
        wire.send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
    assert "cookie" not in server.requests[1].headers


def test_the_key_is_refused_to_another_origin() -> None:
    with RawServer(json_reply({})) as server:
        wire = wire_to(server)
        for url in ("https://evil.example/v1", f"http://127.0.0.1:{server.port + 1}/v1"):
            with pytest.raises(BadUsage, match="belongs to"):
                wire.keyed(url, {})


def test_case_22_a_signed_put_goes_without_the_key(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"a,b\n1,2\n")
    with RawServer(reply(200)) as store, RawServer(json_reply({})) as server:
        wire_to(server).put_signed(f"{store.origin}/bucket/x?signature=s", path, "text/csv")
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
        wire_to(server).put_signed(f"{server.origin}/up?sig=1", path, "text/plain")
    assert KEY.encode() not in server.requests[0].raw


def test_case_23_untrusted_certificate_and_unreadable_ca_file_differ(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    missing = str(tmp_path / "nowhere.pem")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    with RawServer(json_reply({}), tls=tls.server) as server:
        with pytest.raises(Unsent) as untrusted:
            wire_to(server).send("GET", "/tasks", repeat=RetryPolicy.SAFE)
        connections = server.connections
        with pytest.raises(BadUsage) as unreadable:
            wire_to(server, ca_bundle=missing).send("GET", "/tasks", repeat=RetryPolicy.SAFE)
        with pytest.raises(BadUsage) as empty:
            wire_to(server, ca_bundle=str(garbage)).send("GET", "/tasks", repeat=RetryPolicy.SAFE)
        wire_to(server, ca_bundle=tls.ca_file).send("GET", "/tasks", repeat=RetryPolicy.SAFE)
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
        answer = wire_to(server).send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
    assert answer.data == {"a": 1}
