"""The order of a batch: which line waits for which, and how lines are divided into shards."""

from __future__ import annotations

import pytest

from rebyte_cli.batch.input import InputLine, Plan, make_plan
from rebyte_cli.errors import BadUsage


def lines(*workspaces: str | None) -> list[InputLine]:
    """Lines with the keys a, b, c, …, and these workspaces."""
    return [
        InputLine(number, chr(ord("a") + number - 1), workspace, (), 0, 0)
        for number, workspace in enumerate(workspaces, 1)
    ]


def test_lines_without_a_workspace_do_not_wait() -> None:
    assert make_plan(lines(None, None), "x") == Plan([0, 1], {}, {}, {})


def test_lines_of_one_workspace_run_in_the_order_of_the_file() -> None:
    plan = make_plan(lines("w", None, "w", "v", "w"), "x")
    assert plan.after == {2: 0, 4: 2}
    assert plan.head == {0: 0, 2: 0, 4: 0, 3: 3}
    assert plan.leader == {}


def test_followers_wait_for_their_leader_and_for_each_other() -> None:
    plan = make_plan(lines(None, "@a", "@a", "@b"), "x")
    assert plan.leader == {1: 0, 2: 0, 3: 1}
    assert plan.after == {1: 0, 2: 1, 3: 2}


def test_a_follower_may_stand_before_its_leader() -> None:
    plan = make_plan(lines("@c", "@a", None), "x")
    assert plan.after == {0: 2, 1: 0}
    assert plan.head == {2: 2, 0: 2, 1: 2}


def test_a_leader_in_a_named_workspace_shares_it_with_others() -> None:
    plan = make_plan(lines("w", "@a", "w"), "x")
    assert plan.after == {1: 0, 2: 1}


def test_circles_and_unknown_keys_are_refused_by_line() -> None:
    with pytest.raises(BadUsage) as caught:
        make_plan(lines("@b", "@c", "@a", None, "@e"), "x")
    assert caught.value.message.split("\n")[1:] == [
        "line 1: workspaceId: goes in a circle: a → b → c → a",
        "line 5: workspaceId: goes in a circle: e → e",
    ]
    with pytest.raises(BadUsage, match="line 2: workspaceId: no line has the key 'z'"):
        make_plan(lines(None, "@z"), "x")


def test_a_chain_of_ten_thousand_is_no_deep_matter() -> None:
    chain = [
        InputLine(n, str(n), f"@{n + 1}" if n < 9999 else None, (), 0, 0) for n in range(10_000)
    ]
    plan = make_plan(chain, "x")
    assert plan.after[0] == 1
    assert len(plan.after) == 9999


@pytest.mark.parametrize("of", [1, 2, 3, 7, 20])
def test_shards_have_each_line_once_and_keep_chains_together(of: int) -> None:
    all_lines = lines(None, "@a", "w", None, "w", None, "@f", None, None, "@b")
    shards = [make_plan(all_lines, "x", (number, of)).mine for number in range(1, of + 1)]
    assert sorted(at for shard in shards for at in shard) == list(range(10))
    for group in ({0, 1, 9}, {2, 4}, {5, 6}):
        assert [group <= set(shard) for shard in shards].count(True) == 1
    assert shards == [make_plan(all_lines, "x", (n, of)).mine for n in range(1, of + 1)]
