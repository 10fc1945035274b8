"""Secrets that a server repeats in its answer, replaced by as many asterisks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 12  # characters; `none` and `ollama`, which some servers have as a key, are words
SHORTEST_KEY = 7  # of a key that is no word: `sk-1234`
# What encoders of JSON write as `\uXXXX` though they need not: Python's, those that make it fit
# for HTML (Go's, PHP's), .NET's, and one that spares letters and digits only.
ESCAPED = r"(?!)", "[<>&]", "[<>&']", r"[\"&'+<>`]", "[^0-9A-Za-z]"


class SecretMask:
    """Replaces secrets in a stream of bytes, also where they are cut in two.

    Each is found as it is, and as URLs, JSON and base64 spell it. Only the beginning of one at the
    end of a piece is held back, until more arrives.
    """

    def __init__(self, secrets: Iterable[str], keys: Iterable[str] = ()) -> None:
        """`keys` are secrets by themselves; `secrets` may be short words, which are left alone."""
        found = [one for one in secrets if len(one) >= SHORTEST]
        found += [one for one in keys if len(one) >= SHORTEST or _is_short_key(one)]
        forms = {form.encode() for one in found for form in _forms(one)}
        # The longest first: of a form that has another one in it, nothing is to be left.
        self._secrets = sorted(forms, key=lambda form: (-len(form), form))
        # Of one at the end of a piece, the next piece may have the last character.
        self._cut = [
            one
            for one in forms
            if any(other.startswith(one) for other in forms if len(other) > len(one))
        ]
        self._held = b""

    def replace(self, data: bytes) -> bytes:
        """A whole text without the secrets."""
        for secret in self._secrets:
            data = data.replace(secret, b"*" * len(secret))
        return data

    def feed(self, data: bytes) -> bytes:
        """The next piece of a stream, as far as it can be passed on."""
        if not self._secrets:
            return data
        data = self._held + data
        masked = self.replace(data)
        begun = max(_begun(masked, secret) for secret in self._secrets)
        begun = max(begun, *(len(form) for form in self._cut if data.endswith(form)), 0)
        self._held = data[len(data) - begun :]
        return masked[: len(data) - begun]

    def flush(self) -> bytes:
        """What was held back at the end."""
        held, self._held = self._held, b""
        return self.replace(held)


def _is_short_key(text: str) -> bool:
    return len(text) >= SHORTEST_KEY and bool(re.search(r"\d", text) and re.search(r"\W|_", text))


def _forms(secret: str) -> Iterator[str]:
    """The secret as it is, in a URL, in JSON and within base64, each in its usual spellings."""
    from base64 import b64encode

    yield secret
    for quoted in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
    for escaped in ESCAPED:
        inner = "".join(_in_json(char, escaped) for char in secret)
        for form in (inner, re.sub(r"(?<=\\u)[0-9a-f]{4}", lambda found: found[0].upper(), inner)):
            yield from (form, form.replace("/", "\\/"))
    for before in range(3):  # bytes, of a group of three that is encoded as four characters
        encoded = b64encode(bytes(before) + secret.encode()).decode().rstrip("=")
        # Without the characters that have bits of what is before it, and of what is after it, if
        # that is not the end.
        start, end = -(-before * 8 // 6), (before + len(secret.encode())) * 8 // 6
        for form in (encoded[start:], encoded[start:end]):
            yield from (form, form.translate(str.maketrans("+/", "-_")))


def _in_json(char: str, escaped: str) -> str:
    if re.fullmatch(escaped, char) and char.isascii():
        return f"\\u{ord(char):04x}"
    return json.dumps(char)[1:-1]


def _begun(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of `secret`."""
    start = data.find(secret[:1], max(0, len(data) - len(secret) + 1))
    while start >= 0:
        if secret.startswith(data[start:]):
            return len(data) - start
        start = data.find(secret[:1], start + 1)
    return 0
