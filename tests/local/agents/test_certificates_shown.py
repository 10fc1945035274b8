"""Which files the jail shows because a variable of the user calls them certificates."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rebyte_cli.local.agents.sandbox.jailed_program import certificates

from .bench import Bench

SECRET = "the user's secret"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.slow
def test_a_link_in_the_code_shows_no_file_of_the_user(
    bench: Bench, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative value leads wherever a repository, or an earlier run, has it lead."""
    secret = write(user_home / "secret", SECRET)
    bench.run(["sh", "-c", f"ln -s {secret} ca.pem; ln -s {user_home} certs"])
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", "ca.pem")
    monkeypatch.setenv("SSL_CERT_DIR", "certs")
    run = bench.run(["sh", "-c", "cat /ca.pem /certs/secret ca.pem certs/secret; echo done"])
    assert run.answer == "done"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SSL_CERT_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_what_is_no_certificate_is_not_shown(
    bench: Bench, user_home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    secret = write(user_home / "secret", SECRET)
    monkeypatch.setenv(name, str(user_home) if name.endswith("DIR") else secret)
    run = bench.run(["sh", "-c", f"cat {secret}; ls {user_home}; echo done"])
    assert run.answer == "done"


@pytest.mark.slow
def test_certificates_of_the_user_are_shown(
    bench: Bench, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", write(user_home / "ca/company.pem", PEM))
    monkeypatch.setenv("SSL_CERT_DIR", os.path.dirname(write(user_home / "more/0.pem", PEM)))
    (user_home / "more/1.pem").symlink_to(user_home / "more/0.pem")
    run = bench.run(["sh", "-c", 'cat "$SSL_CERT_FILE" "$SSL_CERT_DIR/0.pem" | grep -c BEGIN'])
    assert run.answer == "2"


@pytest.mark.parametrize(
    ("files", "named", "is_shown"),
    [
        ({"ca.pem": PEM}, "ca.pem", True),
        ({"ca.pem": PEM + KEY}, "ca.pem", False),
        ({"ca.pem": "# a comment\n" + PEM.replace("CERT", "TRUSTED CERT")}, "ca.pem", True),
        ({".ssh/ca.pem": PEM}, ".ssh/ca.pem", False),
        ({"certs/a.pem": PEM, "certs/b.pem": PEM}, "certs", True),
        ({"certs/a.pem": PEM, "certs/key.pem": KEY}, "certs", False),
        ({"certs/a.pem": PEM, "certs/below/key.pem": KEY}, "certs", False),
        ({"certs/a.pem": PEM, "certs/notes": "x"}, "certs", False),
        ({"x": "x"}, "empty", False),
        ({"x": "x"}, "fifo", False),
    ],
)
def test_what_counts_as_certificates(
    user_home: Path, files: dict[str, str], named: str, *, is_shown: bool
) -> None:
    for name, text in files.items():
        write(user_home / name, text)
    (user_home / "empty").mkdir()
    os.mkfifo(user_home / "fifo")
    path = str(user_home / named)
    assert certificates({"SSL_CERT_FILE": path}, ()) == ([path] if is_shown else [])
    (user_home / "link").symlink_to(path)
    through = str(user_home / "link")
    assert certificates({"SSL_CERT_DIR": through}, ()) == ([through] if is_shown else [])


def test_what_the_jail_shows_anyway_is_not_named_again() -> None:
    assert certificates({"SSL_CERT_DIR": "/etc/ssl/certs"}, ()) == []
