"""A service, a proxy that cuts, a client, and a history.

The pauses of a search take no time: its clock moves only while it sleeps.
"""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.config.credentials import LOCAL_KEY
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import digest_of
from rebyte_cli.local.local_service import Service
from rebyte_cli.once.request_kinds import TaskRequest
from rebyte_cli.once.search import PACE
from rebyte_cli.system.clock import awake_since_boot, boot_id
from rebyte_cli.tasks import create
from tests.cutting_proxy import CuttingProxy
from tests.task_board import Time

PATIENT = PACE._replace(shortest_scan=30.0)  # the machine may be busy
TASKS = r"/v1/tasks$"
PROMPT = "Fix the login test, then say what was wrong"


def timestamp(
    ago: timedelta = timedelta(0), *, wrong: timedelta = timedelta(0), has_baseline: bool = True
) -> str:
    """What a process wrote `ago` on this machine, whose clock was `wrong` at the time.

    The baseline is that of a service without any task.
    """
    written = (datetime.now(UTC) - ago + wrong).isoformat(timespec="milliseconds")
    up = awake_since_boot() - ago.total_seconds()
    return f"{written}[boot={boot_id()}][up={up:.3f}]" + "[total=0]" * has_baseline


class Bench:
    """What a test of creates and follow-ups works on."""

    def __init__(self, folder: Path, service: Service, proxy: CuttingProxy) -> None:
        self.folder = folder
        self.proxy = proxy
        self.direct = RebyteClient(LOCAL_KEY, base_url=service.base_url)
        self.client = self.connect()
        self.history = self.memory()
        self.notes: list[str] = []

    def connect(self, **options: Any) -> RebyteClient:
        transport = Transport(self.proxy.base_url, LOCAL_KEY, random=lambda: 0.0, **options)
        return RebyteClient(transport=transport)

    def memory(self) -> History:
        """The history as another process opens it."""
        return History(self.folder / "history.db", origin="test")

    def create(self, prompt: str = PROMPT, **options: Any) -> dict[str, Any]:
        body = {"prompt": prompt, **options.pop("body", {})}
        arguments = {**self._search(), **options}
        client = arguments.pop("client", self.client)
        history = arguments.pop("history", self.history)
        return create.create(client, history, body, prompt=prompt, **arguments)

    def follow_up(self, task_id: str, prompt: str = PROMPT, **options: Any) -> dict[str, Any]:
        arguments = {**self._search(), **options}
        return create.follow_up(self.client, self.history, task_id, {"prompt": prompt}, **arguments)

    def _search(self) -> dict[str, Any]:
        at = Time()
        timing = {"deadline": at.deadline(), "sleep": at.sleep, "pace": PATIENT}
        return {"note": self.notes.append, **timing}

    def cut_off(
        self,
        key: str | None = None,
        *,
        owner: str = "gone",
        prompt: str = PROMPT,
        ago: timedelta = timedelta(0),
        started_at: str | None = None,
        **more: str,
    ) -> None:
        """Leave what a process leaves that died after it wrote its intent."""
        body = {"prompt": prompt, **more}
        history = self.memory()
        with nullcontext() if key is None else history.intents.hold(key):
            history.intents.open(
                key,
                digest=digest_of(prompt),
                body_digest=TaskRequest(self.client, self.history, body, prompt).body_digest,
                started_at=started_at or timestamp(ago, has_baseline=key is not None),
                owner=owner,
            )
        history.close()

    def on_server(self) -> list[str]:
        """The ids of all tasks, oldest first."""
        return [row["id"] for row in self.direct.iter_tasks()][::-1]
