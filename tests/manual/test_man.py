"""The manual: complete, quiet under the checkers, current, and readable without root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rebyte_cli import errors
from rebyte_cli.local.agents import config
from rebyte_cli.manual.__main__ import generated, write
from rebyte_cli.manual.builder import written
from rebyte_cli.manual.facts import STATUSES
from rebyte_cli.manual.roff import page
from rebyte_cli.system import repository_file
from tests.conftest import Done, need_tool
from tests.inside import inside
from tests.script_blocks import blocks, run
from tests.tools import need_jail

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "man").iterdir())
SAMPLES = ROOT / "tests/local/agents/samples"


@pytest.fixture
def rebyte(home: Path) -> Callable[..., Done]:
    """The command, without a process for each call."""

    def run(*words: str, env: dict[str, str] | None = None) -> Done:
        return inside(*words, cwd=home, env=env)

    return run


def test_generated_files_are_current() -> None:
    """Completion tables, pages and the skill say what the command says: else run `make docs`."""
    wanted = dict(generated())
    for path, text in wanted.items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"{path} is stale: make docs"
    for folder in ("man", "rebyte_cli/completion/tables"):
        found = {f"{folder}/{file.name}" for file in (ROOT / folder).iterdir()}
        assert found <= set(wanted), f"{folder} has files that nothing makes: make docs"


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    """The pages depend on nothing but the source: not on the day, the width, the terminal."""
    assert write(tmp_path)
    (tmp_path / "man" / "rebyte-old.1").write_text("from a command that is gone")
    assert write(tmp_path) == ["man/rebyte-old.1"]
    assert write(tmp_path) == []


@pytest.fixture(scope="module")
def shown() -> subprocess.CompletedProcess[str]:
    """All pages as man shows them, in one call: a start of groff for each costs seconds."""
    return subprocess.run(
        [need_tool("man"), "--warnings", "-l", *PAGES],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"},
        check=True,
    )


@pytest.mark.slow
def test_the_pages_pass_the_checkers(shown: subprocess.CompletedProcess[str]) -> None:
    """mandoc and groff have nothing to say about any of them."""
    lint = subprocess.run(
        [need_tool("mandoc"), "-T", "lint", "-W", "warning", *PAGES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.stdout + lint.stderr == ""
    assert shown.stderr == ""


def test_markup_in_a_text_stays_text(tmp_path: Path) -> None:
    """What roff would take for a command or an escape is printed as it was written."""
    need_tool("mandoc")
    text = "# x(1): it's \\\\fBnot\\\\fR bold\n\n.SH no\n'br no\n\n```\n.TH \\n '-x' ~^`\n```\n"
    file = tmp_path / "x.1"
    file.write_text(page(text))
    done = subprocess.run(["mandoc", file], capture_output=True, text=True, check=True)
    plain = done.stdout.replace("\u2019", "'")
    for expected in ("it's \\fBnot\\fR bold", ".SH no 'br no", ".TH \\n '-x' ~^`"):
        assert expected in plain


@pytest.mark.slow
def test_the_pages_read_well(shown: subprocess.CompletedProcess[str]) -> None:
    """As man shows them: what Markdown, Python and roff do with a line's end leaves no trace."""
    pages = re.split(r"^(?=REBYTE\S*\(\d\) .* REBYTE\S*\(\d\)$)", shown.stdout, flags=re.M)
    texts = {}
    for text in pages[1:]:
        title, section = text[: text.index(")")].lower().split("(")
        texts[f"{title}.{section}"] = text
    assert sorted(texts) == [sheet.name for sheet in PAGES]
    for name, text in texts.items():
        # Code is set deeper and may align what it likes; so may titles, which begin at the margin.
        prose = re.findall(r"^ {7}(?: {7})?(\S.*)", text, re.MULTILINE)
        terms = re.compile(r"^\S{1,6} {2,}")  # a short term stands before its text
        for line in prose:
            assert "  " not in terms.sub("", line), f"{name}: {line}"
        assert "]...]" not in text, name
    assert "rebyte help [COMMAND...]" in texts["rebyte-help.1"]
    assert "like rebyte COMMAND --help" in texts["rebyte-help.1"]
    assert "rebyte profile create [options] NAME [KEY=VALUE...]" in texts["rebyte-profile.1"]
    assert "Default: --wait." in texts["rebyte-batch.1"]
    assert "Repeat for several. May be" not in " ".join(texts["rebyte-batch.1"].split())
    assert "rebyte --version" in texts["rebyte.1"]
    assert "become \\t and \\n." in " ".join(texts["rebyte.1"].split())


def test_the_page_of_the_whole_has_every_status() -> None:
    text = (ROOT / "man" / "rebyte.1").read_text(encoding="utf-8")
    for status in STATUSES:
        assert f"\n\\fB{status}\\fR\n" in text, status


def test_every_status_of_an_error_is_explained() -> None:
    """A new kind of error cannot be forgotten in the table."""
    kinds = [errors.RebyteError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.exit_status for kind in kinds} <= set(STATUSES)


@pytest.mark.slow
def test_man_shows_the_page(rebyte: Callable[..., Done]) -> None:
    """Of a command, of a group for what is in it, of a topic, of the whole."""
    need_tool("man")
    titles = {
        ("create",): "REBYTE-CREATE(1)",
        ("workspace", "list"): "REBYTE-WORKSPACE(1)",
        ("config",): "REBYTE-CONFIG(5)",
        ("api",): "REBYTE-API(1)",
        ("api(7)",): "REBYTE-API(7)",
        ("7", "api"): "REBYTE-API(7)",
        ("rebyte-api.7",): "REBYTE-API(7)",
        (): "REBYTE(1)",
    }
    for words, title in titles.items():
        assert rebyte("man", *words).out.startswith(title)
    missing = rebyte("man", "creat")
    assert missing.status == 4
    assert "'create'" in missing.err
    for word, hint in (
        ("nothing", "The pages are answer, api, "),
        ("kill", "Did you mean `rebyte man cancel`?"),
    ):
        assert hint in rebyte("man", word).err


def test_a_command_names_the_pages_about_its_subject() -> None:
    """`rebyte man local` is about the command; the words that steer it are in local(7)."""
    for sheet in PAGES:
        other = sheet.with_suffix(".7")
        if sheet.suffix == ".1" and other.exists():
            assert f"{sheet.stem}(7)" in sheet.read_text().replace("\\-", "-"), sheet


@pytest.mark.parametrize("man", ["", "exit 1", "echo This system has been minimized."])
def test_man_without_man(home: Path, rebyte: Callable[..., Done], man: str) -> None:
    """The text itself, where there is nothing that shows it, as in images of containers."""
    if man:
        (home / "man").write_text(f"#!/bin/sh\n{man}\n")
        (home / "man").chmod(0o755)
    done = rebyte("man", "create", env={"PATH": str(home)})
    assert done.status == 0
    assert done.out.startswith("# rebyte-create(1): run a prompt as a new task\n")
    assert "rebyte create" in done.out


@pytest.mark.slow
def test_man_install(tmp_path: Path, rebyte: Callable[..., Done]) -> None:
    """Every page, in the folder of its section, found by man(1) itself."""
    done = rebyte("man", "--install", str(tmp_path), "-o", "json")
    assert len(done.documents) == len(PAGES)
    assert {document["changed"] for document in done.documents} == {True}
    again = rebyte("man", f"--install={tmp_path}", "-o", "json")
    assert {document["changed"] for document in again.documents} == {False}
    for name in ("rebyte-create", "rebyte-config", "rebyte-local"):
        found = subprocess.run(
            [need_tool("man"), "-M", str(tmp_path), "-w", name], capture_output=True, check=False
        )
        assert found.returncode == 0, name
    assert rebyte("man", "--install", "/dev/null/x").status == 1


def test_installing_prints_one_line_and_not_one_per_page(
    tmp_path: Path, rebyte: Callable[..., Done]
) -> None:
    """The paths are for programs that ask for them."""
    done = rebyte("man", "--install", str(tmp_path))
    assert (done.status, done.out) == (0, "")
    assert done.err.startswith(f"Installed {len(PAGES)} pages in {tmp_path}\n")
    for words in (["skill", "--install", str(tmp_path)], ["completion", "fish", "--install"]):
        done = rebyte(*words)
        assert (done.status, done.out) == (0, "")
        assert done.err
        assert rebyte(*words, "-o", "csv").out.startswith("path,changed\n")


def test_man_installs_at_home(home: Path, rebyte: Callable[..., Done]) -> None:
    """Without a folder: where man looks for the pages of one user, if ~/.local/bin is in PATH.

    Where it does not look, the note says which line to add, and that line works.
    """
    need_tool("man")
    told = rebyte("man", "--install").err
    assert (home / ".local/share/man/man1/rebyte.1").exists()
    line = told.splitlines()[-1].strip()
    assert line.startswith("export MANPATH=")
    found = run(f"{line}\nman -w rebyte-create", home, MANPATH="")
    assert found.stdout.strip() == str(home / ".local/share/man/man1/rebyte-create.1")
    (home / ".local/bin").mkdir()
    path = f"{home / '.local/bin'}{os.pathsep}{os.environ['PATH']}"
    assert "MANPATH" not in rebyte("man", "--install", env={"PATH": path}).err


@pytest.mark.slow
def test_man_uninstall_takes_the_pages_away_again(home: Path, rebyte: Callable[..., Done]) -> None:
    """Those of an older version too, and the folders that are empty then; nothing else."""
    for words in ((), (str(home / "pages"),)):
        folder = Path(*words) if words else home / ".local/share/man"
        assert rebyte("man", "--install", *words).status == 0
        (folder / "man1/rebyte-old.1").write_bytes((folder / "man1/rebyte.1").read_bytes())
        mine = folder / "man1/rebyte-mine.1"
        mine.write_text(".TH MINE 1\n")
        done = rebyte("man", "--uninstall", *words, "-o", "json")
        assert len(done.documents) == len(PAGES) + 1
        assert {document["changed"] for document in done.documents} == {True}
        assert [path for path in folder.rglob("*") if path.is_file()] == [mine]
        again = rebyte("man", "--uninstall", *words, "-o", "json")
        assert (again.status, again.documents) == (0, [])
        mine.unlink()
        assert rebyte("man", "--install", *words).status == 0
        assert rebyte("man", "--uninstall", *words).status == 0
    assert list(home.iterdir()) == [home / "pages"]
    assert rebyte("man", "--install", "--uninstall").status == 2


def test_a_foreign_page_is_left_alone(tmp_path: Path, rebyte: Callable[..., Done]) -> None:
    """Neither overwritten nor deleted, and then no other page is written."""
    own = tmp_path / "man1" / "rebyte.1"
    own.parent.mkdir()
    own.write_text(".TH OTHER 1\n")
    # pipx makes links, to the pages in its environment of the command.
    (own.parent / "rebyte-get.1").symlink_to(PAGES[0].with_name("rebyte-get.1"))
    assert rebyte("man", "--install", str(tmp_path)).status == 2
    assert rebyte("man", "--uninstall", str(tmp_path)).status == 0
    assert sorted(own.parent.iterdir()) == [own.with_name("rebyte-get.1"), own]


def test_help_is_the_help(rebyte: Callable[..., Done]) -> None:
    """`help create` and `create --help` cannot differ."""
    for words in (("create",), ("workspace", "list"), ()):
        assert rebyte("help", *words).out == rebyte(*words, "--help").out
    wrong = rebyte("help", "workspace", "lst")
    assert wrong.status == 2
    assert "'list'" in wrong.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["rebyte-examples.7.md", "rebyte-local.7.md", "rebyte-shards.7.md"]
)
def test_the_examples_run(name: str, home: Path) -> None:
    """Each block on its own local service; in parallel, since most of it is waiting."""
    need_tool("jq")
    need_tool("parallel")
    # Other machines are played in tests/tasks/test_parallel.py.
    found = [block for block in blocks(written(name)) if "--sshlogin" not in block]
    assert len(found) > 1

    def play(number: int) -> str:
        folder = home / str(number)
        folder.mkdir()
        state = {"REBYTE_PROFILE": "local", "REBYTE_STATE_DIR": str(folder / "state")}
        done = run(found[number], folder, **state)
        return f"{found[number]}\n{done.stdout}\n{done.stderr}" if done.returncode else ""

    with ThreadPoolExecutor(4) as pool:
        failed = "".join(pool.map(play, range(len(found))))
    assert not failed, failed


# What a simulated run needs to be told to do what a block expects of an agent; a key is asked for
# on a terminal (see tests/commands/test_auth.py).
STEERED = {
    '"Fix the login test"': '"Fix the login test [[write=login.py:fixed]]"',
    '"Review the login code"': r'"Review the code [[say={\"findings\": [\"none\"] }]]"',
    "rebyte auth login\n": "",
}
BEFORE = """
git init -q -b main; git config user.name x; git config user.email x@example.com
mkdir tests; echo true > tests/all; printf 'test:\\n\\tsh tests/all\\n' > Makefile
git add -A; git commit -qm Start
echo '{"type": "object", "required": ["findings"]}' > review.json
id=$(rebyte create "[[ask]] Which?" -q -o id)
rebyte create "Change it [[write=a.py:changed]] [[run=0]]" -g . --wait -q > /dev/null
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rebyte-api.7.md", "rebyte-check.7.md", "rebyte.1.md"])
def test_blocks_about_repositories_and_questions_run(name: str, home: Path) -> None:
    """As `test_the_examples_run`, each in a repository with a task that changed it."""
    need_tool("jq")
    need_jail()
    for number, block in enumerate(blocks(written(name))):
        script = block
        for words, steered in STEERED.items():
            script = script.replace(words, steered)
        folder = home / str(number)
        folder.mkdir()
        state = {"REBYTE_PROFILE": "local", "REBYTE_STATE_DIR": str(folder / "state")}
        done = run(BEFORE + script, folder, **state)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def test_the_settings_of_the_pages_are_read(home: Path) -> None:
    """Those of config.toml in one file, and those of a repository."""
    file = home / ".config/rebyte/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(blocks(written("rebyte-config.5.md"), "toml")))
    listed = inside("profile", "list", "-o", "jsonl", cwd=home)
    assert {"work", "staging"} <= {each["name"] for each in listed.documents}, listed
    assert config.prices(file) == {"claude-sonnet-4-5": [3, 0.3, 15]}
    (block,) = blocks(written("rebyte-check.7.md"), "toml")
    settings = repository_file.parse(block.encode())
    assert (settings.check, settings.protect) == ("make test", ("tests",))


AGENT = """#!/bin/sh
# Replays a recorded stream, and does some work before.
[ "$1" = --version ] && { echo 2.1.197; exit; }
echo "$0 was here" >> "work of ${0##*/}"
[ -e year ] && echo 2027 > year
cat > /dev/null
cat "$(dirname "$0")/${0##*/}.jsonl"
"""


@pytest.mark.slow
def test_the_recipes_for_local_agents_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in its own repository, with recordings in place of the agents, in a jail."""
    need_jail()
    need_tool("jq")
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    programs = home / "agents"
    programs.mkdir()
    for name in ("claude", "codex"):
        (programs / name).write_text(AGENT)
        (programs / name).chmod(0o755)
        shutil.copy(SAMPLES / f"{name}-write.jsonl", programs / f"{name}.jsonl")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for variable in ("ANTHROPIC_API_KEY", "CODEX_API_KEY"):
        monkeypatch.setenv(variable, "not a real key")
    (home / ".config/rebyte").mkdir(parents=True)
    (home / ".config/rebyte/config.toml").write_text(
        "".join(f'[local.agents.{name}]\nread = ["{programs}"]\n' for name in ("claude", "codex"))
    )
    setup = (
        "git init -q; git config user.name x; git config user.email x@example.com;"
        " echo 2026 > year; printf 'test:\\n\\tgrep 2027 year\\n' > Makefile;"
        " git add year Makefile; git commit -qm Start;"
    )
    repositories = f"for r in a b; do mkdir -p src/$r; (cd src/$r; {setup}); done; {setup}"
    found = blocks(written("rebyte-local-agents.7.md"))
    found += blocks(written("rebyte-tutorial.7.md"), "text")
    found += blocks(written("rebyte-workflow.7.md"), "text")
    for number, block in enumerate(found):
        folder = home / str(number)
        folder.mkdir()
        state = {"REBYTE_PROFILE": "local", "REBYTE_STATE_DIR": str(folder / "state")}
        done = run(f"{repositories}\n{block}", folder, **state)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert (home / "0/year").read_text() == "2027\n"
    race = [(home / "1" / f"work of {name}").exists() for name in ("claude", "codex")]
    assert any(race)
    assert [(home / "2/src" / name / "year").read_text() for name in "ab"] == ["2027\n"] * 2
    (patch,) = (home / "3").glob("deps-*.patch")
    assert "+2027" in patch.read_text()
    assert (home / str(len(found) - 1) / "year").read_text() == "2027\n", "the branch was merged"


def test_the_settings_for_local_agents_are_read(tmp_path: Path) -> None:
    """Each block of the page is a config.toml; what has no table is a .rebyte.toml."""
    file, found = tmp_path / "config.toml", []
    for block in blocks(written("rebyte-local-agents.7.md"), "toml"):
        if block.startswith("["):
            file.write_text(block)
            found.append(config.load(file))
        else:
            assert repository_file.parse(block.encode()).check == "make test"
    assert found[0].agents["aider"].command == ("aider-headless", "--yes")
    assert {(each.parallel, each.limit, each.stall) for each in found} == {(2, 3600, 900)}
