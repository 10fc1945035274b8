"""`rebyte local`: what a reset takes away, here and in what this machine remembers of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done


def test_a_reset_forgets_what_was_made_with_the_service(
    local: Callable[..., Done], rebyte: Callable[..., Done]
) -> None:
    """Else `@last`, an alias and a key of --once would lead to tasks that are gone."""
    task = local("create", "Say hello", "--once", "hello", "-o", "json").json
    assert local("workspace", "name", task["id"], "shop").status == 0
    assert rebyte("local", "reset", "--yes").status == 0
    assert local("get", "@last").status == 4
    assert local("workspace", "list").json["data"] == []
    again = local("create", "Say hello", "--once", "hello", "-o", "json")
    assert again.json["id"] != task["id"]
    assert "already" not in again.err


@pytest.mark.usefixtures("service")
def test_a_reset_leaves_the_history_of_other_services_alone(rebyte: Callable[..., Done]) -> None:
    task = rebyte("create", "Say hello", "-o", "json").json
    assert rebyte("local", "reset", "--yes").status == 0
    assert rebyte("get", "@last", "-o", "id").out.strip() == task["id"]


def test_a_reset_without_a_history_makes_none(home: Path, rebyte: Callable[..., Done]) -> None:
    assert rebyte("local", "reset", "--yes").status == 0
    assert not list(home.rglob("history.db"))
