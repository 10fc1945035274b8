"""A repository with a `.rebyte.toml`, and runs of an agent on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rebyte_cli.local.agents.supervision.runs import RunRecord
from rebyte_cli.system.repository_file import FILE, parse
from rebyte_cli.system.trust import Trust, key_of
from tests.repositories import git

from .bench import Bench

SHELL = ["sh", "-s"]  # runs its prompt


class Shop:
    """A repository, and runs of an agent on it that does what its prompt says."""

    def __init__(self, bench: Bench, path: Path) -> None:
        self.bench = bench
        self.path = path

    def say(self, text: str, *, trusted: bool = True) -> None:
        """Commit this `.rebyte.toml`."""
        (self.path / FILE).write_text(text)
        git(self.path, "add", "-A")
        git(self.path, "commit", "-qm", "Say how")
        if trusted:
            parsed = parse(text.encode())
            Trust(self.bench.folder).add(key_of(self.path), parsed.content, "")

    def start(self, prompt: str = "cat made", **options: Any) -> str:
        source = [str(self.path), None, options.pop("changes", False)]
        return self.bench.start(SHELL, prompt, source=source, **options)

    def run(self, prompt: str = "cat made", **options: Any) -> RunRecord:
        return self.bench.wait(self.start(prompt, **options))

    def output(self, run: RunRecord) -> str:
        """What the setup printed, as the transcript has it."""
        return "\n".join(
            event.payload["output"]
            for event in self.bench.events(run.prompt)
            if event.kind == "tool_result" and event.payload["id"] == "setup"
        )
