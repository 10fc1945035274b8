"""`rebyte credits`: the balance, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conftest import Done
from tests.servers import RawServer, error_reply

Run = Callable[..., Done]
Aim = Callable[[Any], Any]


def test_prints_the_balance_as_it_came(inside_local: Run) -> None:
    balance = inside_local("credits").json
    assert balance["totalAvailable"] == 10_000
    assert inside_local("credits", "-o", "csv", "--fields", "balance").out == "balance\n10000\n"


def test_an_account_without_one_ends_in_4_and_one_line(inside: Run, aim: Aim) -> None:
    with RawServer(error_reply(404, "not_found", "Cannot GET /billing/credits")) as server:
        aim(server)
        done = inside("credits", "-o", "table")
    assert (done.status, done.out) == (4, "")
    assert done.err.startswith("Error: the service reports no balance for this account\n")
