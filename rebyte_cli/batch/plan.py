"""The order of a batch: lines that share a workspace run one after another, the rest at will."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from ..errors import did_you_mean
from .file_formats import BadLines
from .input import InputLine
from .line_fields import MOST_COMPARED

MOST_HINTS = 20  # unknown keys for which a similar one is named
LONGEST_CIRCLE = 20  # lines of a circle that are named


class Plan(NamedTuple):
    """Which lines this shard runs, and which of them wait. Lines are named by their index.

    `mine`: the lines of this shard, in order. `after`: for a line, the one that must have ended
    before it is created, because both use one workspace. `leader`: for a line, the one whose
    workspace it takes over, which must have completed.
    """

    mine: list[int]
    after: dict[int, int]
    leader: dict[int, int]


def make_plan(lines: Sequence[InputLine], name: str, shard: tuple[int, int] = (1, 1)) -> Plan:
    """The plan for `lines`; `shard` is (I, N), from 1.

    Lines of one workspace form a group. It stays in one shard, and its lines run in the order of
    the file, each after its leader. Groups are dealt out in turn, so that the same file gives the
    same shards on every machine. Raises BadUsage for an `@key` that no line has, and for lines
    that follow each other in a circle.
    """
    leader = _leaders(lines, name)
    root = _roots(lines, leader, name)
    groups: dict[str | int, list[int]] = {}
    for index, top in enumerate(root):
        groups.setdefault(lines[top].workspace or top, []).append(index)
    number, of = shard
    mine: list[int] = []
    after: dict[int, int] = {}
    for turn, group in enumerate(groups.values()):
        if turn % of == number - 1:
            mine += group
            ordered = _in_order(group, leader)
            after.update(zip(ordered[1:], ordered, strict=False))
    chosen = set(mine)
    ours = {index: first for index, first in leader.items() if index in chosen}
    return Plan(sorted(mine), after, ours)


def chains(plan: Plan, lines: Sequence[InputLine]) -> dict[int, int]:
    """For each line that shares a workspace, the first line of its chain.

    One that asks for a workspace by its id is a chain, even alone.
    """
    first = {index: index for index in plan.mine if lines[index].workspace is not None}
    first.update((index, index) for index in plan.after.values())
    followers = {before: index for index, before in plan.after.items()}
    for head in [index for index in first if index not in plan.after]:
        step: int | None = head
        while step is not None:
            first[step] = head
            step = followers.get(step)
    return first


def _leaders(lines: Sequence[InputLine], name: str) -> dict[int, int]:
    """For each line that names `@key`, the line with that key."""
    by_key = {line.key: index for index, line in enumerate(lines)}
    near_keys = list(islice(by_key, MOST_COMPARED))
    leader: dict[int, int] = {}
    bad, hints = BadLines(name), 0
    for index, line in enumerate(lines):
        if line.workspace is None or not line.workspace.startswith("@"):
            continue
        key = line.workspace[1:]
        if key in by_key:
            leader[index] = by_key[key]
        elif not bad.are_too_many:
            near = did_you_mean(key, near_keys) if hints < MOST_HINTS else None
            hints += 1
            hint = f". {near}" if near else ""
            bad.add(line.number, f"workspaceId: no line has the key {key!r}{hint}")
    bad.refuse()
    return leader


def _roots(lines: Sequence[InputLine], leader: dict[int, int], name: str) -> list[int]:
    """For each line the one at the head of its chain."""
    root: dict[int, int] = {}
    bad = BadLines(name)
    for index in range(len(lines)):
        path: dict[int, None] = {}
        step = index
        while step in leader and step not in root and step not in path:
            path[step] = None
            step = leader[step]
        if step in path:
            steps = list(path)
            circle = steps[steps.index(step) :]
            keys = " → ".join(lines[each].key for each in [*circle[:LONGEST_CIRCLE], step])
            bad.add(lines[index].number, f"workspaceId: goes in a circle: {keys}")
        top = root.get(step, step)
        root.update(dict.fromkeys(path, top))
        root[index] = top
    bad.refuse()
    return [root[index] for index in range(len(lines))]


def _in_order(group: list[int], leader: dict[int, int]) -> list[int]:
    """The lines of a group in the order of the file, each behind its leader."""
    placed: dict[int, None] = {}
    for index in group:
        path = []
        step: int | None = index
        while step is not None and step not in placed:
            path.append(step)
            step = leader.get(step)
        placed.update(dict.fromkeys(reversed(path)))
    return list(placed)
