"""The sessions in the documents: what is typed there is run, and prints what stands there."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import picture
from tests.conftest import need_tool
from tests.sessions import columns_of, environment, played, stable
from tests.tools import need_jail

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MANUAL = ROOT / "rebyte_cli" / "manual"
TUTORIAL = MANUAL / "pages" / "rebyte-tutorial.7.md"
WORKFLOW = MANUAL / "pages" / "rebyte-workflow.7.md"

pytestmark = pytest.mark.slow  # everything that the documents show is recorded again


@pytest.fixture(scope="module")
def recorded() -> Iterator[Mapping[Any, Future[Any]]]:
    """What happens now, by document: recorded side by side, since most of it is waiting."""
    for tool in ("bash", "jq", "parallel"):
        need_tool(tool)
    with ThreadPoolExecutor() as pool:
        readme = pool.submit(record, README)  # its batch is killed after a second of work
        yield {
            README: readme,
            TUTORIAL: pool.submit(record, TUTORIAL),
            WORKFLOW: pool.submit(record, WORKFLOW, after=readme),
            **{name: pool.submit(make) for name, make in picture.PICTURES.items()},
            "demo": pool.submit(demo),
        }


def record(document: Path, *, after: Future[Any] | None = None) -> list[tuple[str, str]]:
    """Each block as it stands and as it is now; recorded `after` something else."""
    if after is not None:
        after.exception()
    return list(played(document.read_text(), columns_of(document)))


def demo() -> subprocess.CompletedProcess[str]:
    """What `make demo` does once it is set up."""
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            ["sh", str(ROOT / "tests" / "demo.sh")],
            env=environment(Path(home)),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.mark.parametrize(
    "document", [README, TUTORIAL, WORKFLOW], ids=lambda document: str(document.name)
)
def test_every_command_prints_what_it_says(
    document: Path, recorded: Mapping[Any, Future[list[tuple[str, str]]]], tmp_path: Path
) -> None:
    if document == WORKFLOW:  # its agent is a program of the user's
        need_jail()
    found = recorded[document].result()
    assert len(found) > 4
    for said, happened in found:
        assert stable(happened) == stable(said), "make docs"


@pytest.mark.parametrize("name", picture.PICTURES)
def test_the_picture_shows_what_happens(name: str, recorded: Mapping[Any, Future[Any]]) -> None:
    now = picture.draw(recorded[name].result())
    assert picture.said(now) == picture.said((MANUAL / name).read_text()), "make docs"


def test_the_demo_tells_the_whole_story(recorded: Mapping[Any, Future[Any]]) -> None:
    done = recorded["demo"].result()
    assert done.returncode == 0, done.stderr
    for word in ("create", "follow-up", "result", "list", "workspace", "delete", "status 10"):
        assert word in done.stdout
