"""Prompts from anywhere and references of any kind: taken exactly, or refused in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rebyte_cli.api.retry import parse_retry_after
from rebyte_cli.api.urls import check_key
from rebyte_cli.errors import BadUsage, KeyProblem, NotFound
from rebyte_cli.history import references
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask

from . import ANY_TEXT, ends_well, tries, within

BYTES = (
    st.binary(max_size=20)
    | st.text(max_size=20).map(str.encode)
    | st.sampled_from([b"\xef\xbb\xbfhello", b"a\r\nb\r\n", b"\x00", b" \n", b"\xed\xa0\x80", b"-"])
)


@tries(80)
@given(BYTES, st.sampled_from(["stdin", "dash", "file"]))
@example(b"\xef\xbb\xbf", "stdin")
@example(b"\r\n", "file")
def test_a_prompt_in_bytes(tmp_path: Path, raw: bytes, source: str) -> None:
    """What is sent is what the bytes say, all of it, or nothing."""
    (tmp_path / "prompt").write_bytes(raw)
    words = {
        "stdin": ["--prompt-file", "-"],
        "dash": ["-"],
        "file": ["--prompt-file", str(tmp_path / "prompt")],
    }[source]
    done = within("create", "--dry-run", *words, stdin=raw, home=tmp_path, env={})
    ends_well(done)
    assert done.status in (0, 2)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        assert done.status == 2
        return
    says_something = text.removeprefix("\ufeff").replace("\0", "").strip()
    assert (done.status == 0) == bool(says_something)
    if done.status == 0:
        sent = done.json["prompt"]
        assert sent.strip() == text.removeprefix("\ufeff").strip()


@tries(80)
@given(ANY_TEXT, st.booleans())
@example("\udce9", True)
@example("-", False)
def test_a_prompt_on_the_command_line(tmp_path: Path, text: str, option: bool) -> None:
    """What cannot be UTF-8 arrives as lone surrogates, and is refused."""
    words = [f"--prompt={text}"] if option else ["--", text]
    done = within("create", "--dry-run", *words, stdin=b"piped", home=tmp_path, env={})
    ends_well(done)
    assert done.status in (0, 2)
    if done.status == 0:
        sent = json.loads(done.out)["prompt"]
        assert sent == (text if option or text != "-" else "piped")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    made = History(tmp_path_factory.mktemp("h") / "history.db", origin="https://x.example")
    for task, workspace in (("aaaa-1111", "ws-one"), ("aaaa-2222", "ws-two"), ("bbbb_3", None)):
        made.add_tasks([NewTask({"id": task, "workspaceId": workspace}, prompt="x")])
    made.name_workspace("ws-one", "shop")
    yield made
    made.close()


REFERENCES = (
    ANY_TEXT
    | st.from_regex(r"@[\w-]{0,6}", fullmatch=True)
    | st.sampled_from(
        ["aaaa", "aaaa-1", "@last", "@1", "@9", "-", "shop", "ws-", "ws-o", "%", "_" * 4, "aaa*"]
    )
)


def is_id(text: str) -> bool:
    """At most 512 characters, none of which a shell interprets, and no option in front."""
    return bool(re.fullmatch(r"[\w.][\w.~:@+=,%-]{0,511}", text))


@tries(150)
@given(REFERENCES)
@example("____")
@example("%%%%")
@example("@\u0661")
def test_a_reference_is_an_id_or_refused(history: History, reference: str) -> None:
    for find in (references.task, references.workspace):
        try:
            found = find(history, reference)
        except (BadUsage, NotFound):
            continue
        assert is_id(found)


@tries(60)
@given(st.lists(REFERENCES, max_size=4), st.lists(REFERENCES, max_size=4))
def test_many_references(history: History, given_: list[str], lines: list[str]) -> None:
    try:
        found = references.tasks(history, given_, iter(f"{line}\n" for line in lines))
    except (BadUsage, NotFound):
        return
    assert len(found) == len(set(found))
    assert all(map(is_id, found))


@tries(150)
@given(ANY_TEXT | st.from_regex(r"rbk_[\x00-\xff]{0,8}", fullmatch=True))
def test_a_key_is_a_header_or_refused_and_never_repeated(text: str) -> None:
    try:
        key = check_key(text)
    except KeyProblem as problem:
        told = f"{problem.message}{problem.hint}"
        assert len(text.strip()) < 6 or text.strip() not in told
    else:
        assert re.fullmatch(r"[!-~]+", key)
        assert key == text.strip()


@tries(150)
@given(
    ANY_TEXT
    | st.from_regex(r"[-+]?[0-9]{1,30}(\.[0-9]+)?", fullmatch=True)
    | st.sampled_from(["Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Foo 99999 99:99:99 GMT", ",", "²"])
)
@example("9" * 5_000)
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    found = parse_retry_after(value, now=1_700_000_000.0)
    assert found is None or 0 <= found < float("inf")
