"""Which task is taken for a line whose answer was lost, and when it is unknown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, Queue
from typing import Any, NamedTuple

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.batch.input import Input
from rebyte_cli.batch.lost_lines import LostLine, LostLineSearch, search_lost
from rebyte_cli.batch.throttle import Throttle
from rebyte_cli.config.credentials import LOCAL_KEY
from rebyte_cli.errors import APIError, KeyRejected, NetworkError, ServerFault
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask
from rebyte_cli.local.local_service import Service
from rebyte_cli.once.judge import Verdict
from rebyte_cli.once.ledger import Ledger
from rebyte_cli.once.search import PACE, SCANS, Pace
from rebyte_cli.once.server_clock import ServerClock
from rebyte_cli.system.clock import awake_since_boot, boot_id
from tests import farm as farm_module
from tests.batch_worker import input_of
from tests.conftest import Done
from tests.farm import Farm, lines_of
from tests.inside import inside
from tests.servers import Answer, Line, Request, error_reply, json_reply, reply, reset
from tests.test_never_twice import first_line
from tests.waiting import eventually, with_time


class ScanResult(NamedTuple):
    """What one scan says of a line: its task, that there is none, or ids that it could be."""

    at: int
    task: Mapping[str, Any] | None
    absent: bool
    candidates: list[str]

    @classmethod
    def of(cls, at: int, verdict: Verdict) -> ScanResult:
        task = verdict.task
        could_be = [] if task else [row["id"] for row in verdict.candidates]
        return cls(at, task, verdict.shows_none, could_be)

    @property
    def verdict(self) -> Verdict:
        same = [] if self.task is None else [self.task]
        unsure = [{"id": each} for each in self.candidates]
        return Verdict(self.task, same, unsure, self.absent or bool(same), self.absent)


class Desk:
    """A service with tasks in it, a file of lines, and a finder that knows some of both."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.client = RebyteClient(LOCAL_KEY, base_url=service.base_url)
        self.history = History(folder / "history.db", origin="o")
        self.ledger = Ledger(self.history, "batch", lambda: None)
        self.created: list[dict[str, Any]] = []
        self.baseline = "[total=0]"  # where the list stood before the lines were sent
        self.client.list_tasks()  # from here on the service's clock is known
        self.now = self.client.transport.server_now() or datetime.now(UTC)

    def make(self, prompt: str = "Same", **fields: Any) -> str:
        return str(self.client.create_task(prompt, **fields)["id"])

    def known(self, prompt: str, at: int) -> dict[str, Any]:
        """A task of a line that shows this prompt."""
        self.ledger.claim(made := self.make(prompt))
        return {"id": made, "createdAt": None, "at": at}

    def find(
        self, *lines: dict[str, Any] | str, lost: Iterable[int] = (0,), mine: Any = None
    ) -> list[ScanResult]:
        batch = read(*lines)
        finder = LostLineSearch(
            self.client,
            batch,
            self.ledger,
            mine=range(len(lines)) if mine is None else mine,
            clock=ServerClock(self.client),
            answered=[task["id"] for task in self.created],
        )
        verdicts = finder.find([LostLine(at, self.sent(at), 900.0) for at in lost])
        return [ScanResult.of(at, verdict) for at, verdict in verdicts.items()]

    def sent(self, at: int) -> str:
        """The lines were sent in the order of the file, a moment ago."""
        sent = self.now - timedelta(seconds=1) + timedelta(milliseconds=at)
        return f"{stamp(sent)}{self.baseline}"


def stamp(moment: datetime) -> str:
    """A time by the service's clock, as the journal has it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(*lines: dict[str, Any] | str) -> Input:
    return input_of(line if isinstance(line, dict) else {"prompt": line} for line in lines)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Service(tmp_path / "service") as service:
        yield Desk(service, tmp_path)


def taken(results: list[ScanResult]) -> list[str | None]:
    return [None if task is None else task["id"] for _, task, _, _ in results]


def test_the_one_with_its_prompt_is_taken(desk: Desk) -> None:
    desk.make("Other")
    made = desk.make()
    (result,) = desk.find("Same", "Other")
    assert (taken([result]), result.absent, result.candidates) == ([made], False, [])


def test_a_line_without_a_match_is_absent(desk: Desk) -> None:
    other = desk.make("Other")
    # Ours may be shown so, even if another line asks for just that.
    assert desk.find("Same", "Other") == [ScanResult(0, None, False, [other])]
    desk.ledger.claim(other)
    assert desk.find("Same", "Other") == [ScanResult(0, None, True, [])]


def test_a_twin_under_way_may_have_made_it(desk: Desk) -> None:
    made = desk.make()
    desk.ledger.sending(2)
    assert desk.find("Same", "Same") == [ScanResult(0, None, False, [made])]
    desk.ledger.unsent(2)
    assert taken(desk.find("Same", "Same")) == [made]


def test_a_longer_prompt_under_way_may_be_shown_cut(desk: Desk) -> None:
    made = desk.make("Task 8")
    lines = ("Task 8", "Task 83", "Task 1234")
    desk.ledger.sending(2)
    assert desk.find(*lines) == [ScanResult(0, None, False, [made])]
    desk.ledger.unsent(2)
    desk.ledger.sending(3)
    assert taken(desk.find(*lines)) == [made]


def test_a_longer_prompt_of_another_shard_may_be_shown_cut(desk: Desk) -> None:
    """As one that is under way; when it is sent, nothing here tells."""
    made = desk.make("Task 8")
    lines = ("Task 8", "Task 1234", "Task 83")
    assert desk.find(*lines, mine=[0, 1]) == [ScanResult(0, None, False, [made])]
    assert taken(desk.find(*lines, mine=[0, 2])) == [made]


def test_a_twin_that_was_lost_meanwhile_may_have_made_it(desk: Desk) -> None:
    made = desk.make()
    for number in (1, 2):
        desk.ledger.doubt(number)
    assert desk.find("Same", "Same") == [ScanResult(0, None, False, [made])]
    assert taken(desk.find("Same", "Other")) == [made]


def test_others_under_way_and_the_line_itself_cast_no_doubt(desk: Desk) -> None:
    made = desk.make()
    for number in (1, 2):
        desk.ledger.sending(number)
    assert taken(desk.find("Same", "Other")) == [made]


def test_a_twin_on_another_machine_may_have_made_it(desk: Desk) -> None:
    made = desk.make()
    assert desk.find("Same", "Other", "Same", mine=[0, 1]) == [ScanResult(0, None, False, [made])]
    assert taken(desk.find("Same", "Other", "Other", mine=[0, 1])) == [made]


def test_equal_lines_get_a_task_each_the_first_sent_the_oldest(desk: Desk) -> None:
    first, second = desk.make(), desk.make()
    assert taken(desk.find("Same", "Same", lost=[1, 0])) == [first, second]
    # With one task for two of them, the first has it, and the second has none.
    desk.ledger.claim(second)
    assert desk.find("Same", "Same", lost=[0, 1])[1] == ScanResult(1, None, True, [])


def test_lines_that_differ_beside_their_prompt_are_not_told_apart(desk: Desk) -> None:
    made = {desk.make(), desk.make()}
    results = desk.find({"prompt": "Same", "skills": ["pdf"]}, "Same", lost=[0, 1])
    assert taken(results) == [None, None]
    assert all(set(result.candidates) == made for result in results)


def test_more_tasks_than_lines_are_not_told_apart(desk: Desk) -> None:
    made = {desk.make(), desk.make()}
    (result,) = desk.find("Same")
    assert result.task is None
    assert set(result.candidates) == made


def test_a_task_in_the_journal_belongs_to_its_line(desk: Desk) -> None:
    desk.ledger.claim(desk.make())
    assert desk.find("Same") == [ScanResult(0, None, True, [])]


def test_a_task_that_only_the_history_knows_is_neither_taken_nor_ruled_out(desk: Desk) -> None:
    made = desk.make()
    desk.history.add_tasks([NewTask({"id": made}, prompt="Same")])
    assert desk.find("Same") == [ScanResult(0, None, False, [made])]


def test_a_task_that_another_command_asked_something_else_is_ruled_out(desk: Desk) -> None:
    """It was created just before the batch, whose create made nothing."""
    desk.history.add_tasks([NewTask({"id": desk.make("Other")}, prompt="Other")])
    assert desk.find("Same") == [ScanResult(0, None, True, [])]


def test_a_task_of_before_the_request_is_no_match(desk: Desk) -> None:
    newest = desk.make()
    desk.now += timedelta(minutes=62)
    desk.baseline = f"[total=1][after={newest}]"
    assert desk.find("Same") == [ScanResult(0, None, True, [])]


def test_the_age_of_a_create_counts_by_the_time_awake(desk: Desk) -> None:
    clock = ServerClock(desk.client)
    finder = LostLineSearch(desk.client, read("Same"), desk.ledger, mine=[0], clock=clock)
    sent = f"1999-01-01T00:00:00.000Z[boot={boot_id()}][up={awake_since_boot() - 600}]"
    assert finder.is_old(LostLine(0, sent, 595.0))
    assert not finder.is_old(LostLine(0, sent, 605.0))
    assert not finder.is_old(LostLine(0, "1999-01-01T00:00:00.000Z[boot=other][up=1]", 0.1))


# Lost answers: the task is searched for, never created twice, and unknown if in doubt


@pytest.fixture
def batch(home: Path) -> Callable[..., Done]:
    def run(farm: Farm, prompts: list[str] | None, *options: str, **more: Any) -> Done:
        if prompts is not None:
            lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in prompts]
            (home / "t.jsonl").write_text("".join(lines))
        return inside("batch", "t.jsonl", *options, cwd=home, env=farm.env, **more)

    return run


def statuses(done: Done) -> dict[int, str]:
    return {row["line"]: row["status"] for row in lines_of(done.out)}


def test_a_lost_answer_is_found_by_its_prompt(batch: Callable[..., Done]) -> None:
    with Farm() as farm:
        done = batch(farm, ["One <cut>", "Two", "Three <cut>"])
        assert farm.made == {"One <cut>": 1, "Two": 1, "Three <cut>": 1}
    assert done.status == 0
    assert statuses(done) == {1: "completed", 2: "completed", 3: "completed"}
    assert "Line 1: the response was lost, but task task-0000" in done.err
    rows = {row["line"]: row for row in lines_of(done.out)}
    assert farm.tasks[rows[1]["id"]]["prompt"] == "One <cut>"


def test_a_create_that_made_nothing_is_sent_again_after_its_time(
    batch: Callable[..., Done], home: Path, one_clock: None
) -> None:
    prompt = "One <cut-before>"
    with Farm() as farm:
        farm.tried[prompt] = 1  # so that this one is answered
        earlier = inside("create", prompt, cwd=home, env=farm.env).json
        farm.tasks[earlier["id"]]["createdAt"] = "2026-01-01T00:00:00.000Z"
        farm.tried.clear()
        done = batch(farm, [prompt], "--resend-after", "0.1")
        assert farm.made == {prompt: 2}
        assert farm.tried == {prompt: 2}
    assert done.status == 0
    assert lines_of(done.out)[0]["id"] != earlier["id"]
    assert "no task was created; sending it again" in done.err


def test_a_create_that_never_gets_an_answer_does_not_keep_a_batch_running(
    batch: Callable[..., Done], one_clock: None, pace: Callable[..., None]
) -> None:
    pace(look_for=0.3, first_pause=0.1, later=0.1)
    with Farm(cuts=2.0) as farm:  # none makes a task
        done = batch(farm, ["One"], "--resend-after", "0.1", "--timeout", "60")
        assert (done.status, statuses(done)) == (6, {1: "unknown"})
        assert farm.tried == {"One": 4}
        farm.cuts = 0.0
        again = batch(farm, None, "--resend-after", "0.1", "--timeout", "60")
    assert (again.status, statuses(again)) == (0, {1: "completed"})


def test_equal_lines_that_are_lost_together_get_a_task_each(
    batch: Callable[..., Done], one_clock: None, pace: Callable[..., None]
) -> None:
    def check(seconds: float) -> None:
        pace(look_for=seconds, first_pause=0.1, later=30.0)

        def hook(_request: Request) -> None:
            if farm.tried.total() >= 6:
                farm.cuts = 0.0

        # The first six are not answered, and about half of them make nothing.
        with Farm(cuts=1.0, hook=hook) as farm:
            words = ("--resend-after", "0.1", "--jobs", "6", "--journal", f"{seconds}.journal")
            done = batch(farm, ["Same"] * 6, *words)
            made.append(farm.made["Same"])
            assert done.status == 0
            assert farm.made == {"Same": 6}
            assert farm.tried["Same"] > 6
        assert sorted(row["id"] for row in lines_of(done.out)) == sorted(farm.tasks)

    made: list[int] = []
    with_time(check, 0.3)
    assert max(made) == 6, "never a seventh, however short the search"


def test_a_candidate_of_an_earlier_run_is_not_forgotten(
    batch: Callable[..., Done], one_clock: None
) -> None:
    """A list that no longer shows it does not prove that the create made nothing."""
    with Farm(silent=True) as farm:
        done = batch(farm, ["One <cut>"])
        assert (done.status, statuses(done)) == (6, {1: "unknown"})
        hidden = list(farm.tasks)
        farm.page = lambda page: {
            **page,
            "data": [row for row in page["data"] if row["id"] not in hidden],
            "total": page["total"] - 1,
        }
        done = batch(farm, None, "--resend-after", "0.1")
        assert (done.status, statuses(done)) == (6, {1: "unknown"})
        assert farm.tried["One <cut>"] == 1


def test_without_transcripts_the_outcome_stays_unknown(
    batch: Callable[..., Done], home: Path, pace: Callable[..., None]
) -> None:
    pace()
    with Farm(silent=True) as farm:
        done = batch(farm, ["One <cut>", "Two"])
        assert farm.made == {"One <cut>": 1, "Two": 1}
        assert done.status == 6
        assert statuses(done) == {1: "unknown", 2: "completed"}
        problem = json.loads(done.err.splitlines()[-2])["error"]
        assert problem["code"] == "outcome_unknown"
        assert "settle it with --resolve 1=ID or 1=none" in problem["message"]

        wrong = batch(farm, None, "--resolve", "1=task-00009")
        assert wrong.status == 4
        done = batch(farm, None, "--resolve", "2=none")
        assert done.status == 2
        assert "line 2 is completed" in done.err
        taken = next(task["id"] for task in farm.tasks.values() if task["prompt"] == "Two")
        assert batch(farm, None, "--resolve", f"1={taken}").status == 2

        free = next(task["id"] for task in farm.tasks.values() if task["prompt"] != "Two")
        done = batch(farm, None, "--resolve", f"1=https://app.rebyte.ai/run/{free}")
        assert done.status == 0
        assert {row["line"]: row["id"] for row in lines_of(done.out)}[1] == free
        assert farm.made == {"One <cut>": 1, "Two": 1}


def test_none_settles_a_line_that_has_no_task(
    batch: Callable[..., Done], pace: Callable[..., None]
) -> None:
    pace()
    with Farm() as farm:
        done = batch(farm, ["One <cut-before>"])
        assert done.status == 6
        assert farm.made == {}
        assert batch(farm, None, "--resolve", "1=none").status == 0
        assert farm.made == {"One <cut-before>": 1}


def test_a_line_refused_by_a_server_error_is_searched_for_before_its_retry(
    batch: Callable[..., Done],
) -> None:
    with Farm() as farm:
        assert batch(farm, ["One <500>"]).status == 5
        task = farm._make({"prompt": "One <500>"})  # it had made one after all
        done = batch(farm, None, "--retry-failed")
        assert done.status == 0
        assert lines_of(done.out)[0]["id"] == task["id"]
        assert farm.made == {"One <500>": 1}


def chain(home: Path, leader: dict[str, str]) -> None:
    lines = [
        {"key": "build", "prompt": "Build <cut>", **leader},
        {"key": "test", "prompt": "Test", "workspaceId": "@build"},
        {"key": "ship", "prompt": "Ship <cut>", "workspaceId": "@test"},
        {"key": "tell", "prompt": "Tell", "workspaceId": "@ship"},
    ]
    (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_those_who_follow_a_found_line_use_the_workspace_it_asked_for(
    batch: Callable[..., Done], home: Path
) -> None:
    chain(home, {"workspaceId": "ws-7"})
    with Farm() as farm:
        done = batch(farm, None)
        assert done.status == 0, done.err
        assert [body["workspaceId"] for body in farm.bodies] == ["ws-7"] * 4
        assert {row["workspaceId"] for row in lines_of(done.out)} == {"ws-7"}
        assert lines_of(batch(farm, None).out) == lines_of(done.out)


def tells_workspaces(farm: Farm) -> Callable[[Request], Answer | None]:
    """GET /tasks/{id} with its `workspaceId`, which no source shows there, nor in the list."""

    def hook(request: Request) -> Answer | None:
        task = farm.tasks.get(request.path.rsplit("/", 1)[-1])
        if request.method != "GET" or task is None:
            return None
        told = {name: task[name] for name in ("id", "url", "createdAt", "workspaceId")}
        return json_reply({**told, "status": "completed", "completedAt": task["createdAt"]})

    return hook


@pytest.mark.parametrize("in_list", [True, False])
def test_a_workspace_that_the_api_tells_after_all_is_used(
    batch: Callable[..., Done], home: Path, monkeypatch: pytest.MonkeyPatch, in_list: bool
) -> None:
    shown = farm_module._shown
    if in_list:
        monkeypatch.setattr(
            farm_module,
            "_shown",
            lambda task: {**shown(task), "workspaceId": task["workspaceId"]},
        )
    chain(home, {})
    with Farm() as farm:
        farm.hook = farm.hook if in_list else tells_workspaces(farm)
        done = batch(farm, None)
        assert done.status == 0, done.err
        assert len({task["workspaceId"] for task in farm.tasks.values()}) == 1


def test_lines_that_need_an_unknown_workspace_are_skipped(
    batch: Callable[..., Done], home: Path
) -> None:
    chain(home, {})
    with Farm() as farm:
        done = batch(farm, None)
        assert done.status == 1
        assert list(statuses(done).values()) == ["completed", "skipped", "skipped", "skipped"]
        assert "has no known workspace: the answer to its create was lost" in done.err
        assert farm.made == {"Build <cut>": 1}


def never_answers(
    farm: Farm, then: Callable[[Request], Answer | None], *, together: int = 1
) -> Callable[[Request], Answer | None]:
    """Makes each task and closes the line; `then` for all other requests.

    No line is closed before `together` tasks are made, so that their creates are under way at the
    same time however slow the machine is.
    """

    def close(line: Line) -> None:
        eventually(lambda: len(farm.tasks) >= together)
        reset(line)

    def hook(request: Request) -> Answer | None:
        if request.method == "POST":
            farm._make(request.json)
            return close
        return then(request)

    return hook


def with_workspaces(home: Path, asked: list[str | None]) -> None:
    lines = [{"prompt": "Same", "workspaceId": workspace} for workspace in asked]
    (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("asked", [["ws-1", "ws-2"], ["ws-1", None]])
def test_equal_prompts_in_different_workspaces_stay_unknown(
    batch: Callable[..., Done], home: Path, pace: Callable[..., None], asked: list[str | None]
) -> None:
    pace()
    with_workspaces(home, asked)
    with Farm() as farm:
        farm.hook = never_answers(farm, farm.hook, together=2)
        done = batch(farm, None)
        assert set(statuses(done).values()) == {"unknown"}
        assert "settle it with --resolve 2=ID or 2=none" in done.err


def test_a_task_that_was_found_is_not_its_twins(batch: Callable[..., Done], home: Path) -> None:
    """The batch itself knows it, also where the history cannot be written."""
    (home / ".local").write_text("")
    with Farm() as farm:
        farm.hook = never_answers(farm, farm.hook)
        done = batch(farm, ["Same", "Same"], "--rate", "2", "--timeout", "60")
    assert done.status == 0, done.err
    assert sorted(row["id"] for row in lines_of(done.out)) == ["task-00001", "task-00002"]


def test_a_twin_that_is_lost_during_the_search_may_have_created_the_task(
    batch: Callable[..., Done], home: Path, pace: Callable[..., None]
) -> None:
    """It is under way when the look begins and not any more when the look is judged."""
    pace()
    with_workspaces(home, ["ws-1", "ws-2"])
    looks: list[str] = []

    def close_after(happened: Any) -> Answer:
        def close(line: Line) -> None:
            eventually(lambda: happened)
            reset(line)

        return close

    def hook(request: Request) -> Answer | None:
        if request.method == "POST":
            if request.json["workspaceId"] == "ws-1":
                return close_after(farm.tasks)  # with nothing made
            farm._make(request.json)
            return close_after(looks)
        if request.path.endswith("/content") and not looks:
            looks.append(request.path)
            time.sleep(0.2)  # until the loss of the other has been reported
        return None

    with Farm(hook=hook) as farm:
        done = batch(farm, None)
    assert looks == ["/v1/tasks/task-00001/content"]
    assert set(statuses(done).values()) == {"unknown"}


def test_a_line_that_was_told_unknown_may_have_made_the_task(
    batch: Callable[..., Done], home: Path, pace: Callable[..., None]
) -> None:
    """A service that cuts prompts shows its task as that of a line whose create was lost later."""
    pace()
    journal = home / "t.jsonl.journal"

    def make_nothing(line: Line) -> None:
        eventually(lambda: b'"unknown"' in journal.read_bytes())
        reset(line)

    def hook(request: Request) -> Answer | None:
        if request.method != "POST":
            return None
        if request.json["prompt"] == "Review":
            return make_nothing
        farm._make(request.json)
        return reset

    with Farm(hook=hook) as farm:
        farm.shows = first_line
        done = batch(farm, ["Review\nthe login test", "Review"], "--timeout", "20")
    assert statuses(done) == {1: "unknown", 2: "unknown"}


# Results of the search, scan after scan

FOUND = ScanResult(0, {"id": "t1"}, False, [])
ABSENT = ScanResult(0, None, True, [])
DOUBTFUL = ScanResult(0, None, False, ["t1", "t2"])


class Scripted:
    """A finder that says what a test has it say, the last for ever; `seconds` since it was sent."""

    def __init__(self, *says: list[ScanResult] | APIError, seconds: float = 1000.0) -> None:
        self.says = list(says)
        self.seconds = seconds
        self.looks = 0
        self.named: list[str] = []  # the tasks of other lines, by the end of a look

    def find(self, _lost: object, _limit: object) -> dict[int, Verdict]:
        said = self.says[min(self.looks, len(self.says) - 1)]
        self.looks += 1
        if isinstance(said, APIError):
            raise said
        return {result.at: result.verdict for result in said}

    is_busy = False

    def is_outdated(self, candidates: Iterable[str]) -> bool:
        return not {*candidates}.isdisjoint(self.named)

    def is_old(self, one: LostLine) -> bool:
        return self.seconds >= one.patience


class Known:
    """A client whose service answered before."""

    class transport:  # noqa: N801 -- it stands for an attribute
        has_answered = True

        @staticmethod
        def server_now() -> float:
            return 1.0

    def get_task(self, _task: str, *, timeout: float) -> None:
        """Another call than the list."""


Search = Callable[..., Queue[tuple[Any, ...]]]


@pytest.fixture
def search() -> Iterator[Search]:
    """Search for one line; `patient`: the 20 s after which it is called unknown are not over."""
    running = []

    def begin(finder: Scripted, *, patient: bool = False) -> Queue[tuple[Any, ...]]:
        pace = Pace(look_for=1000.0 if patient else 0.0, later=0.01)
        reports: Queue[tuple[Any, ...]] = Queue()
        client: Any = Known()
        stand_in: Any = finder
        tell = lambda *report: reports.put(report)  # noqa: E731
        rounds = search_lost(client, Throttle(), tell, stand_in, pace)
        running.append(rounds)
        rounds.add(0, LostLine(0, "2026-02-09T10:30:00Z", 900.0))
        return reports

    yield begin
    for rounds in running:
        rounds.stop()


def nothing_more(reports: Queue[tuple[Any, ...]], finder: Scripted) -> None:
    """After three further looks there is nothing to say."""
    looks = finder.looks
    eventually(lambda: finder.looks >= looks + 3)
    with pytest.raises(Empty):
        reports.get_nowait()


def test_a_found_task_is_reported_once_and_not_searched_for_again(search: Search) -> None:
    finder = Scripted([FOUND])
    reports = search(finder, patient=True)
    assert reports.get(timeout=20) == ("found", 0, {"id": "t1"})
    with pytest.raises(Empty):
        reports.get(timeout=0.1)
    assert finder.looks == 1


def test_a_create_old_enough_to_be_sent_again(search: Search) -> None:
    assert search(Scripted([ABSENT], seconds=900.0)).get(timeout=20) == ("absent", 0, None)


def test_a_missing_task_is_reported_unknown_once_and_still_searched_for(search: Search) -> None:
    finder = Scripted([ABSENT], seconds=899.0)
    reports = search(finder)
    assert reports.get(timeout=20) == ("unknown", 0, [])
    nothing_more(reports, finder)
    finder.seconds = 900.0
    assert reports.get(timeout=20) == ("absent", 0, None)


def test_candidates_are_named_and_prevent_absent(search: Search) -> None:
    finder = Scripted([DOUBTFUL])
    reports = search(finder)
    told = reports.get(timeout=20)
    assert told[1:] == (0, ["t1", "t2"])
    assert told[0] in ("unsure", "unknown")


def test_candidates_are_reported_before_unknown(search: Search) -> None:
    reports = search(Scripted([DOUBTFUL]), patient=True)
    assert reports.get(timeout=20) == ("unsure", 0, ["t1", "t2"])


def test_a_task_that_another_create_made_during_the_scan_is_no_candidate(search: Search) -> None:
    """It was in the list before its own create was answered, on a machine that was slow then."""
    finder = Scripted(*[[DOUBTFUL]] * 3, [FOUND])
    finder.named = ["t2"]
    reports = search(finder)
    assert reports.get(timeout=20) == ("unsure", 0, ["t1", "t2"])
    assert reports.get(timeout=20) == ("found", 0, {"id": "t1"})


def test_no_scan_is_put_off_before_a_line_is_told_unknown() -> None:
    """The first scan may be late, and only from then on does the time of the search count."""
    client: Any = Known()
    finder: Any = Scripted([DOUBTFUL])
    rounds = search_lost(client, Throttle(), print, finder, PACE._replace(look_for=1000.0))
    rounds.ask({0: LostLine(0, "2026-02-09T10:30:00Z", 900.0)})
    assert rounds.pause(1001.0, 1) == PACE.longest_pause


def test_a_list_that_gets_no_answer_is_asked_again() -> None:
    """A busy machine answers late: one scan that was cut off is no reason to give a line up."""
    client: Any = Known()
    finder: Any = Scripted(NetworkError("timed out"))
    told: list[tuple[Any, ...]] = []
    tell = lambda *report: told.append(report)  # noqa: E731
    rounds = search_lost(client, Throttle(), tell, finder, Pace(look_for=0.0))
    for _ in range(SCANS):
        assert told == []
        rounds.ask({0: LostLine(0, "2026-02-09T10:30:00Z", 900.0)})
    assert told == [("unknown", 0, [])]


@pytest.mark.parametrize("status", [400, 404, 410])
def test_without_a_list_the_outcome_is_unknown_and_nothing_is_resent(
    search: Search, status: int
) -> None:
    """However old it is: that the list is refused says nothing about the task."""
    finder = Scripted(APIError("no list here", status_code=status))
    reports = search(finder)
    assert reports.get(timeout=20) == ("unknown", 0, [])
    nothing_more(reports, finder)


def test_a_fault_is_looked_past(search: Search) -> None:
    finder = Scripted(ServerFault("down", status_code=503), [FOUND])
    assert search(finder, patient=True).get(timeout=20) == ("found", 0, {"id": "t1"})


BROKEN_LISTS = {
    "html": lambda: reply(200, b"<html>Sign in</html>", {"Content-Type": "text/html"}),
    "object": lambda: json_reply({}),
    "null": lambda: json_reply(None),
    "list": lambda: json_reply([]),
    "cut": lambda: reply(200, b'{"data":[{"id":"t', {"Content-Type": "application/json"}),
    "429": lambda: error_reply(429, "rate_limited", "Slow down"),
    "500": lambda: error_reply(500, "internal", "Oops"),
    "502": lambda: error_reply(502, "bad_gateway", "Oops"),
    "503": lambda: error_reply(503, "unavailable", "Later"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN_LISTS)
def test_a_list_that_is_broken_for_good_ends_in_unknown(
    batch: Callable[..., Done], pace: Callable[..., None], name: str
) -> None:
    """As for a single create; the other lines are created, and the network is not blamed."""
    pace(look_for=0.2, shortest_scan=1.0, later=30.0)

    def hook(request: Request) -> Answer | None:
        return BROKEN_LISTS[name]() if request.path.startswith("/v1/tasks?") else None

    with Farm(hook=hook) as farm:
        done = batch(farm, ["One <cut>", "Two", "Three"], "--timeout", "60")
        assert farm.tried == {"One <cut>": 1, "Two": 1, "Three": 1}
    assert done.status == 6
    assert statuses(done) == {1: "unknown", 2: "completed", 3: "completed"}
    assert "network" not in done.err


def test_a_list_that_alone_gets_no_answer_ends_in_unknown(
    batch: Callable[..., Done], pace: Callable[..., None]
) -> None:
    """While other calls are answered, the network is not to blame."""
    pace(look_for=0.2, shortest_scan=0.5, later=30.0)

    def hook(request: Request) -> Answer | None:
        return reset if request.path.startswith("/v1/tasks?") and farm.tried else None

    with Farm(hook=hook) as farm:
        done = batch(farm, ["One <cut>", "Two"], "--timeout", "15")
        assert farm.tried == {"One <cut>": 1, "Two": 1}
    assert done.status == 6, done.err
    assert statuses(done) == {1: "unknown", 2: "completed"}
    assert "not finished" not in done.err, "it ends without --timeout"


def test_a_rejected_key_ends_the_batch(search: Search) -> None:
    rejected = KeyRejected("no", status_code=401)
    assert search(Scripted(rejected)).get(timeout=20) == ("fatal", None, rejected)
