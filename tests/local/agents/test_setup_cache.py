"""Folders that a setup fills are kept, so that the next workspace need not fill them again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from rebyte_cli.local.agents.workspaces import setup_cache, sync
from tests.repositories import git
from tests.waiting import eventually

from .bench import Bench
from .shop import Shop

# What an installation is: it takes long, and says so.
MAKE = "mkdir -p lib; echo one > lib/one; : > lib/ready"
INSTALL = f"test -e lib/ready || {{ echo installing; {MAKE}; }}"
SAYS = f'setup = "{INSTALL}"\ncache = ["lib"]\n'


def entries(bench: Bench) -> list[Path]:
    """What is kept."""
    return sorted((bench.folder / setup_cache.FOLDER).glob("*/*"))


def commit(shop: Shop, name: str, text: str = "", *options: str) -> str:
    (shop.path / name).write_text(text)
    git(shop.path, "add", "-A")
    git(shop.path, "commit", "-qm", name, *options)
    return git(shop.path, "rev-parse", "HEAD").strip()


@pytest.mark.slow
def test_the_second_run_does_not_install_again(shop: Shop, bench: Bench) -> None:
    """Nor one at a later commit; and what is kept is in no patch."""
    shop.say(SAYS)
    first = shop.run("cat lib/one", workspace="one")
    assert (first.answer, shop.output(first)) == ("one", "installing")
    second = shop.run("cat lib/one", workspace="two")
    assert (second.answer, shop.output(second)) == ("one", "")
    assert "From the cache of " in bench.said(second.prompt)
    commit(shop, "later")
    third = shop.run("cat lib/one; echo new > new", workspace="three")
    assert (third.answer, shop.output(third)) == ("one", "")
    assert "lib" not in str(bench.artifact("changes.patch", "three"))
    assert "new" in str(bench.artifact("changes.patch", "three"))
    assert len(entries(bench)) == 1


@pytest.mark.slow
def test_what_an_agent_writes_reaches_no_other_run(shop: Shop, bench: Bench) -> None:
    """Not through its copy, nor through links that it leaves there, nor in a follow-up."""
    shop.say(SAYS)
    shop.run("echo evil > lib/one; ln -s /etc lib/etc; rm lib/ready", workspace="one")
    shop.run("echo evil > lib/two; touch lib/ready", workspace="one")
    run = shop.run("cat lib/one; ls lib", workspace="two")
    assert run.answer == "one\none\nready"


@pytest.mark.slow
def test_what_a_branch_leaves_reaches_only_what_comes_after_it(shop: Shop, bench: Bench) -> None:
    """Its code has run in its setup, and that may be a stranger's, whoever wrote its commits."""
    shop.say(SAYS.replace("echo one", "cat answer.txt"))
    git(shop.path, "checkout", "-qb", "stranger")
    commit(shop, "answer.txt", "evil\n", "--author", "rebyte <rebyte@localhost>")
    assert shop.run("cat lib/one", workspace="stranger").answer == "evil"
    git(shop.path, "checkout", "-q", "main")
    run = shop.run("cat lib/one", workspace="main")
    assert (run.answer, shop.output(run)) == ("none", "installing")
    git(shop.path, "checkout", "-qb", "mine")
    commit(shop, "answer.txt", "mine\n")
    assert shop.run("cat lib/one", workspace="mine").answer == "none"
    assert len(entries(bench)) == 2


@pytest.mark.slow
def test_what_a_setup_that_failed_leaves_is_not_kept_after_a_sync(shop: Shop, bench: Bench) -> None:
    """The next run sets up again, at a commit that has nothing to do with the first one."""
    (shop.path / ".gitignore").write_text("lib\ndownloads\n")
    commit(shop, "setup.sh", "mkdir lib; cp downloads/one lib 2>/dev/null || echo one > lib/one")
    shop.say('setup = "sh setup.sh"\ncache = ["lib"]\n')
    git(shop.path, "checkout", "-qb", "stranger")
    commit(shop, "setup.sh", "mkdir downloads; echo evil > downloads/one; false")
    first = shop.run("cat lib/one", workspace="one")
    assert first.outcome == "failed"
    git(shop.path, "checkout", "-q", "main")
    assert sync.bring(bench.workspace("one"), shop.path, None, first.prompt, {}, str)
    assert shop.run("cat lib/one", workspace="one").answer == "evil"
    assert entries(bench) == []
    assert shop.run("cat lib/one", workspace="two").answer == "one"


@pytest.mark.slow
def test_uncommitted_changes_and_uploads_are_not_kept(shop: Shop, bench: Bench) -> None:
    shop.say(SAYS)
    (shop.path / "answer.txt").write_text("changed\n")
    assert shop.run("cat lib/one", changes=True).answer == "one"
    upload = shop.path.parent / "upload"
    upload.write_text("x")
    assert shop.run("cat lib/one", workspace="up", uploads=[["up", str(upload)]]).answer == "one"
    assert entries(bench) == []


@pytest.mark.slow
def test_an_upload_to_an_earlier_run_is_not_kept(shop: Shop, bench: Bench) -> None:
    """A setup that failed runs again in the next run, where the file still is."""
    upload = shop.path.parent / "upload"
    upload.write_text("secret")
    made = "mkdir -p lib; cat up > lib/one; test -e tried || { touch tried; exit 1; }"
    shop.say(f'setup = "{made}"\ncache = ["lib"]\n')
    assert shop.run("cat lib/one", uploads=[["up", str(upload)]]).outcome == "failed"
    assert shop.run("cat lib/one").answer == "secret"
    assert entries(bench) == []


@pytest.mark.slow
def test_what_the_setup_changes_is_kept_anew(shop: Shop, bench: Bench) -> None:
    shop.say('setup = "date +%N >> lib.txt; mkdir -p lib; echo x >> lib/count"\ncache = ["lib"]\n')
    for number in (1, 2, 3):
        run = shop.run("wc -l < lib/count", workspace=f"ws{number}")
        assert run.answer == str(number)
    assert len(entries(bench)) == 1


@pytest.mark.slow
def test_links_modes_and_hidden_files_are_as_they_were(shop: Shop) -> None:
    """As a virtual environment has them. A link that leads out is copied as a link."""
    make = "mkdir -p .venv/bin; ln -sf /usr/bin/env .venv/bin/env; echo x > .venv/bin/.x"
    make += "; chmod 750 .venv/bin/.x; mkfifo .venv/pipe; ln .venv/bin/.x .venv/hard"
    shop.say(f'setup = "test -e .venv || {{ {make}; }}"\ncache = [".venv", "web/lib"]\n')
    look = "readlink .venv/bin/env; stat -c '%a %h %F' .venv/bin/.x .venv/pipe"
    first = shop.run(look, workspace="one")
    assert first.answer == "/usr/bin/env\n750 2 regular file\n600 1 fifo"
    assert shop.run(look, workspace="two").answer == first.answer


@pytest.mark.slow
@pytest.mark.parametrize("trap", ["ln -s /home/agent lib", "ln -s ../../.. web; mkdir web/lib"])
def test_a_link_in_the_place_of_a_folder_is_not_kept(shop: Shop, bench: Bench, trap: str) -> None:
    name = "web/lib" if "web" in trap else "lib"
    shop.say(f'setup = "{trap} || :"\ncache = ["{name}"]\n')
    assert shop.run("true").outcome == "succeeded"
    assert entries(bench) == []


@pytest.mark.slow
def test_what_the_repository_has_is_its_own(shop: Shop, bench: Bench) -> None:
    """No run would find there what its commit has, and a link of it could lead anywhere."""
    (shop.path / "lib").mkdir()
    (shop.path / "lib/mine").write_text("mine\n")
    (shop.path / "web").symlink_to("lib")
    shop.say('setup = "echo x > lib/x"\ncache = ["lib", "web/lib", "other"]\n')
    run = shop.run("cat lib/mine lib/x; ls", workspace="one")
    assert run.answer == "mine\nx\nanswer.txt\nlib\nweb"
    said = bench.said(run.prompt)
    assert "Not kept, since the repository has it: lib\n" in said
    assert "Not kept, since the repository has it: web/lib\n" in said
    assert entries(bench) == []


@pytest.mark.slow
def test_a_setup_that_fails_is_not_kept(shop: Shop, bench: Bench) -> None:
    """And the next try begins without what it left."""
    shop.say('setup = "test ! -e lib; mkdir lib; echo x > lib/x; test -e go"\ncache = ["lib"]\n')
    assert shop.run("true").outcome == "failed"
    assert entries(bench) == []
    (bench.workspace().code / "go").touch()
    assert shop.run("cat lib/x").answer == "x"


MANY = """
import os
for number in range(100):
    os.makedirs(f'lib/{number}')
    for each in range(60): open(f'lib/{number}/{each}', 'w').write('x')
"""


@pytest.mark.slow
def test_a_kill_while_it_is_kept_leaves_nothing_half(shop: Shop, bench: Bench) -> None:
    """The next run installs again, and removes what the copy has left."""
    (shop.path / "many.py").write_text(MANY)
    shop.say('setup = "test -e lib || { echo installing; python3 many.py; }"\ncache = ["lib"]\n')
    prompt = shop.start("true")
    making = eventually(lambda: [one for one in entries(bench) if one.name.startswith("new-")])
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    assert bench.wait(prompt).outcome == "failed"
    assert all(one.name.startswith("new-") for one in entries(bench)), "it was killed too late"
    run = shop.run("ls lib | wc -l; ls lib/* | grep -c .", workspace="other")
    assert (run.outcome, shop.output(run)) == ("succeeded", "installing"), run
    assert making[0] not in entries(bench)
    run = shop.run("find lib -type f | wc -l", workspace="third")
    assert (run.answer, shop.output(run)) == ("6000", "")
    again = shop.run("find lib -type f | wc -l")  # the workspace of the run that was killed
    assert (again.answer, shop.output(again)) == ("6000", "")


@pytest.mark.slow
def test_runs_at_the_same_time(shop: Shop, bench: Bench) -> None:
    """Each has its copy, and what is kept is whole."""
    shop.say(SAYS)
    for turn in range(2):
        names = [f"ws{turn}{number}" for number in range(4)]
        prompts = [shop.start("cat lib/one", workspace=name, parallel=4) for name in names]
        assert [bench.wait(prompt).answer for prompt in prompts] == ["one"] * 4
    (entry,) = entries(bench)
    assert sorted(path.name for path in (entry / "files/0").iterdir()) == ["one", "ready"]


@pytest.mark.slow
def test_old_entries_go(shop: Shop, bench: Bench) -> None:
    shop.say(SAYS.replace("echo one", "cat answer.txt"))
    for number in range(5):
        git(shop.path, "checkout", "-q", "--orphan", f"b{number}")
        commit(shop, "answer.txt", f"{number}\n")
        assert shop.run("cat lib/one", workspace=f"ws{number}").answer == str(number)
    assert len(entries(bench)) == setup_cache.MOST_ENTRIES
    freed = setup_cache.empty_cache(bench.folder)
    assert (freed > 0, setup_cache.size(bench.folder), entries(bench)) == (True, 0, [])
    run = shop.run("cat lib/one", workspace="last")
    assert shop.output(run) == "installing"
