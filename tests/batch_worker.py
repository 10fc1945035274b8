"""One worker of a batch on a bench: a server, a journal, a throttle, and what is reported.

with RawServer(…) as server:
    bench = WorkerBench(folder, server)
    kind, value = bench.create(0)
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from io import BytesIO
from pathlib import Path
from queue import Queue
from typing import Any

from rebyte_cli import RebyteClient
from rebyte_cli.batch.input import Input, read_input
from rebyte_cli.batch.journal import Journal
from rebyte_cli.batch.line_fields import LineChecker, LineFields
from rebyte_cli.batch.throttle import Throttle
from rebyte_cli.batch.workers import Job, RunBaseline, WorkerPool
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask
from rebyte_cli.once.ledger import Ledger
from rebyte_cli.once.server_clock import ServerClock
from tests.servers import RawServer, json_reply, transport_to

MADE = json_reply({"id": "t1", "status": "running"}, 201, {"Date": formatdate(usegmt=True)})


class KnownBaseline(RunBaseline):
    """One that was asked already, so that a server's script begins with the creates."""

    def ask(self) -> None:
        """Ask nothing."""


def input_of(records: Iterable[Mapping[str, Any]]) -> Input:
    """The input of a file of JSON Lines with these records."""
    data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    return read_input(
        iter(BytesIO(data).readline, b""),
        "t",
        form="jsonl",
        template=None,
        checker=LineChecker(
            LineFields({}), workspace_per_line=False, find_files=lambda path: [path]
        ),
    )


class WorkerBench:
    """One worker, and what it reports; `answers` are those of the server, the last for ever."""

    def __init__(
        self, folder: Path, server: RawServer, count: int = 1, throttle: Throttle | None = None
    ) -> None:
        self.batch = input_of([{"prompt": f"n {n}", "files": ["f"][:n]} for n in range(2)] * 20)
        self.told: list[str] = []
        self.upload: Any = lambda path: {"id": "f1", "filename": path}
        self.throttle = throttle or Throttle(note=self.told.append)
        self.journal = Journal(folder / "j", {"input": "d"}, run={})
        self.history = History(folder / "history.db", origin="o")
        self.ledger = Ledger(self.history, "batch", self.journal.sync)
        self.journal.after_write = self.ledger.write
        self.reports: Queue[tuple[str, int, Any]] = Queue()
        self.client = RebyteClient(transport=transport_to(server, sleep=lambda _seconds: None))
        self.pool = WorkerPool(
            self.client,
            self.batch,
            self.journal,
            self.ledger,
            self.throttle,
            lambda *report: self.reports.put(report),
            count=count,
            baseline=KnownBaseline(self.client, ServerClock(self.client)),
            upload=lambda path: self.upload(path),
            new_task=self.new_task,
        )

    def new_task(self, _line: Any, task: Mapping[str, Any], body: Mapping[str, Any]) -> NewTask:
        self.sent = dict(body)
        return NewTask(task, body["prompt"], body)

    def create(self, at: int) -> tuple[str, Any]:
        """Have a line created; what was reported of it."""
        self.pool.put(Job(at, None))
        kind, line, value = self.reports.get(timeout=20)
        assert line == at
        return kind, value

    def states(self) -> list[str]:
        """What the journal says, in order."""
        self.journal.sync()
        records = [json.loads(line) for line in self.journal.path.read_bytes().splitlines()]
        return [record["is"] for record in records if "is" in record]

    def close(self) -> None:
        self.throttle.stop()
        self.pool.stop()
        self.journal.close()
        self.client.close()


def take_away(server: RawServer) -> None:
    """End a server, and wait until its port refuses."""
    server.__exit__(None, None, None)
    while True:
        try:
            socket.create_connection(("127.0.0.1", server.port), 5).close()
        except ConnectionRefusedError:
            return
        except OSError:  # the last one that it took
            continue
