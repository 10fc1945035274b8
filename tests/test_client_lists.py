"""Lists: pages when they are wanted, each row once, any wrapping."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.errors import BrokenAnswer

from .servers import Answer, RawServer, Request, json_reply, wire_to

pytestmark = pytest.mark.usefixtures("home")


def test_a_list_takes_its_window_by_place_or_by_name() -> None:
    page = {"data": [{"id": "a"}], "total": 1, "limit": 3, "offset": 6, "more": True}
    with RawServer(json_reply(page)) as server:
        client = RebyteClient(transport=wire_to(server))
        assert client.list_tasks(3, 6) == client.list_tasks(limit=3, offset=6) == page
        client.list_tasks()
    paths = [request.path for request in server.requests]
    assert paths == ["/v1/tasks?limit=3&offset=6"] * 2 + ["/v1/tasks?limit=50&offset=0"]


def pages(rows: list[str], size: int) -> Callable[[Request], Answer]:
    def page(request: Request) -> Answer:
        offset = int(request.path.rpartition("=")[2])
        data = [{"id": identity} for identity in rows[offset : offset + size]]
        return json_reply({"data": data, "total": len(rows), "limit": size, "offset": offset})

    return page


def test_pages_are_asked_for_when_they_are_wanted() -> None:
    names = [f"t{n}" for n in range(250)]
    total: list[int] = []
    with RawServer(pages(names, 100)) as server:
        rows = RebyteClient(transport=wire_to(server)).iter_tasks(total=total)
        assert [next(rows)["id"] for _ in range(100)] == names[:100]
        assert len(server.requests) == 1
        assert total == [250]
        assert [row["id"] for row in rows] == names[100:]
    assert len(server.requests) == 3


def test_the_memory_of_a_long_list_is_flat() -> None:
    """Each row once, although a task is made between any two pages; old ids are forgotten."""
    names = [f"00000000-0000-4000-8000-{n:012d}" for n in range(36_000)]

    def script(request: Request) -> Answer:
        answer = pages(names, 1000)(request)
        names.insert(0, f"new-{len(names)}")
        return answer

    expected, held = list(names), []
    tracemalloc.start()
    with RawServer(script) as server:
        rows = RebyteClient(transport=wire_to(server)).iter_tasks(1000)
        for number, (row, name) in enumerate(zip(rows, expected, strict=True), 1):
            assert row["id"] == name
            if number % 10_000 == 5_000:
                held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[-1] - held[1] < 500_000  # 20,000 ids take six times as much


def test_tasks_made_between_two_pages_do_not_come_twice() -> None:
    names = [f"t{n}" for n in range(6)]

    def script(request: Request) -> Answer:
        answer = pages(names, 3)(request)
        names.insert(0, f"new{len(names)}")
        return answer

    with RawServer(script) as server:
        rows = [row["id"] for row in RebyteClient(transport=wire_to(server)).iter_tasks(3)]
    assert rows == [f"t{n}" for n in range(6)]


def test_a_server_that_gives_smaller_pages_is_read_to_its_end() -> None:
    with RawServer(pages([f"t{n}" for n in range(7)], 2)) as server:
        assert len(list(RebyteClient(transport=wire_to(server)).iter_tasks())) == 7
    assert len(server.requests) == 4


def test_a_server_that_ignores_the_offset_does_not_go_on_for_ever() -> None:
    page = json_reply({"data": [{"id": "a"}, {"id": "b"}]})
    with RawServer(page) as server:
        rows = list(RebyteClient(transport=wire_to(server)).iter_tasks(2))
    assert [row["id"] for row in rows] == ["a", "b"]
    assert len(server.requests) == 3


@pytest.mark.parametrize("page", [{}, {"data": None}, {"data": [1]}, {"data": {"id": 1}}])
def test_a_list_that_is_none(page: Any) -> None:
    with RawServer(json_reply(page)) as server:
        client = RebyteClient(transport=wire_to(server))
        with pytest.raises(BrokenAnswer):
            client.list_tasks()
        with pytest.raises(BrokenAnswer):
            list(client.iter_tasks())


@pytest.mark.parametrize("answer", [[{"name": "a"}], {"data": [{"name": "a"}]}])
def test_artifacts_are_listed_in_any_wrapping(answer: Any) -> None:
    with RawServer(json_reply(answer)) as server:
        assert RebyteClient(transport=wire_to(server)).list_artifacts("w") == [{"name": "a"}]


@pytest.mark.parametrize("answer", [{"webhooks": [{"id": "w"}]}, {"data": [{"id": "w"}]}])
def test_webhooks_are_listed_in_any_wrapping(answer: Any) -> None:
    with RawServer(json_reply(answer)) as server:
        assert RebyteClient(transport=wire_to(server)).list_webhooks() == [{"id": "w"}]


def test_a_list_in_no_known_wrapping_is_broken() -> None:
    with RawServer(json_reply({"items": []})) as server, pytest.raises(BrokenAnswer):
        RebyteClient(transport=wire_to(server)).list_webhooks()


def test_signed_urls_for_artifacts_are_one_per_file() -> None:
    urls = {"urls": [{"uploadUrl": "https://s/x", "publicUrl": "https://p/x"}]}
    with RawServer(json_reply(urls)) as server:
        client = RebyteClient(transport=wire_to(server))
        assert client.artifact_upload_urls("w", [{"name": "x"}]) == urls["urls"]
        with pytest.raises(BrokenAnswer):
            client.artifact_upload_urls("w", [{"name": "x"}, {"name": "y"}])
