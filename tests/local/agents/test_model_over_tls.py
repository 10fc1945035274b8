"""A user's model at an https address: with the user's own authority, a wrong one, and a proxy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import Certificate, certificate
from tests.local.gateway.upstream import ScriptedServer, tunnelling_proxy
from tests.servers import RawServer, json_reply

from .bench import Bench
from .test_egress import caller

KEY = "sk-ant-real-key-of-the-user"
NAMES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
# It says nothing about what it was answered.
ASK = """
import os, sys, urllib.error, urllib.request
url, key = os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_API_KEY"]
try:
    urllib.request.urlopen(urllib.request.Request(url + "/v1/messages", b"{}", {"x-api-key": key}))
except urllib.error.HTTPError as error:
    sys.exit(f"status {error.code}")
print("answered")
"""


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    for name in (*NAMES, "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def made(tmp_path: Path) -> Certificate:
    return certificate(tmp_path, "localhost", "model.example")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_users_own_authority(
    bench: Bench, made: Certificate, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(
        json_reply({"usage": {"input_tokens": 5, "output_tokens": 2}}), tls=made.server
    ) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"https://localhost:{server.port}")
        monkeypatch.setenv(name, made.ca_file)
        run = bench.run(caller(ASK))
    assert run.answer == "answered"
    assert [request.headers["x-api-key"] for request in server.requests] == [KEY]
    assert run.used == '{"requests": 1, "input_tokens": 5, "output_tokens": 2}'


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_wrong_certificate_is_the_reason_and_gets_no_key(
    bench: Bench, made: Certificate, tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    served = made if wrong == "authority" else certificate(tmp_path / "other", "other.example")
    trusted = certificate(tmp_path / "other") if wrong == "authority" else served
    with RawServer(json_reply({}), tls=served.server) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"https://localhost:{server.port}")
        monkeypatch.setenv("SSL_CERT_FILE", trusted.ca_file)
        run = bench.run(caller(ASK))
        assert server.requests == []
    assert run.outcome == "failed"
    first, _, second = (run.answer or "").partition("\n\n")
    assert first == "mine exited with status 1: status 502"
    place = f"localhost:{server.port}"
    says = f"the last request to {place} failed: the certificate of {place} is not valid: "
    assert second.startswith(says)
    assert ("localhost" in second[len(says) :]) is (wrong == "name")


@pytest.mark.slow
def test_through_the_users_own_proxy(
    bench: Bench, made: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees the name of the model's server, and nothing of what is said."""
    heads: list[bytes] = []
    with (
        RawServer(json_reply({}), tls=made.server) as server,
        ScriptedServer(tunnelling_proxy(server.port, heads)) as proxy,
    ):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://model.example")
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
        monkeypatch.setenv("SSL_CERT_FILE", made.ca_file)
        run = bench.run(caller(ASK))
    assert run.answer == "answered"
    assert [request.headers["host"] for request in server.requests] == ["model.example"]
    assert [head.split(b"\r\n")[0] for head in heads] == [b"CONNECT model.example:443 HTTP/1.1"]
    assert KEY.encode() not in b"".join(heads)


@pytest.mark.slow
def test_a_proxy_that_refuses_is_the_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(json_reply({}, 407)) as proxy:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://model.example")
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@localhost:{proxy.port}")
        run = bench.run(caller(ASK))
    says = "the last request to model.example failed: the proxy localhost answered 407"
    assert says in (run.answer or "")
    assert "secret" not in (run.answer or "")
