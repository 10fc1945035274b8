"""Secrets in a stream, wherever it is cut."""

from __future__ import annotations

from base64 import b64decode, b64encode, urlsafe_b64encode

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


@pytest.mark.parametrize("before", range(9))
def test_a_secret_inside_text_that_is_encoded(before: int) -> None:
    secret = "sk-ant-1?>~é-second"
    for encode in (b64encode, urlsafe_b64encode):
        text = encode(b"x" * before + secret.encode() + b"and more")
        masked = SecretMask([secret]).replace(text)
        shown = b64decode(masked.translate(bytes.maketrans(b"*-_", b"A+/")))
        assert len(masked) == len(text)
        assert shown.startswith(b"x" * before)
        assert shown.endswith(b"and more")
        assert not any(secret.encode()[i : i + 3] in shown for i in range(len(secret) - 2))


@pytest.mark.parametrize("escaped", ["", "<>&", "<>&'", "\"&'+<>`", "-_+/.\"?~<>&'=` "])
@pytest.mark.parametrize("digits", ["04x", "04X"])
@pytest.mark.parametrize("slash", ["/", "\\/"])
def test_a_secret_whose_special_characters_json_escapes(
    escaped: str, digits: str, slash: str
) -> None:
    """As the encoders of Python, Go, PHP and .NET do, and some other."""
    secret = "sk-ant_1+/second.\"3?~<>&'=` é"
    short = {'"': '\\"', "/": slash}

    def spelled(char: str) -> str:
        if char in escaped or not char.isascii():
            return f"\\u{ord(char):{digits}}"
        return short.get(char, char)

    text = "".join(map(spelled, secret)).encode()
    for cut in range(len(text)):
        mask = SecretMask([secret])
        pieces = [mask.feed(b"x" + text[:cut]), mask.feed(text[cut:] + b"y"), mask.flush()]
        assert b"".join(pieces) == b"x" + b"*" * len(text) + b"y"


def test_words_are_no_secrets() -> None:
    assert SecretMask(["none", "", "ollama"]).feed(b"none ollama") == b"none ollama"
