"""A batch without the command around it: as a Python program runs one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.batch.input import InputSource, make_plan, read_source
from rebyte_cli.batch.journal import JournalHeld
from rebyte_cli.batch.place import BatchOptions, BatchPlace
from rebyte_cli.batch.session import Batch
from rebyte_cli.history.history import History
from tests.farm import Farm


@contextmanager
def batch_of(folder: Path, farm: Farm) -> Iterator[Batch]:
    source = InputSource(str(folder / "t.jsonl"))
    lines = read_source(source, None, defaults={}, files=(), labels={})
    history = History(folder / "history.db", origin=farm.server.origin)
    clients: list[RebyteClient] = []

    def connect(**options: Any) -> RebyteClient:
        transport = Transport(farm.server.base_url, "rbk_farm", **options)
        clients.append(RebyteClient(transport=transport))
        return clients[-1]

    yield Batch(
        source,
        lines,
        make_plan(lines.lines, source.name),
        [BatchPlace("default", farm.server.origin, connect, history)],
        folder / "locks",
    )
    for client in clients:
        client.close()
    history.close()


def test_a_program_runs_a_batch_and_resumes_it(home: Path) -> None:
    lines = [json.dumps({"prompt": f"Number {number}"}) + "\n" for number in range(3)]
    (home / "t.jsonl").write_text("".join(lines))
    seen = []
    with Farm() as farm:
        for _ in range(2):
            with batch_of(home, farm) as batch, batch.held(BatchOptions()) as run:
                seen.append([row for row in run.run() if isinstance(row, dict)])
        assert sum(farm.made.values()) == 3
    assert sorted(row["line"] for row in seen[0]) == [1, 2, 3]
    assert {row["status"] for row in seen[0]} == {"completed"}
    assert sorted(seen[0], key=lambda row: row["line"]) == seen[1]


def test_a_batch_that_is_not_run_lets_go_of_its_journal(home: Path) -> None:
    (home / "t.jsonl").write_text('{"prompt": "One"}\n')
    with Farm() as farm, batch_of(home, farm) as batch, batch_of(home, farm) as second:
        with batch.held(BatchOptions()), pytest.raises(JournalHeld), second.held(BatchOptions()):
            pass
        with second.held(BatchOptions()) as run:
            assert len(list(run.run())) == 1
        assert [row["status"] for row in second.status()] == ["completed"]
