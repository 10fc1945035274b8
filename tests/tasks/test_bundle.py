"""What another machine has of the repositories here; see also `tests/api/test_ssh.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.local.agents.agent_permission import machine_key
from rebyte_cli.local.local_service import Service
from rebyte_cli.system.trust import Trust, key_of
from rebyte_cli.tasks.bundle import Bundles
from tests.repositories import git, small_repository


def test_trust_in_a_repository_there_does_not_cover_a_fork_of_it_here(tmp_path: Path) -> None:
    """Its `.rebyte.toml` may be the same, but not the program that it names."""
    state, one, fork, linked = (tmp_path / name for name in ("state", "one", "fork", "linked"))
    small_repository(one)
    git(tmp_path, "clone", "-q", str(one), str(fork))
    git(one, "worktree", "add", "-q", str(linked))
    with (
        Service(state) as service,
        RebyteClient(base_url=service.base_url, api_key=machine_key(state)) as client,
    ):
        there = [
            Bundles().replaced(client, {"localRepository": str(folder)})["localRepository"]
            for folder in (one, linked, fork)
        ]
    trust = Trust(state)
    trust.add(key_of(there[0]), b"setup = './setup.sh'", "")
    covered = [trust.covers(key_of(each), b"setup = './setup.sh'") for each in there]
    assert covered == [True, True, False]


@pytest.mark.parametrize("said", ["HEAD", "main", "HEAD^{/.}"])
def test_what_a_service_says_it_has_is_a_commit_and_no_search_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    repository = small_repository(tmp_path / "one")
    monkeypatch.setattr(RebyteClient, "repository_commits", lambda _client, _key: [said])
    with (
        Service(tmp_path / "state") as service,
        RebyteClient(base_url=service.base_url, api_key=machine_key(tmp_path / "state")) as client,
    ):
        there = Bundles().replaced(client, {"localRepository": str(repository)})
    head = git(repository, "rev-parse", "HEAD")
    assert git(Path(there["localRepository"]), "rev-parse", there["branchName"]) == head
