"""Secrets in a stream, wherever it is cut."""

from __future__ import annotations

import pytest

from rebyte_cli.local.gateway.secret_mask import SecretMask

SECRETS = ["abcabcabcabd", "second-secret-1"]


@pytest.mark.parametrize(
    "text",
    [
        "abcabcabcabd",
        "abcabcabcabcabd",
        "xabcabcabcabdabcabcabcabdx",
        "abcabcabcab",
        "second-secret-second-secret-1abcabcabcabd",
        "nothing",
        "",
    ],
)
def test_every_cut(text: str) -> None:
    data = text.encode()
    expected = data
    for secret in SECRETS:
        expected = expected.replace(secret.encode(), b"*" * len(secret))
    for one in range(len(data) + 1):
        for two in range(one, len(data) + 1):
            mask = SecretMask(SECRETS)
            pieces = [mask.feed(each) for each in (data[:one], data[one:two], data[two:])]
            assert b"".join([*pieces, mask.flush()]) == expected


def test_only_the_beginning_of_a_secret_is_held_back() -> None:
    mask = SecretMask(SECRETS)
    assert mask.feed(b"data: xyz\n\n") == b"data: xyz\n\n"
    assert mask.feed(b"data: abcab") == b"data: "
    assert mask.feed(b"\n\n") == b"abcab\n\n"


def test_words_are_no_secrets() -> None:
    assert SecretMask(["none", "", "ollama"]).feed(b"none ollama") == b"none ollama"
