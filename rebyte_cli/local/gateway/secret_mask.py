"""Secrets that a server repeats in its answer, replaced by as many asterisks."""

from __future__ import annotations

from collections.abc import Iterable

SHORTEST = 12  # characters; `none` and `ollama`, which some servers have as a key, are words


class SecretMask:
    """Replaces secrets in a stream of bytes, also where they are cut in two.

    Only the beginning of a secret at the end of a piece is held back, until more arrives.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [one.encode() for one in secrets if len(one) >= SHORTEST]
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
        data = self.replace(self._held + data)
        begun = max(_begun(data, secret) for secret in self._secrets)
        self._held = data[len(data) - begun :]
        return data[: len(data) - begun]

    def flush(self) -> bytes:
        """What was held back at the end."""
        held, self._held = self._held, b""
        return held


def _begun(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of `secret`."""
    start = data.find(secret[:1], max(0, len(data) - len(secret) + 1))
    while start >= 0:
        if secret.startswith(data[start:]):
            return len(data) - start
        start = data.find(secret[:1], start + 1)
    return 0
