"""What looks like a key is cut down to its prefix, and nothing else is."""

from __future__ import annotations

import base64
import json
import time

import pytest

from rebyte_cli.system.redaction import redact_keys

REST = "0123456789abcdefABCDEF"


@pytest.mark.parametrize(
    "prefix",
    [
        "rbk_", "RBK_", "sbx_", "sk-", "sk-proj-", "sk-ant-api03-", "SK-", "sk_live_", "pk_test_",
        "ghp_", "GHP_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xoxb-", "hf_",
        "npm_", "pypi-", "AKIA", "AIza",
    ],
)  # fmt: skip
@pytest.mark.parametrize("around", ["{}", "use {} now", "k={}", '"{}"', "https://x/?k={}", "({})"])
def test_a_key_is_cut_down_to_its_prefix(prefix: str, around: str) -> None:
    key = prefix + (REST.upper() if prefix == "AKIA" else REST)
    shown = redact_keys(around.format(key))
    assert REST[:6] not in shown
    assert shown.lower().startswith(around.partition("{}")[0])
    assert "…" in shown


@pytest.mark.parametrize("before", ["\n", "\t", "\r", "\x01", "\u00e9", "\u2028"])
@pytest.mark.parametrize("key", ["rbk_", "sk-ant-", "ghp_", "hf_", "eyJ"])
def test_a_key_after_what_json_writes_with_a_letter(before: str, key: str) -> None:
    secret = jwt() if key == "eyJ" else key + REST
    text = f"line{before}{secret}"
    for document in (json.dumps(text), json.dumps(json.dumps(text))):
        assert secret not in redact_keys(document)
        assert "…" in redact_keys(document)


def jwt(header: str = '{"alg":"HS256"}', payload: str = '{"sub":"12345678"}') -> str:
    parts = (
        base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in (header, payload)
    )
    return ".".join((*parts, "c2lnbmF0dXJl-_x"))


PEM = """-----BEGIN RSA PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,0123456789ABCDEF0123456789ABCDEF

MIIEpAIBAAKCAQEAwJHjkl0123456789abcdefABCDEF+/0123456789abcdefAB
MIIEpAIBAAKCAQEAwJHjkl0123456789abcdefABCDEF+/0123456789abcdefAB
secretEnd==
-----END RSA PRIVATE KEY-----
"""
CUT_OFF = PEM[: PEM.index("secretEnd") - 10]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (jwt(), "eyJ…"),
        (f"Bearer {jwt()} and more", "Bearer eyJ… and more"),
        (f"token={jwt()}&x=1", "token=eyJ…&x=1"),
        (f'{{"t": "{jwt()}"}}', '{"t": "eyJ…"}'),
        (f"{jwt()}.second.third", "eyJ…"),  # encrypted: five parts
        (PEM, "-----BEGIN RSA PRIVATE KEY-----…\n"),
        (f"key: {PEM}done", "key: -----BEGIN RSA PRIVATE KEY-----…\ndone"),
        (json.dumps(PEM), '"-----BEGIN RSA PRIVATE KEY-----…\\n"'),
        (f"{CUT_OFF}", "-----BEGIN RSA PRIVATE KEY-----…"),
        (PEM.replace("RSA ", ""), "-----BEGIN PRIVATE KEY-----…\n"),
        (PEM.replace("RSA ", "OPENSSH "), "-----BEGIN OPENSSH PRIVATE KEY-----…\n"),
        ("https://me:hunter2@git.example/x", "https://me:…@git.example/x"),
        ("https://:hunter2@git.example/x", "https://:…@git.example/x"),
        ("postgres://me:hun@ter:2@db/x?y#z", "postgres://me:…@db/x?y#z"),
        ('{"u": "https:\\/\\/me:hunter2@h\\/x"}', '{"u": "https:\\/\\/me:…@h\\/x"}'),
        ("a http://a:b@c and http://d:e@f", "a http://a:…@c and http://d:…@f"),
    ],
)
def test_a_secret_of_another_form_is_cut(text: str, shown: str) -> None:
    assert redact_keys(text) == redact_keys(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "eyJ", "eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOi.x", "grey.eyJs.and.more",
        "objeyJhbGciOiJI.aaa.bbb",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END CERTIFICATE-----",
        "ssh://git@github.com/a/b", "https://h:8080/a@b", "https://h/a:b@c", "http://[::1]:80/@x",
        "see https://h:80, or mail to me@h.example", "me:you@h", "12:30 @ noon",
    ],
)  # fmt: skip
def test_text_of_such_a_form_is_left_alone(text: str) -> None:
    assert redact_keys(text) == text


@pytest.mark.parametrize(
    ("prefix", "shortest"),
    [
        ("rbk_", 1), ("ghp_", 4), ("github_pat_", 4), ("glpat-", 4), ("xoxb-", 4), ("sbx_", 4),
        ("sk-", 8), ("pk_", 8), ("hf_", 8), ("npm_", 8), ("pypi-", 8), ("AKIA", 12), ("ASIA", 12),
        ("AIza", 20),
    ],
)  # fmt: skip
def test_a_rest_that_is_too_short_is_no_key(prefix: str, shortest: int) -> None:
    assert redact_keys(f"<{prefix}{'A' * shortest}>") == f"<{prefix}…>"
    assert redact_keys(short := f"<{prefix}{'A' * (shortest - 1)}>") == short


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("eyJ12345678.a.b", "eyJ…"),
        ("eyJ12345678.a.", "eyJ…"),
        ("eyJ12345678.a.b.c.d.e", "eyJ….e"),
        ("eyJ1234567.a.b", "eyJ1234567.a.b"),
        ("eyJ12345678.a", "eyJ12345678.a"),
        ("-----BEGIN PRIVATE KEY-----" + "A" * 16, "-----BEGIN PRIVATE KEY-----…"),
        ("-----BEGIN PRIVATE KEY-----\\r\\n" + "A" * 16, "-----BEGIN PRIVATE KEY-----…"),
        ("-----BEGIN PRIVATE KEY-----" + "A" * 15, "-----BEGIN PRIVATE KEY-----…" + "A" * 15),
        ("-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----…"),
        (
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nl\n=x\n-----END PGP PRIVATE KEY BLOCK-----",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----…",
        ),
        (f"{PEM}between\n{PEM}", "{0}between\n{0}".format("-----BEGIN RSA PRIVATE KEY-----…\n")),
        ("https://u:@h/x", "https://u:@h/x"),
        ("https://u:x@h/x", "https://u:…@h/x"),
        ("<a href='https://u:x@h'>", "<a href='https://u:…@h'>"),
        ("https://a:80' b@c https://a:80> b@c", "https://a:80' b@c https://a:80> b@c"),
        ("https://a:80'b@c https://a:80>b@c", "https://a:80'b@c https://a:80>b@c"),
        ("https://a':b@c", "https://a':b@c"),
    ],
)
def test_the_edges_of_each_form(text: str, shown: str) -> None:
    assert redact_keys(text) == shown


def test_after_a_header_of_a_private_key_prose_stays() -> None:
    text = "-----BEGIN PRIVATE KEY----- is how it begins. Where is it?"
    assert redact_keys(text) == "-----BEGIN PRIVATE KEY-----… is how it begins. Where is it?"


@pytest.mark.parametrize(
    "text",
    [
        "task-0123456789abcdef", "risk-assessment-report", "desk_0123456789", "sk-learn", "hf_hub",
        "rbk", "ghp_", "the sk- prefix", "npm_config", "2d645376-bdaa-4fca-a509-017bb6a75c3c",
        "npm install", "AKIA", "Akiara",
    ],
)  # fmt: skip
def test_other_words_are_left_alone(text: str) -> None:
    assert redact_keys(text) == text


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        "sk-", "rbk_", "ghp_a ", "x" * 10, "sk-sk-", "AKIA", "\u2028", "eyJ", "eyJaaaaaaaa-",
        "eyJ.",
        "eyJaaaaaaaa.", "eyJaaaaaaaa.eyJ ", ".eyJaaaaaaaa", "://", "://a:", "://a:b", "://a:@",
        ":@",
        "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----a", "-----END", "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA-----END ", "-", "\\n", "BEGIN A ",
        "-----BEGIN PRIVATE KEY-----" + "A" * 64 + "\\n" + "----",
    ],
)  # fmt: skip
def test_redaction_takes_linear_time(part: str) -> None:
    def seconds(count: int) -> float:
        text = part * count
        began = time.thread_time()
        redact_keys(text)
        return time.thread_time() - began

    seconds(1000)
    # Ten times as much costs ten times as much. One of five: a busy machine takes its caches away.
    assert any(seconds(40_000) < 30 * seconds(4_000) + 0.01 for _ in range(5))
