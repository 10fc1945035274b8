"""The words in which every agent's and every model's counts of tokens are kept."""

from __future__ import annotations

from collections.abc import Sequence


def token_counts(given: object, **names: Sequence[str]) -> dict[str, int]:
    """The tokens of a run or a step in the names that all agents share.

    `input_tokens` are all that the model read, of which `cached_input_tokens` came from its cache;
    `output_tokens` are all that it wrote, of which `reasoning_tokens` were thoughts. Each is the
    sum of those of the agent's own counts that `names` lists for it, and missing if there is none.
    """
    counts = given if isinstance(given, dict) else {}
    found = {
        ours: [n for name in theirs if type(n := counts.get(name)) is int and n >= 0]
        for ours, theirs in names.items()
    }
    return {ours: sum(numbers) for ours, numbers in found.items() if numbers}
