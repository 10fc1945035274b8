"""A login that is renewed outside while a run works, and one that is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rebyte_cli.local.gateway.gateway_settings import LoginFile, ModelRoute
from tests.local.gateway.harness import GatewayProcess, model
from tests.servers import RawServer, Request, error_reply, json_reply

REFUSED = "the model refused the login of x (401): if it has expired, `x` renews it"


class LoginServer(RawServer):
    """A model that takes one token, which `expire` replaces."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.token = "token-of-the-first-hour"
        self.tokens: list[str] = []
        self.renews_late = False
        super().__init__(self._answer)

    def write(self, token: str) -> None:
        """What the agent's own program outside does."""
        document = {"login": {"token": token, "refresh": "a secret of the user"}}
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps(document))
        beside.replace(self.file)

    def _answer(self, request: Request) -> bytes:
        token = request.headers["authorization"].removeprefix("Bearer ")
        self.tokens.append(token)
        if self.renews_late:
            self.write(self.token)
        if token != self.token:
            return error_reply(401, "authentication_error", "OAuth token has expired")
        return json_reply({})


def route(server: LoginServer) -> ModelRoute:
    login = LoginFile(str(server.file), ("login", "token"), "x", "`x` renews it")
    return model(
        f"http://127.0.0.1:{server.port}", credential="bearer", key=server.token, login=login
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "login.json"


def test_a_token_that_is_renewed_outside_is_used(tmp_path: Path, file: Path) -> None:
    with LoginServer(file) as server, GatewayProcess(tmp_path, [route(server)]) as gateway:
        server.write(server.token)
        assert gateway.ask().status == 200
        server.token = "token-of-the-second-hour"
        server.write(server.token)
        assert gateway.ask().status == 200
        file.write_text('{"login": {"tok')  # is being written, or was removed
        assert gateway.ask().status == 200
        file.unlink()
        assert gateway.ask().status == 200
        assert [token[9:15] for token in server.tokens] == ["the-fi", *["the-se"] * 3]


def test_two_routes_may_share_a_login_file(tmp_path: Path, file: Path) -> None:
    with LoginServer(file) as server:
        routes = [route(server), replace(route(server), name="other")]
        with GatewayProcess(tmp_path, routes) as gateway:
            server.token = "token-of-the-second-hour"
            server.write(server.token)
            for each in routes:
                assert gateway.ask(f"{each.prefix}/v1/messages").status == 200


def test_a_token_that_is_not_renewed_ends_in_a_reason(tmp_path: Path, file: Path) -> None:
    with LoginServer(file) as server, GatewayProcess(tmp_path, [route(server)]) as gateway:
        server.write(server.token)
        server.token = "another"
        answer = gateway.ask()
        assert (answer.status, answer.message) == (401, REFUSED)
        (entry,) = gateway.entries(1)
        assert (entry.refused, entry.option) == (REFUSED, "login")


def test_a_token_that_is_renewed_meanwhile_is_tried(tmp_path: Path, file: Path) -> None:
    """Agents ask again after a 503."""
    with LoginServer(file) as server, GatewayProcess(tmp_path, [route(server)]) as gateway:
        server.write(server.token)
        server.token, server.renews_late = "token-of-the-second-hour", True
        assert [gateway.ask().status for _ in range(2)] == [503, 200]


def test_a_key_that_is_no_login_is_not_explained(tmp_path: Path) -> None:
    said = error_reply(401, "authentication_error", "invalid x-api-key")
    with (
        RawServer(said) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        answer = gateway.ask()
        assert (answer.status, b"invalid x-api-key" in answer.body) == (401, True)
        (entry,) = gateway.entries(1)
        assert entry.refused is None
