"""What a user may write for a task or a workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebyte_cli.app import App
from rebyte_cli.errors import BadUsage, NotFound, OutcomeUnknown
from rebyte_cli.history import references
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask
from rebyte_cli.presenter import Presenter


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path / "history.db", origin="https://api.rebyte.ai")
    for task, workspace in (("aaaa-1111", "ws-one"), ("aaaa-2222", "ws-two"), ("bbbb-3333", None)):
        made.add_tasks([NewTask({"id": task, "workspaceId": workspace}, prompt="x")])
    return made


@pytest.mark.parametrize(
    ("reference", "task"),
    [
        ("@last", "bbbb-3333"),
        ("@1", "bbbb-3333"),
        ("@3", "aaaa-1111"),
        ("bbbb", "bbbb-3333"),
        ("aaaa-2", "aaaa-2222"),
        ("aaaa-1111", "aaaa-1111"),
        ("https://app.rebyte.ai/run/cccc-4444", "cccc-4444"),
        ("https://app.rebyte.ai/run/cccc-4444/?tab=files#end", "cccc-4444"),
        ("https://app.rebyte.ai/share/cccc-4444", "cccc-4444"),
        ("https://api.rebyte.ai/v1/tasks/cccc-4444", "cccc-4444"),
        ("https://rebyte.example/run/a%3Ab", "a:b"),
        # Made elsewhere: the API will know.
        ("ccc", "ccc"),
        ("cccc-4444", "cccc-4444"),
        ("bbbb-33334", "bbbb-33334"),
        ("AAAA-1", "AAAA-1"),
        ("_", "_"),
    ],
)
def test_a_task(history: History, reference: str, task: str) -> None:
    assert references.task(history, reference) == task


@pytest.mark.parametrize(
    ("origin", "link", "named"),
    [
        ("https://api.rebyte.ai", "http://127.0.0.1:8787/run/cccc-4444", "-P local"),
        ("https://api.rebyte.ai", "http://localhost:8787/run/cccc-4444", "-P local"),
        ("local", "https://app.rebyte.ai/run/cccc-4444", "-P default"),
        ("ssh://me@box", "https://app.rebyte.ai/run/cccc-4444", "-P default"),
    ],
)
def test_a_link_of_another_service_is_named_as_such(
    tmp_path: Path, origin: str, link: str, named: str
) -> None:
    history = History(tmp_path / "history.db", origin=origin)
    for read in (references.task, references.workspace):
        with pytest.raises(BadUsage, match="is a link of another service") as caught:
            read(history, link)
        assert named in str(caught.value.hint)
    for origin in ("http://127.0.0.1:9000", "https://rebyte.example"):
        history = History(tmp_path / "history.db", origin=origin)
        assert references.task(history, link) == "cccc-4444"


def test_an_exact_id_wins_over_longer_ones(history: History) -> None:
    history.add_tasks([NewTask({"id": "aaaa"}, prompt="x")])
    assert references.task(history, "aaaa") == "aaaa"
    history.add_tasks([NewTask({"id": "bbb"}, prompt="x")])
    assert references.task(history, "bbb") == "bbb"


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [
        ("aaaa", BadUsage, "'aaaa' matches 2 ids"),
        ("bbb", BadUsage, "'bbb' is too short: give at least 4 characters of an id"),
        ("@4", NotFound, "@4"),
        ("@0", BadUsage, "'@0' is not a reference"),
        ("@", BadUsage, "is not a reference"),
        ("@first", BadUsage, "is not a reference"),
        ("@\u0661", BadUsage, "is not a reference"),
        ("@99999999999999999999", BadUsage, "is not a reference"),
        ("a/../b", BadUsage, "is not a task id"),
        ("https://app.rebyte.ai/run/", BadUsage, "is not the URL of a task"),
        ("https://app.rebyte.ai/run/a%2Fb", BadUsage, "is not a task id"),
        ("https://app.rebyte.ai/settings/api-keys", BadUsage, "is not the URL of a task"),
        ("https://[x/run/a", BadUsage, "is not the URL of a task"),
        ("aaa/", BadUsage, "is not a task id"),
        ("", BadUsage, "is not a task id"),
        ("-", BadUsage, "can mean several tasks"),
    ],
)
def test_references_without_a_task(
    history: History, reference: str, error: type[BadUsage], says: str
) -> None:
    with pytest.raises(error) as problem:
        references.task(history, reference)
    assert says in problem.value.message


def test_an_ambiguous_prefix_names_the_candidates(history: History) -> None:
    with pytest.raises(BadUsage) as problem:
        references.task(history, "aaaa")
    assert problem.value.hint == "aaaa-1111\naaaa-2222"


def test_nothing_made_elsewhere_answers_to_last(history: History) -> None:
    elsewhere = History(history.path, origin="local")
    with pytest.raises(NotFound):
        references.task(elsewhere, "@last")
    assert references.task(elsewhere, "bbbb") == "bbbb"


def test_several_tasks_stand_beside_stdin_and_each_once(history: History) -> None:
    stdin = ["aaaa-1\n", "\n", "  @last \r\n", "zzzz"]
    found = references.tasks(history, ["@2", "-", "zzzz", "-"], iter(stdin))
    assert found == ["aaaa-2222", "aaaa-1111", "bbbb-3333", "zzzz"]


def test_stdin_is_read_only_where_a_dash_says_so(history: History) -> None:
    def never() -> object:
        raise AssertionError("stdin was read")

    assert references.tasks(history, ["@1"], iter(never, None)) == ["bbbb-3333"]  # type: ignore[arg-type] # reading it is the failure
    assert references.tasks(history, ["-"], []) == []


@pytest.mark.parametrize("line", ["aaaa", "@9", "not/an/id", "-"])
def test_a_bad_line_of_stdin_is_named(history: History, line: str) -> None:
    with pytest.raises((BadUsage, NotFound), match=r"^stdin, line 2: "):
        references.tasks(history, ["-"], ["bbbb\n", line])


@pytest.mark.parametrize(
    ("reference", "workspace"),
    [
        ("@2", "ws-two"),
        ("shop", "ws-one"),
        ("ws-one", "ws-one"),
        ("ws-t", "ws-two"),
        ("aaaa-1", "ws-one"),
        ("aaaa-2222", "ws-two"),
        ("an-agent-computer", "an-agent-computer"),
        ("https://app.rebyte.ai/agent/computer/an-agent-computer", "an-agent-computer"),
        ("https://api.rebyte.ai/v1/workspaces/ws-one/artifacts", "ws-one"),
        ("https://app.rebyte.ai/run/aaaa-2222", "ws-two"),
        ("https://app.rebyte.ai/share/aaaa-2222", "ws-two"),
        # An alias wins over what else it could be.
        ("aaaa-1111x", "ws-two"),
    ],
)
def test_a_workspace(history: History, reference: str, workspace: str) -> None:
    history.name_workspace("ws-one", "shop")
    history.name_workspace("ws-two", "aaaa-1111x")
    assert references.workspace(history, reference) == workspace


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [
        ("@last", NotFound, "the workspace of task bbbb-3333 is unknown on this machine"),
        ("bbbb", NotFound, "the workspace of task bbbb-3333 is unknown on this machine"),
        ("aaaa", BadUsage, "matches 2 ids"),
        ("my/shop", BadUsage, "is not a workspace id or alias"),
        (
            "https://app.rebyte.ai/run/cccc",
            NotFound,
            "the workspace of task cccc is unknown on this machine",
        ),
        ("https://app.rebyte.ai/", BadUsage, "is not the URL of a workspace or task"),
    ],
)
def test_references_without_a_workspace(
    history: History, reference: str, error: type[BadUsage], says: str
) -> None:
    with pytest.raises(error) as problem:
        references.workspace(history, reference)
    assert says in problem.value.message


def test_a_deleted_task_keeps_its_number(history: History) -> None:
    """So that `delete @1; delete @2` deletes the two that a list showed."""
    for reference, task in (("@1", "bbbb-3333"), ("@2", "aaaa-2222")):
        assert references.task(history, reference) == task
        history.forget_task(task)
    assert references.task(history, "@3") == references.task(history, "@last") == "aaaa-1111"
    with pytest.raises(NotFound, match="@1 doesn't exist: task bbbb-3333 was deleted") as gone:
        references.task(history, "@1")
    assert "@last is the newest that is left" in str(gone.value.hint)
    history.forget_task("aaaa-1111")
    with pytest.raises(NotFound, match="every task that was created from here was deleted"):
        references.task(history, "@last")


def test_nothing_but_its_place_is_kept_of_a_deleted_task(history: History) -> None:
    history.add_tasks(
        [NewTask({"id": "cccc-4444", "title": "Private", "workspaceId": "w"}, prompt="Secret")]
    )
    history.remember_shown([{"id": "cccc-4444"}])
    history.forget_task("cccc-4444")
    assert history.task("cccc-4444") is None
    assert "cccc-4444" not in [task["id"] for task in history.tasks()]
    assert history.workspace("w") is None
    assert history.shown("cccc") == []
    numbered = history.nth(1)
    assert numbered is not None
    assert {name for name, value in numbered.items() if value} == {"id", "deleted"}


def test_an_id_shown_once_answers_by_prefix_beside_those_created_here(history: History) -> None:
    history.remember_shown([{"id": "dddd-5555"}, {"id": "aaaa-3333"}, {"id": "bbbb-3333"}])
    assert references.task(history, "dddd") == "dddd-5555"
    assert references.task(history, "bbbb") == "bbbb-3333"
    with pytest.raises(BadUsage, match="'aaaa' matches 3 ids"):
        references.task(history, "aaaa")


def test_a_short_id_of_a_workspace_is_none_of_a_task(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db", origin="https://api.rebyte.ai")
    ids = ["abcdefgh-1", "abcdefgh-2", "12345678-1"]
    for number, workspace_id in enumerate(ids):
        history.add_tasks(
            [NewTask({"id": f"task-{number}", "workspaceId": workspace_id}, prompt="Hi")]
        )
    history.remember_shown([{"id": "12345678-2"}])
    short = history.shortest_workspace_prefixes([*ids, "stranger-to-it"])
    assert short == {
        "abcdefgh-1": "abcdefgh-1", "abcdefgh-2": "abcdefgh-2", "12345678-1": "12345678-1",
        "stranger-to-it": "stranger-to-it",
    }  # fmt: skip
    history.add_tasks([NewTask({"id": "task-9", "workspaceId": "87654321-9"}, prompt="Hi")])
    assert history.shortest_workspace_prefixes(["87654321-9"]) == {"87654321-9": "87654321"}
    assert references.workspace(history, "87654321") == "87654321-9"


def test_the_shortest_text_that_stands_for_an_id(history: History) -> None:
    ids = ["12345678-aaaa", "12345678-aabb", "87654321-cccc", "87654321-cccc-1", "short"]
    history.remember_shown({"id": each} for each in ids)
    assert history.shortest_prefixes([*ids, "stranger-to-it"]) == {
        "12345678-aaaa": "12345678-aaa",
        "12345678-aabb": "12345678-aab",
        "87654321-cccc": "87654321-cccc",
        "87654321-cccc-1": "87654321-cccc-",
        "short": "short",
        "stranger-to-it": "stranger-to-it",
    }


def test_the_candidates_of_a_lost_create_answer_by_prefix(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del home
    app = App()
    lost = OutcomeUnknown("lost", candidates=[{"id": "abcdefgh-1"}])
    assert Presenter(app).fail(lost) == 6
    assert "abcdefgh-1" in capsys.readouterr().err
    assert references.task(app.history, "abcd") == "abcdefgh-1"
