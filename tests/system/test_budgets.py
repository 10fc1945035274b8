"""Budgets as options and settings take them."""

from rebyte_cli.system.budgets import parse_budget


def test_amounts() -> None:
    assert parse_budget("300ktok") == {"tokens": 300_000}
    assert parse_budget("2MTOK") == {"tokens": 2_000_000}
    assert parse_budget("1.5Mtok") == {"tokens": 1_500_000}
    assert parse_budget("0.50usd") == {"cost": 0.5}
    for text in ("", "5", "usd", "-1usd", "0usd", "1e3tok", "5eur", "٣tok", "0.1tok"):
        assert parse_budget(text) is None, text
