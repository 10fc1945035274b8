"""What `.rebyte.toml` may say, read from a commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rebyte_cli.system.repository_file import (
    FILE,
    LARGEST,
    RepositoryFile,
    RepositoryFileError,
    parse,
    read,
    schema,
)
from tests.repositories import git, with_answer

WHOLE = b"""
setup = "make deps"
check = "make test"
protect = ["tests"]
allow = ["pypi.org", "*.example.com:8443"]
cache = [".venv", "web/node_modules"]
"""


def test_all_of_it() -> None:
    found = parse(WHOLE)
    assert found == RepositoryFile(
        WHOLE,
        "make deps",
        "make test",
        ("tests",),
        ("pypi.org", "*.example.com:8443"),
        (".venv", "web/node_modules"),
    )
    assert found.described(("check", "protect")) == "check `make test`; protect tests"
    assert parse(b"") == RepositoryFile(b"")


WRONG = {
    'setup = "a"\nchecks = "b"': (2, "'checks' means nothing here"),
    "# no\n\nsetup = 7": (3, "setup must be a shell command"),
    'check = "  "': (1, "check must be a shell command"),
    'setup = "a\\u0000b"': (1, "setup must be a shell command"),
    'allow = "pypi.org"': (1, "allow must be a list"),
    'allow = ["https://pypi.org/x"]': (1, "allow: 'https://pypi.org/x'"),
    'x = 1\n[setup]\nrun = "a"': (1, "'x' means nothing"),
    '[setup]\nrun = "a"': (1, "setup must be a shell command"),
    'setup = "a\n': (1, "no valid TOML"),
    "protect = [1]": (1, "protect: 1"),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named_with_its_line(text: str) -> None:
    line, problem = WRONG[text]
    with pytest.raises(RepositoryFileError) as raised:
        parse(text.encode())
    assert raised.value.message.startswith(f".rebyte.toml, line {line}: {problem}")


OUTSIDE = ["", "/tmp", "..", "a/../b", ".", "./a", ".git", "a/.GIT/b", "a//b", "a\\\\b", "a\\nb"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_cache_is_a_folder_inside(path: str) -> None:
    with pytest.raises(RepositoryFileError, match="line 1: cache: "):
        parse(f'cache = ["{path}"]'.encode())


@pytest.mark.parametrize("paths", ['"a", "A/b"', '"a/b", "a"', '"a", "a/"'])
def test_caches_are_not_in_each_other(paths: str) -> None:
    with pytest.raises(RepositoryFileError, match="are in each other"):
        parse(f"cache = [{paths}]".encode())


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(RepositoryFileError, match="line 2: not UTF-8"):
        parse(b'setup = "a"\n# \xff\n')


def test_the_schema_says_the_same() -> None:
    document: dict[str, Any] = {"setup": "a", "cache": [".venv"], "allow": ["pypi.org"]}
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(document, schema())
    for bad in ({"setups": "a"}, {"setup": 1}, {"setup": ""}, {"allow": ["a/b"]}, {"cache": "a"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return with_answer(tmp_path / "repository")


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "More")


def test_the_commit_is_read(repository: Path) -> None:
    """Neither the working tree nor the index."""
    assert read(repository, "HEAD") is None
    (repository / FILE).write_text('setup = "one"')
    git(repository, "add", "-A")
    assert read(repository, "HEAD") is None
    commit(repository)
    (repository / FILE).write_text('setup = "two"')
    found = read(repository, "HEAD")
    assert found is not None
    assert found.setup == "one"
    assert read(repository, "HEAD~") is None


def test_what_is_no_file(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('setup = "secret"')
    (repository / FILE).symlink_to(tmp_path / "secret")
    commit(repository)
    with pytest.raises(RepositoryFileError, match="not a file"):
        read(repository, "HEAD")
    (repository / FILE).unlink()
    (repository / FILE).mkdir()
    (repository / FILE / "x").touch()
    commit(repository)
    with pytest.raises(RepositoryFileError, match="not a file"):
        read(repository, "HEAD")


def test_an_endless_file(repository: Path) -> None:
    (repository / FILE).write_bytes(b"#" * (LARGEST + 1))
    commit(repository)
    with pytest.raises(RepositoryFileError, match="larger than 64 KiB"):
        read(repository, "HEAD")


CONTAINER = """// A comment, "quoted"
{
    "name": "shop // not a comment", /* "postCreateCommand": "evil" */
    "postCreateCommand": "make deps",
}
"""


def container(folder: Path, text: str, path: str = ".devcontainer/devcontainer.json") -> None:
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text(text)
    commit(folder)


def test_the_command_of_a_development_container(repository: Path) -> None:
    container(repository, CONTAINER)
    found = read(repository, "HEAD")
    assert found is not None
    assert (found.setup, found.name) == ("make deps", ".devcontainer/devcontainer.json")
    assert "make deps` (postCreateCommand of .devcontainer/devcontainer.json)" in found.described()
    container(repository, CONTAINER.replace("shop", "another name"))
    again = read(repository, "HEAD")
    assert again is not None
    assert again.content == found.content
    (repository / FILE).write_text('check = "true"\n')
    commit(repository)
    both = read(repository, "HEAD")
    assert both is not None
    assert (both.setup, both.check, both.name) == ("make deps", "true", FILE)
    assert both.text.splitlines()[0] == 'check = "true"'
    assert "make deps" in both.text
    (repository / FILE).write_text('setup = "mine"\n')
    commit(repository)
    mine = read(repository, "HEAD")
    assert mine is not None
    assert (mine.setup, mine.container, mine.content) == ("mine", "", b'setup = "mine"\n')


def test_trust_in_one_is_no_trust_in_the_other(repository: Path) -> None:
    """A file whose text is what is shown of a container's command is other content."""
    container(repository, '{"postCreateCommand": "check = 1"}', ".devcontainer.json")
    found = read(repository, "HEAD")
    assert found is not None
    with pytest.raises(RepositoryFileError, match="no valid TOML"):
        parse(found.content)


NO_COMMANDS = [
    '{"postCreateCommand": ["make", "deps"]}', '{"postCreateCommand": {"a": "make"}}', "[]", "{",
    '{"postCreateCommand": ""}', '{"postCreateCommand": "a\\u0000b"}', "[" * 60_000, "{}", "",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_COMMANDS)
def test_what_is_no_command_of_a_container(repository: Path, text: str) -> None:
    container(repository, text)
    assert read(repository, "HEAD") is None
