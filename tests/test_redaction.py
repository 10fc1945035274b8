"""What looks like a key is cut down to its prefix, and nothing else is."""

from __future__ import annotations

import time

import pytest

from rebyte_cli.redaction import redact_keys

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


@pytest.mark.parametrize("part", ["sk-", "rbk_", "ghp_a ", "x" * 10, "sk-sk-", "AKIA", "\u2028"])
def test_redaction_takes_linear_time(part: str) -> None:
    def seconds(count: int) -> float:
        text = part * count
        began = time.thread_time()
        redact_keys(text)
        return time.thread_time() - began

    seconds(1000)
    # Ten times as much costs ten times as much. One of five: a busy machine takes its caches away.
    assert any(seconds(100_000) < 30 * seconds(10_000) + 0.01 for _ in range(5))
