"""What a check protects because its command reads it: nothing that an agent writes may pass it."""

from __future__ import annotations

import time

import pytest

from rebyte_cli.errors import BadUsage
from rebyte_cli.tasks.protection import Protection, TooManyNames, protection

# Each line: a command, the files of the repository (`LINK>TARGET` for links), and those that an
# agent has written to pass it.
CASES = """
npm --prefix web test | web/package.json | web/package.json
npm --prefix=web test | web/package.json | web/package.json
npm test -w web | package.json | web/package.json
cd web && npm test | web/package.json | web/package.json
npm test | package.json | .npmrc web/.npmrc
yarn test | package.json | .yarnrc.yml .yarn/releases/yarn.cjs
pnpm test | package.json | .pnpmfile.cjs pnpm-workspace.yaml
cd backend && pytest -q | backend/a.py | backend/pyproject.toml
pytest -q tests/test_a.py | tests/test_a.py | tests/tox.ini tests/setup.cfg
python3 -mpytest -q | test_a.py | pytest.ini conftest.py
python3 -Impytest -q | test_a.py | pytest.ini conftest.py
tox -c ci | ci/a | tox.toml ci/tox.ini
task test | Taskfile.dist.yaml | Taskfile.yml Taskfile.dist.yaml
cargo test | Cargo.toml | sub/build.rs rust-toolchain.toml
make -fci.mk test | ci.mk | ci.mk
make -sfci.mk test | ci.mk | ci.mk
make -f ci.mk test | ci.mk | ci.mk
make -f ci.mk -C sub test | sub/ci.mk | sub/ci.mk
make -Csub -f ci.mk test | sub/ci.mk | sub/ci.mk sub/Makefile
make --directory=sub --file=ci.mk test | sub/ci.mk | sub/ci.mk
env -C a sh t.sh | a/t.sh | a/t.sh
cd a && cd b && sh t.sh | a/b/t.sh | a/b/t.sh
cd a && cd ../b && sh t.sh | a/x b/t.sh | b/t.sh
cd -- a && sh t.sh | a/t.sh | a/t.sh
cd -P a; sh t.sh | a/t.sh | a/t.sh
cd "a b" && sh t.sh | a%20b/t.sh | a%20b/t.sh
bash -c "pushd a; ./t.sh" | a/t.sh | a/t.sh
cd t* && sh run.sh | tests/run.sh | tests/run.sh
sh run.sh | run.sh>scripts/real.sh scripts/real.sh | run.sh scripts/real.sh
sh run.sh | run.sh>/code/real.sh real.sh | real.sh
sh run.sh | run.sh>a a>b/c b>d d/c | run.sh a b d/c
sh run.sh | run.sh>run.sh | run.sh
make test | Makefile>build/rules build/rules | Makefile build/rules
sh tests/t.sh | tests>real real/t.sh | tests real/t.sh
cd tests && sh t.sh | tests>real real/t.sh | real/t.sh
sh a/../t.sh | a/x t.sh | t.sh
python3 -m unittest tests.test_x.A | tests/test_x.py | tests/test_x.py tests/__init__.py
python3 -m unittest tests.test_x | tests/test_x.py | tests/__init__.py tests.py tests/test_x.so
python3 -m unittest tests | tests/__init__.py | tests/__init__.py
python3 -m ci.run | ci/run.py | ci/__init__.py ci/run.py ci/run.abi3.so
python3 -m ci | ci.py | ci/__init__.py ci/__main__.py ci.so
python3 -m ci | ci/__main__.py | ci/__init__.py ci/__main__.py
python3 -Bmci | ci/__main__.py | ci/__init__.py
PYTHONPATH=src python3 -m ci.run | src/ci/run.py | src/ci/run.py src/ci/__init__.py
python3 ci | ci/__main__.py | ci/__main__.py
python3 -c "import ci; ci.run()" | ci.py | ci.py
sh tests/run.* | tests/run.sh | tests/run.sh tests/run.a
sh tests/ru?.sh | tests/run.sh | tests/run.sh
sh tests/r[tu]n.sh | tests/run.sh | tests/run.sh
"$PWD"/t.sh | t.sh | t.sh
${PWD}/t.sh | t.sh | t.sh
"$(pwd)/t.sh" | t.sh | t.sh
D=ci; sh "$D/t.sh" | ci/t.sh | ci/t.sh
for t in a b; do sh tests/$t.sh; done | tests/a.sh | tests/a.sh
sh /code/t.sh | t.sh | t.sh
sh /code/tests/*.sh | tests/t.sh | tests/t.sh
cd /code/a && sh t.sh | a/t.sh | a/t.sh
sh ../code/t.sh | t.sh | t.sh
sh ./{t,t}.sh | t.sh | t.sh
sh {t,}.sh || bash -c "sh ./{t,t}.sh" | t.sh | t.sh
make; # don't skip | Makefile | Makefile
node 'pages/[id].js' | pages/[id].js | pages/[id].js
echo [z-a] '*' $X **; sh t.sh | t.sh | t.sh
"""
# Commands and files that the agent decides about: what the check is to find out is in them.
FREE = """
make test | Makefile src/a.py | src/a.py
pytest --cov=shop | shop/__init__.py | shop/__init__.py shop/a.py
cd src && make | src/__init__.py | src/__init__.py
echo $X * "$@" ** | a.py | a.py
sh new.sh | a.py | new.sh
"""


def rows(table: str) -> list[tuple[str, str, str]]:
    cells = [line.split(" | ") for line in table.strip().split("\n")]
    return [(cell[0].strip(), cell[1].strip(), cell[2].strip()) for cell in cells]


def protected(command: str, files: str, *protect: str) -> Protection:
    pairs = [name.partition(">") for name in _words(files)]
    links = {name: target for name, sign, target in pairs if sign}
    return protection(command, protect, [name for name, _, _ in pairs], links)


def _words(files: str) -> list[str]:
    return [word.replace("%20", " ") for word in files.split()]


@pytest.mark.parametrize(("command", "files", "written"), rows(CASES))
def test_what_the_command_reads(command: str, files: str, written: str) -> None:
    found = protected(command, files)
    assert [path for path in _words(written) if not found.covers(path)] == []


@pytest.mark.parametrize(("command", "files", "written"), rows(FREE))
def test_what_is_the_agents(command: str, files: str, written: str) -> None:
    found = protected(command, files)
    assert [path for path in _words(written) if found.covers(path)] == []


def test_the_target_of_a_link_that_the_user_protects() -> None:
    files = "tests>real real/t.sh other/t.sh"
    assert protected("make", files, "tests").covers("real/t.sh")
    assert not protected("make", files, "tests").covers("other/t.sh")
    assert not protected("make", files, "tests", "!real").covers("real/t.sh")
    assert not protected("make", files).covers("real/t.sh")


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(BadUsage, match="is no pattern"):
        Protection(["[z-a]"])


@pytest.mark.slow
def test_a_chain_of_thousands_of_links_takes_no_minutes() -> None:
    names = [f"l{number:04}" for number in range(4000)]
    links = dict(zip(["Makefile", *names], [*names, "end"], strict=True))
    files = [*links, "end", "ends", "end-1"]
    started = time.monotonic()
    found = protection("make test", ["!l0100"], files, links)
    assert [path for path in files if not found.covers(path)] == ["l0100", "ends", "end-1"]
    found = protection("make test", (), files, links)
    assert [path for path in files if not found.covers(path)] == ["ends", "end-1"]
    assert time.monotonic() - started < 10


def test_patterns_below_thousands_of_folders_take_no_minutes() -> None:
    files = [f"p{number}/d{number}/t.sh" for number in range(2000)]
    started = time.monotonic()
    found = protection("cd p* && cd d* && sh t.* x/../*.md", (), files, {})
    assert [path for path in files if not found.covers(path)] == []
    assert [path for path in ("t.py", "q/t.sh", "p1.md") if found.covers(path)] == ["p1.md"]
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_names_without_number_are_refused() -> None:
    """Trees that are in each other stand for any number of them."""
    deep = "/".join(["a"] * 1900)
    with pytest.raises(TooManyNames):
        protection("make", (), (f"{number}/{deep}/f" for number in range(9999)), {})
    ups = "a/../" * 800
    links = {str(number): f"{ups}{number + 1}" for number in range(9999)}
    with pytest.raises(TooManyNames):
        protection("make", ("/*",), links, links)


@pytest.mark.parametrize(
    ("name", "other"), [("\u212a", "k"), ("stra\u1e9ee", "STRAße"), ("\u0130\u0131\u017f", "iis")]
)
def test_the_case_of_a_protected_name_makes_no_difference(name: str, other: str) -> None:
    for target, path in ((name, other), (other, name)):
        found = protection("sh link", (), ["link", target], {"link": target})
        assert found.covers(f"{path}/below")
