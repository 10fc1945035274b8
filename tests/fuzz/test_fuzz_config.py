"""Any file in place of `config.toml` is a profile or one clear message; no value is repeated."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st

from rebyte_cli.api.urls import check_base_url, origin_of
from rebyte_cli.config.fields import FIELDS, parse_value
from rebyte_cli.config.json_schema import edit_config
from rebyte_cli.config.settings import Config, resolve
from rebyte_cli.errors import BadUsage, NotFound, RebyteError

from . import ANY_TEXT, ends_well, tries, within

SECRET = "rbk_planted0123456789"
FRAGMENTS = st.sampled_from(
    [
        "default_profile = ", '"work"', "[profiles.work]\n", "[profiles]\n", "[[profiles]]\n",
        "base_url = ", '"https://x.example/v1"', '"http://x.example"', "key_command = ", '["a"]',
        "timeout = ", "1e999", "nan", "-5", "0x7f", "history = ", "true", "skills = ", "output = ",
        "[", "]", "{", "}", "=", ".", '"', "'", '"""', "\n", "#", " ", "work", "profiles", "local",
        "1979-05-27", f'"{SECRET}"', f"{SECRET}\n", f"key = {SECRET}\n", "\\", "\x00", "\ufeff",
        "\\uD800", "é", "ca_bundle = ", "executor = ", "model = ",
    ]
)  # fmt: skip
TOMLISH = st.lists(FRAGMENTS | st.text(max_size=3), max_size=16).map("".join)
SCALARS = (
    st.text(st.characters(codec="utf-8"), max_size=8)
    | st.integers(-(2**62), 2**62)
    | st.floats()
    | st.booleans()
    | st.dates()
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "default_profile": st.just("work") | VALUES,
        "history": VALUES,
        "profiles": st.dictionaries(
            st.sampled_from(["work", "default", "local", "a b", "é\n"]),
            st.dictionaries(st.sampled_from([*FIELDS, "other"]), VALUES, max_size=4) | VALUES,
            max_size=2,
        )
        | VALUES,
        "future": VALUES,
    },
)


def use(raw: bytes, path: Path) -> None:
    """Everything that is ever asked of a configuration; only errors of ours may come out."""
    path.write_bytes(raw)
    try:
        config = Config.load(path)
    except BadUsage as problem:
        check(problem, path)
        return
    if config.unknown is not None:
        check(config.unknown, path, secret=False)  # a name that is not known is repeated
    for name in [*config.names(), "unknown"]:
        for options in ({"profile": name}, {}):
            try:
                found = resolve(options, {}, config)
            except NotFound as problem:
                check(problem, secret=False)  # a profile is called by its name, whatever it is
            except BadUsage as problem:
                check(problem, path)
            else:
                assert found.origin
                assert all(getattr(found, name) for name in FIELDS)


def check(problem: RebyteError, path: Path | None = None, *, secret: bool = True) -> None:
    assert path is None or str(path) in problem.message
    assert len(problem.message.splitlines()) == 1
    assert not secret or SECRET not in f"{problem.message}{problem.hint}"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "config.toml"


@tries(150)
@given(TOMLISH)
def test_text_that_is_nearly_toml(path: Path, text: str) -> None:
    use(text.encode(), path)


@tries(60)
@given(st.binary(max_size=60))
@example(b"x = " + b"[" * 20_000)
@example(b"\xef\xbb\xbfx = 1")
@example(b"x = " + b"9" * 5_000)
def test_any_bytes(path: Path, raw: bytes) -> None:
    use(raw, path)


@tries(100)
@given(DOCUMENTS)
@example({"profiles": {"é\n": ""}})
@example({"default_profile": "\x1e0"})
def test_toml_of_any_types(path: Path, document: dict[str, object]) -> None:
    use(tomli_w.dumps(document).encode(), path)


@tries(60)
@given(DOCUMENTS)
def test_an_edit_keeps_everything_else(path: Path, document: dict[str, object]) -> None:
    path.write_text(tomli_w.dumps(document))
    before = tomllib.loads(path.read_text())
    with edit_config(path, note=print) as mutable:
        mutable["added"] = 1
    after = tomllib.loads(path.read_text())
    # By their text: nan is not nan.
    assert {name: repr(value) for name, value in after.items()} == {
        **{name: repr(value) for name, value in before.items()},
        "added": "1",
    }


@tries(40)
@given(TOMLISH | DOCUMENTS.map(tomli_w.dumps), st.sampled_from(["show", "list", "use"]))
def test_a_command_that_reads_it(path: Path, text: str, verb: str) -> None:
    home = path.parent
    (home / "config").mkdir(exist_ok=True)
    (home / "config" / "config.toml").write_text(text, encoding="utf-8", newline="")
    argument = ["work"] if verb == "use" else []
    done = within("profile", verb, *argument, home=home, env={})
    ends_well(done)
    assert done.status in (0, 2, 4)


@tries(100)
@given(st.sampled_from(list(FIELDS)) | ANY_TEXT, ANY_TEXT | st.sampled_from(["1e400", "nan", "'"]))
@example("timeout", "1e400")
@example("key_command", "'")
def test_a_setting_that_is_typed(name: str, text: str) -> None:
    with suppress(BadUsage):
        parse_value(name, text)


@tries(40)
@given(st.sampled_from(list(FIELDS)), st.sampled_from(["", " ", "://", "x", ",", "'"]))
def test_a_key_in_the_wrong_place_is_not_repeated(name: str, text: str) -> None:
    try:
        parse_value(name, f"{SECRET}{text}")
    except BadUsage as problem:
        check(problem)


URLISH = st.lists(
    st.sampled_from(
        ["http", "https", "://", ":", "/", "/v1", "localhost", "127.0.0.1", "[::1]", "[", "]", "@",
         "?", "#", "x.example", "8787", "99999", "é", "\t", "\n", " ", "%00", "\\", "..", "XN--"]
    )
    | st.text(max_size=2),
    max_size=8,
).map("".join)  # fmt: skip


@tries(200)
@given(URLISH)
def test_a_base_url_is_refused_or_stays_what_it_is(text: str) -> None:
    try:
        url = check_base_url(text)
    except BadUsage as problem:
        check(problem)
        return
    assert check_base_url(url) == url
    assert origin_of(url).startswith(("https://", "http://"))
    assert "@" not in url
    assert "\n" not in url
