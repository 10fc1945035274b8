"""What a request is taken to have used whose model did not say it: budgets count that.

A program in the sandbox can ask so that the answer does not say it: streamed without
`include_usage`, in the background, or by leaving, or not reading on, in the middle. It would be
free otherwise, so it counts as much as the largest requests of the usual models. No number of bytes
would be a limit: a request can refer to an earlier response, to files and to pages, and a model
thinks without a word.

What was cut off by the user, who canceled the run, or by the model's side, was not chosen in this
way, and counts as a large request of an agent. How else a run ends, a program in it can choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LARGEST = 1_000_000, 128_000  # tokens read and written
USUAL = 200_000, 32_000
BYTES_OF_TOKEN = 2  # fewer than in text, and far fewer than in images and in the frame of a stream


def estimate(
    usage: Mapping[str, Any] | None, sent: int, received: int, *, is_cut: bool
) -> dict[str, int]:
    """The tokens beyond those of `usage`, what the answer had said, in the words of `token_counts`.

    `sent` and `received` are bytes.
    """
    told = usage or {}
    most_read, most_written = USUAL if is_cut else LARGEST
    read = 0 if told.get("input_tokens") else max(sent // BYTES_OF_TOKEN, most_read)
    written = max(received // BYTES_OF_TOKEN, most_written) - told.get("output_tokens", 0)
    return {"input_tokens": read, "output_tokens": max(written, 0)}
