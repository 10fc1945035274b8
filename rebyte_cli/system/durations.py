"""Durations: how they are written in options, settings and prompts, and how they are shown."""

from __future__ import annotations

import re

_SECONDS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_PART = rf"({_NUMBER})\s*(ms|[smhdw])"
# For schemas, whose regular expressions know no more than this.
PATTERN = r"^\s*\d+(\.\d+)?(\s*(ms|[smhdw])(\s*\d+(\.\d+)?\s*(ms|[smhdw]))*)?\s*$"


def parse_duration(text: str) -> float | None:
    """The seconds of `90`, `0.5`, `15m` or `1h 30m`, the largest unit first; None for other text.

    Units are w, d, h, m, s and ms. A billion seconds or more is no duration.
    """
    text = text.strip()
    if re.fullmatch(_NUMBER, text):
        seconds = float(text)
    else:
        if not re.fullmatch(rf"({_PART}\s*)+", text):
            return None
        parts = re.findall(_PART, text)
        units = list(_SECONDS)
        places = [units.index(unit) for _, unit in parts]
        if places != sorted(set(places)):
            return None
        seconds = sum(float(amount) * _SECONDS[unit] for amount, unit in parts)
    return seconds if seconds < 1e9 else None


def duration(seconds: float) -> str:
    """A length of time for people: `12s`, `3m 05s`, `2h 10m`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def round_duration(seconds: float) -> str:
    """A length that was chosen, such as a limit: `0.5s`, `90s` as `1m 30s`, `15m`, `2d`."""
    if seconds < 60:
        return f"{seconds:g}s"
    if seconds % 86400 == 0:
        return f"{seconds / 86400:g}d"
    return duration(seconds).removesuffix(" 00s").removesuffix(" 00m")
