"""`rebyte list --on`: the tasks of several services in one list."""

from __future__ import annotations

from pathlib import Path

from tests.batch.test_places import profiles
from tests.farm import Farm, lines_of
from tests.inside import inside
from tests.servers import error_reply


def filled(*prompts: str) -> Farm:
    """A service that has these tasks."""
    farm = Farm()
    for prompt in prompts:
        farm._make({"prompt": prompt})
    return farm


def test_the_newest_of_all_places_comes_first(home: Path) -> None:
    with filled("A", "B") as one, filled("C") as two:
        profiles(home, {"one": one.server, "two": two.server})
        tasks = [*one.tasks.values(), *two.tasks.values()]
        for task, hour in zip(tasks, (1, 3, 2), strict=True):
            task["createdAt"] = f"2026-02-09T0{hour}:00:00.000Z"
        done = inside("list", "--on", "one,two", "-o", "jsonl", cwd=home)
        assert done.status == 0, done.err
        rows = [(row["place"], row["createdAt"][12]) for row in lines_of(done.out)]
        assert rows == [("one", "3"), ("two", "2"), ("one", "1")]
        second = inside(
            "list", "--on", "two,one", "-n", "1", "--offset", "1", "-o", "json", cwd=home
        )
        assert [row["place"] for row in second.json["data"]] == ["two"]
        table = inside("list", "--on", "one,two", "-o", "table", cwd=home)
        assert table.out.split("\n")[0].split()[:3] == ["PLACE", "ID", "STATUS"]
        alone = inside("list", "-P", "one", "-o", "jsonl", cwd=home)
        assert all("place" not in row for row in lines_of(alone.out))


def test_a_place_that_cannot_be_read_is_named_and_the_others_are_listed(home: Path) -> None:
    with filled("A") as one, filled("B") as two:
        one.hook = lambda _request: error_reply(401, "invalid_api_key", "No")
        profiles(home, {"one": one.server, "two": two.server})
        done = inside("list", "--on", "one,two", "-o", "jsonl", cwd=home)
        assert done.status == 3
        assert [row["place"] for row in lines_of(done.out)] == ["two"]
        assert "one: " in done.err


def test_what_cannot_be_listed_together(home: Path) -> None:
    with filled("A") as farm:
        profiles(home, {"one": farm.server, "two": farm.server})
        for words in (["one,two"], ["one", "--watch"], ["one", "-P", "one"], ["one:2"], ["no"]):
            assert inside("list", "--on", *words, cwd=home).status in (2, 4)
