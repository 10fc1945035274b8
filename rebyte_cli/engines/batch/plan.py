"""What comes after what: lines that share a workspace run one after another, the rest at will."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...errors import did_you_mean
from .input import Line, refuse_bad_lines


class Plan(NamedTuple):
    """Which lines are ours, and which of them wait. Lines are named by their place in the input.

    `mine`: those of this shard, in order. `after`: the line that must have ended before this
    one is created, because both use one workspace. `leader`: the line whose workspace this one
    takes over, which must have completed.
    """

    mine: list[int]
    after: dict[int, int]
    leader: dict[int, int]


def make_plan(lines: Sequence[Line], name: str, shard: tuple[int, int] = (1, 1)) -> Plan:
    """The plan for `lines`; `shard` is (I, N), from 1.

    Lines of one workspace are one group: it stays in one shard, and its lines run in the order
    of the file, each after the line it follows. Groups are dealt out in turn, so that the same
    file gives the same shards everywhere. Raises BadUsage for an `@key` that no line has and for
    lines that follow each other in a circle.
    """
    leader = _leaders(lines, name)
    root = _roots(lines, leader, name)
    groups: dict[str | int, list[int]] = {}
    for at, top in enumerate(root):
        groups.setdefault(lines[top].workspace or top, []).append(at)
    number, of = shard
    mine: list[int] = []
    after: dict[int, int] = {}
    for turn, group in enumerate(groups.values()):
        if turn % of == number - 1:
            mine += group
            ordered = _in_order(group, leader)
            after.update(zip(ordered[1:], ordered, strict=False))
    chosen = set(mine)
    ours = {at: first for at, first in leader.items() if at in chosen}
    return Plan(sorted(mine), after, ours)


def _leaders(lines: Sequence[Line], name: str) -> dict[int, int]:
    by_key = {line.key: at for at, line in enumerate(lines)}
    leader: dict[int, int] = {}
    bad: list[str] = []
    for at, line in enumerate(lines):
        if line.workspace is None or not line.workspace.startswith("@"):
            continue
        key = line.workspace[1:]
        if key in by_key:
            leader[at] = by_key[key]
        else:
            near = did_you_mean(key, list(by_key)[:1000])
            bad.append(
                f"line {line.number}: workspaceId: no line has the key {key!r}"
                + (f"; {near}" if near else "")
            )
    refuse_bad_lines(name, bad)
    return leader


def _roots(lines: Sequence[Line], leader: dict[int, int], name: str) -> list[int]:
    """For each line the one at the head of its chain."""
    root: dict[int, int] = {}
    bad: list[str] = []
    for at in range(len(lines)):
        way: dict[int, None] = {}
        step = at
        while step in leader and step not in root and step not in way:
            way[step] = None
            step = leader[step]
        if step in way:
            circle = list(way)[list(way).index(step) :]
            keys = " → ".join(lines[place].key for place in [*circle, step])
            bad.append(f"line {lines[at].number}: workspaceId: goes in a circle: {keys}")
        top = root.get(step, step)
        root.update(dict.fromkeys(way, top))
        root[at] = top
    refuse_bad_lines(name, bad)
    return [root[at] for at in range(len(lines))]


def _in_order(group: list[int], leader: dict[int, int]) -> list[int]:
    """The lines of a group in the order of the file, each behind the line it follows."""
    placed: dict[int, None] = {}
    for at in group:
        way = []
        step: int | None = at
        while step is not None and step not in placed:
            way.append(step)
            step = leader.get(step)
        placed.update(dict.fromkeys(reversed(way)))
    return list(placed)
