"""Endpoints that only some services have: what an answer says when one is not there."""

from __future__ import annotations

from ..errors import APIError, BrokenAnswer, ResourceNotFound

# A method that nobody answers, or that nobody has written: the path is no endpoint of theirs.
NO_SUCH_CALL = frozenset({404, 405, 410, 501})


def is_absent(error: APIError) -> bool:
    """Whether an endpoint that was seen in clients only is missing, or means something else here.

    404 may also be said of the task; whoever asks next for the task itself finds that out.
    """
    return isinstance(error, ResourceNotFound | BrokenAnswer) or error.status_code in NO_SUCH_CALL
