"""Budgets: how they are written in options and settings."""

from __future__ import annotations

import re
from typing import TypedDict

EXAMPLES = "5usd, 0.50usd, 300ktok, 2Mtok"
_UNITS = {"tok": 1, "ktok": 1_000, "mtok": 1_000_000, "gtok": 1_000_000_000}
# For schemas; a name may be in any case besides.
PATTERN = r"^\d{1,12}(\.\d{1,9})?\s*(usd|[kMG]?tok)$"


class Amount(TypedDict, total=False):
    """How much may be used: of tokens, or of dollars."""

    tokens: int
    cost: float


def parse_budget(text: str) -> Amount | None:
    """`5usd` as dollars (`cost`), `300ktok` or `2Mtok` as `tokens`; None for other text."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)\s*([a-z]+)", text.strip().lower(), re.ASCII)
    amount = float(found[1]) if found else 0.0
    if found is None or amount <= 0:
        return None
    if found[2] == "usd":
        return {"cost": amount}
    tokens = round(amount * _UNITS.get(found[2], 0))
    return {"tokens": tokens} if tokens else None
