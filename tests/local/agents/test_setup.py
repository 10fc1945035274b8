"""The `setup` of a repository that is trusted: before the agent, in the jail."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.system.repository_file import FILE, read
from rebyte_cli.system.trust import Trust, key_of
from tests.repositories import git
from tests.waiting import eventually

from .bench import NAP, Bench, processes
from .shop import Shop


@pytest.mark.slow
def test_the_agent_finds_what_it_made(shop: Shop, bench: Bench) -> None:
    shop.say('setup = "pwd; cat answer.txt > made; echo done"')
    run = shop.run()
    assert (run.outcome, run.answer) == ("succeeded", "none"), run
    assert shop.output(run) == "/code\ndone"
    kinds = [event.kind for event in bench.events(run.prompt)]
    assert kinds[:3] == ["text", "tool_use", "tool_result"]
    assert bench.said(run.prompt).startswith("From .rebyte.toml: setup `pwd; cat")
    log = bench.run_folder(run.prompt) / "setup.log"
    assert log.read_text().startswith("/code\n")
    assert list(bench.workspace().folder.glob("setup-home.*")) == []


@pytest.mark.slow
def test_only_the_first_run_of_a_workspace_has_it(shop: Shop) -> None:
    """Later ones find the agent's files there: what runs then is no longer the repository's."""
    shop.say('setup = "sh install.sh"')
    (shop.path / "install.sh").write_text("echo mine > made\n")
    git(shop.path, "add", "-A")
    git(shop.path, "commit", "-qm", "Install")
    assert shop.run("echo 'echo evil > made' > install.sh; rm made").outcome == "succeeded"
    assert shop.run("test ! -e made && echo none").answer == "none"


@pytest.mark.slow
def test_until_it_is_trusted_it_is_only_told(shop: Shop, bench: Bench) -> None:
    shop.say('setup = "echo > made"', trusted=False)
    run = shop.run("test ! -e made && echo none")
    assert run.answer == "none"
    said = bench.said(run.prompt)
    assert said.startswith("This repository's .rebyte.toml asks for: setup `echo > made`\n")
    assert f"`rebyte local trust {run.task}`" in said
    shop.say('setup = "echo one > made"')
    shop.say('setup = "echo two > made"', trusted=False)
    assert shop.run("test ! -e made && echo none", workspace="other").answer == "none"


@pytest.mark.slow
def test_an_agent_that_edits_it_changes_nothing(shop: Shop) -> None:
    shop.say('setup = "echo one > made"')
    edit = """echo 'setup = "echo evil > made"' > .rebyte.toml; git commit -qam Evil; cat made"""
    assert shop.run(edit).answer == "one"
    assert shop.run("cat made").answer == "one"
    assert shop.run(workspace="other").answer == "one"


@pytest.mark.slow
def test_uncommitted_changes_do_not_count(shop: Shop) -> None:
    """They come along, but `.rebyte.toml` is read in the commit below them."""
    shop.say('setup = "echo one > made"')
    (shop.path / FILE).write_text('setup = "echo two > made"')
    Trust(shop.bench.folder).add(key_of(shop.path), (shop.path / FILE).read_bytes(), "")
    (shop.path / "new.txt").write_text("new\n")
    assert shop.run("cat made new.txt", changes=True).answer == "one\nnew"


@pytest.mark.slow
def test_one_that_fails_fails_the_run(shop: Shop, bench: Bench) -> None:
    shop.say('setup = "seq 100; echo no network >&2; test -e ready || exit 3; echo > made"')
    run = shop.run("echo never")
    assert run.outcome == "failed"
    assert run.answer is not None
    assert run.answer.startswith("The setup of the repository failed: it exited with status 3\n")
    assert run.answer.endswith("\n100\nno network")
    assert "never" not in bench.said(run.prompt)
    (bench.workspace().code / "ready").touch()
    assert shop.run("test -e made && echo yes").answer == "yes"


@pytest.mark.slow
def test_it_has_a_limit(shop: Shop) -> None:
    shop.say(f'setup = "echo begun; sleep {NAP}1"')
    run = shop.run(limit=3)
    assert (run.outcome, processes(f"{NAP}1")) == ("failed", [])
    assert "it ran longer than 3 s and was ended" in str(run.answer)
    assert str(run.answer).endswith("begun")


@pytest.mark.slow
def test_it_leaves_no_process(shop: Shop) -> None:
    shop.say(f'setup = "setsid sleep {NAP}2 >/dev/null 2>&1 & echo > made"')
    assert shop.run().outcome == "succeeded"
    assert processes(f"{NAP}2") == []


@pytest.mark.slow
def test_a_cancel_ends_it(shop: Shop, bench: Bench) -> None:
    shop.say(f'setup = "sleep {NAP}3"')
    prompt = shop.start()
    eventually(lambda: len(processes(f"{NAP}3")) > 0, seconds=60)
    bench.cancel(prompt)
    assert bench.wait(prompt).outcome == "canceled"
    assert processes(f"{NAP}3") == []


@pytest.mark.slow
def test_after_a_kill_the_next_run_has_it(shop: Shop, bench: Bench) -> None:
    shop.say(f'setup = "echo > made; test -e again || sleep {NAP}4"')
    prompt = shop.start()
    made = bench.workspace().code / "made"
    eventually(made.exists, seconds=60)
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    assert bench.wait(prompt).outcome == "failed"
    eventually(lambda: processes(f"{NAP}4") == [], seconds=60)
    (bench.workspace().code / "again").touch()
    made.unlink()
    assert shop.run("test -e made && echo yes").answer == "yes"


PROBE = """
env > seen; ls -A ~ >> seen; cat /proc/*/environ >> seen 2>/dev/null; cat ~/.netrc >> seen
for path in v1/models v1/messages v1/chat/completions; do
    python3 -c 'import os, sys, urllib.request as r
print(r.build_opener(r.ProxyHandler({})).open(os.environ["HTTP_PROXY"] + "/" + sys.argv[1]).read())
' $path >> answers 2>&1 && echo ANSWERED >> answers
done
echo "machine other.example" > ~/.netrc; true
"""


@pytest.mark.slow
def test_it_has_no_key_no_login_and_no_model(
    shop: Shop, user_home: Path, monkeypatch: pytest.MonkeyPatch, keyed: Callable[[], list[str]]
) -> None:
    """Nor what was left in HOME, and it leaves nothing there."""
    secrets = keyed()
    shop.say(f"setup = {json.dumps(PROBE)}")
    run = shop.run("cat seen answers; ls -A ~")
    assert run.outcome == "succeeded", run
    seen = (shop.bench.workspace().code / "seen").read_text()
    assert "HTTP_PROXY=" in seen
    assert [secret for secret in secrets if secret in seen] == []
    assert "ANSWERED" not in (shop.bench.workspace().code / "answers").read_text()
    assert not (shop.bench.workspace().home / ".netrc").exists()


@pytest.fixture
def keyed(user_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What gives the supervisor keys and the user logins; it returns their secrets."""

    def given() -> list[str]:
        names = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "REBYTE_CLONE_PASSWORD")
        for name in names:
            monkeypatch.setenv(name, f"secret of {name}")
        (user_home / ".claude").mkdir()
        (user_home / ".claude/.credentials.json").write_text('{"token": "secret login"}')
        (user_home / ".netrc").write_text("machine secret.example")
        return [*(f"secret of {name}" for name in names), "secret login", "secret.example"]

    return given


ASK = """
python3 -c 'import urllib.request as r
r.urlopen("http://{0}/")' || true
"""


@pytest.mark.slow
def test_its_hosts_are_those_of_the_run(shop: Shop, bench: Bench) -> None:
    """`allow` of the file counts for the setup and for the agent, and nothing else does."""
    ask = ASK.format("allowed.invalid") + ASK.format("other.invalid")
    shop.say(f'setup = {json.dumps(ask + "echo > made")}\nallow = ["allowed.invalid"]')
    run = shop.run(ask)
    assert run.outcome == "succeeded"
    said = bench.said(run.prompt)
    assert said.count("1 request to other.invalid was refused; allow it with --allow") == 2
    assert "to allowed.invalid was refused" not in said
    again = shop.run(ask)
    assert "to allowed.invalid was refused" not in bench.said(again.prompt)
    none = shop.run(ask, workspace="none", network="none")
    assert "to allowed.invalid was refused" in bench.said(none.prompt)


@pytest.mark.slow
def test_options_win(shop: Shop, bench: Bench) -> None:
    shop.say('setup = "echo > made"')
    run = shop.run("test ! -e made && echo none", setup=False)
    assert (run.answer, bench.said(run.prompt)) == ("none", "none")
    run = shop.run("test ! -e made && echo none", workspace="open", jail=False)
    assert run.answer == "none"
    said = bench.said(run.prompt)
    assert said.startswith("Not without a sandbox, of .rebyte.toml: setup `echo > made`")


@pytest.mark.slow
def test_a_development_container_has_one(shop: Shop, bench: Bench) -> None:
    """Under the same trust, which says where it is from."""
    (shop.path / ".devcontainer.json").write_text('{"postCreateCommand": "echo dev > made"} // x')
    git(shop.path, "add", "-A")
    git(shop.path, "commit", "-qm", "Container")
    run = shop.run("test ! -e made && echo none")
    assert run.answer == "none"
    where = "setup `echo dev > made` (postCreateCommand of .devcontainer.json)"
    assert f"This repository's .devcontainer.json asks for: {where}" in bench.said(run.prompt)
    found = read(shop.path, "HEAD")
    assert found is not None
    Trust(bench.folder).add(key_of(shop.path), found.content, "")
    run = shop.run(workspace="other")
    assert run.answer == "dev"
    assert f"From .devcontainer.json: {where}" in bench.said(run.prompt)
