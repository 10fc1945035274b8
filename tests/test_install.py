"""What is shipped works where nothing else is: the wheel in a fresh environment, the sdist, the
single file. Built once, offline; the dependencies are those of this environment."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipapp
import zipfile
from collections.abc import Iterator
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest

import hatch_build
from rebyte_cli import __version__
from tests.conftest import need_tool

pytestmark = pytest.mark.slow  # environments and archives are built

ROOT = Path(__file__).parents[1]
# Each shell, its script in `completions/`, and where in `share/` the shell looks for that.
SCRIPTS = (
    ("bash", "rebyte.bash", "bash-completion/completions/rebyte"),
    ("zsh", "_rebyte", "zsh/site-functions/_rebyte"),
    ("fish", "rebyte.fish", "fish/vendor_completions.d/rebyte.fish"),
)


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program without what would help it to find the checkout."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command],
        env={**kept, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, the wheel built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    hatch = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*hatch, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in 3.11.2
    shutil.unpack_archive(sdist, folder / "source", **safely)
    (source,) = (folder / "source").iterdir()
    subprocess.run([*hatch, "-t", "wheel"], cwd=source, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; the dependencies come by a path file."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, symlinks=True)
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    here = Path(str(metadata.distribution("click").locate_file(""))).resolve()
    (packages / "dependencies.pth").write_text(f"{here}\n")
    return folder


def test_the_wheel_runs(installed: Path, home: Path) -> None:
    """The version, the help, and a whole task, by the script that pip made."""
    rebyte = installed / "bin" / "rebyte"
    assert run(rebyte, "--version").stdout == f"rebyte {__version__}\n"
    assert "follow-up" in run(rebyte, "--help").stdout
    place = run(installed / "bin" / "python", "-c", "import rebyte_cli; print(rebyte_cli.__file__)")
    assert place.stdout.startswith(str(installed))
    done = run(rebyte, "-P", "local", "create", "Say hello", "--wait", "--fields", "status")
    assert (done.returncode, done.stdout.split()) == (0, ["{", '"status":', '"completed"', "}"])


def test_the_package_is_fit_for_an_index(built: Path) -> None:
    """The checks that PyPI makes of an upload, and those that it leaves out."""
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    checks: list[list[str | Path]] = [
        ["twine", "check", "--strict", wheel, sdist],
        # W002: the scripts for shells are there for the command, and where shells look for them.
        ["check_wheel_contents", "--ignore", "W002", wheel],
        ["validate_pyproject", ROOT / "pyproject.toml"],
    ]
    for check in checks:
        done = run(sys.executable, "-m", *check, VALIDATE_PYPROJECT_NO_NETWORK="1")
        assert done.returncode == 0, done.stdout + done.stderr


def described(built: Path) -> Message:
    """The metadata in the wheel; its payload is the long description."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_the_long_description_leads_nowhere_that_is_not_there(built: Path) -> None:
    """A build knows no repository unless it is told: links into the checkout become plain text."""
    metadata = described(built)
    text = metadata.get_payload()
    assert isinstance(text, str)
    assert re.findall(r"\]\((?!https://)[^)]*\)", text) == []
    assert "![" not in text
    assert "<!--" not in text
    assert "make demo" not in text
    assert "\nInstall it with `uv tool install rebyte-cli`" in text
    assert "| tutorial |" in text
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL", []))
    assert set(urls) == {"Rebyte", "API keys"}


def test_a_release_links_to_its_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that the release workflow sets, and only there."""
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert hatch_build.REPOSITORY in release
    monkeypatch.setenv(hatch_build.REPOSITORY, "https://example.com/owner/name")
    hatch = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    subprocess.run(hatch, cwd=ROOT, check=True, capture_output=True)
    text, base = str(described(tmp_path)), f"https://example.com/owner/name/blob/v{__version__}"
    assert f"]({base}/rebyte_cli/manual/session.svg?raw=true)" in text
    assert f"[SECURITY]({base}/SECURITY.md)" in text
    assert "Project-URL: Source, https://example.com/owner/name\n" in text
    for path in re.findall(rf"\({re.escape(base)}/([^)?]+)", text):
        assert (ROOT / path).exists(), path


def test_uvx_runs_the_wheel(built: Path, tmp_path: Path) -> None:
    """By the name of the package, which is the script that `uvx rebyte-cli` starts."""
    (wheel,) = built.glob("*.whl")
    # Nothing is downloaded: uv is told to leave the dependencies out, and Python finds them here.
    absent = tmp_path / "overrides.txt"
    names = (line.split(";")[0] for line in metadata.requires("rebyte-cli") or ())
    bare = {re.match(r"[\w.-]+", name)[0] for name in names}  # type: ignore[index]  # never empty
    absent.write_text("".join(f"{name}; python_version < '3'\n" for name in sorted(bare)))
    here = Path(str(metadata.distribution("click").locate_file(""))).resolve()
    uv = [sys.executable, "-m", "uv", "--offline", "--cache-dir", tmp_path / "cache"]
    uvx = [*uv, "tool", "run", "--no-index", "--python", sys.executable]
    options = ["--overrides", absent, "--from", wheel]
    done = run(*uvx, *options, "rebyte-cli", "--help", PYTHONPATH=str(here))
    assert done.stdout.startswith("Usage: rebyte "), done.stderr


def test_the_wheel_brings_its_pages_and_data(installed: Path, home: Path) -> None:
    """Everything that is read at run time is in the package."""
    rebyte = installed / "bin" / "rebyte"
    assert "rebyte-config(5)" in run(rebyte, "man", "config").stdout[:20].lower()
    assert run(rebyte, "skill").stdout.startswith("---\nname: rebyte\n")
    assert run(rebyte, "crea", _REBYTE_COMPLETE="zsh").stdout.startswith("\t\ncreate\tcreate\t")
    assert '"schemaVersion"' in run(rebyte, "schema").stdout


def test_a_copy_knows_where_it_came_from(installed: Path, built: Path, single_file: Path) -> None:
    (wheel,) = built.glob("*.whl")
    upgrade = run(installed / "bin" / "rebyte", "upgrade")
    assert f"Install a newer version of {wheel}, from which this one came" in upgrade.stderr
    alone = run(sys.executable, "-I", "-S", single_file, "upgrade")
    assert "Replace this file with a newer one" in alone.stderr


def test_a_copy_of_uv_tool_knows_it(built: Path, tmp_path: Path) -> None:
    """Its environment has no MCP SDK, since uv is told to leave the dependencies out."""
    (wheel,) = built.glob("*.whl")
    names = (line.split(";")[0] for line in metadata.requires("rebyte-cli") or ())
    bare = {re.match(r"[\w.-]+", name)[0] for name in names}  # type: ignore[index]  # never empty
    absent = tmp_path / "overrides.txt"
    absent.write_text("".join(f"{name}; python_version < '3'\n" for name in sorted(bare)))
    folders = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    uv = [sys.executable, "-m", "uv", "--offline", "--cache-dir", tmp_path / "cache", "tool"]
    options = ["--no-index", "--python", sys.executable, "--overrides", absent]
    done = run(*uv, "install", *options, wheel, **folders)
    assert done.returncode == 0, done.stderr
    find = "from rebyte_cli.installation import Installation; print(Installation.find().add('mcp'))"
    told = run(tmp_path / "tools" / "rebyte-cli" / "bin" / "python", "-c", find)
    assert told.stdout.startswith("Add it with `uv tool install --with 'anyio"), told.stderr
    assert told.stdout.endswith(f" {wheel}`\n")


def test_man_and_the_shells_find_what_the_wheel_installed(installed: Path) -> None:
    """`share/` of the environment: man(1) looks there when its `bin/` is in PATH."""
    man = need_tool("man")
    path = f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for name, section in (("rebyte-create", 1), ("rebyte-config", 5), ("rebyte-api", 7)):
        found = run(man, "-w", str(section), name, PATH=path)
        assert found.stdout.strip() == str(installed / f"share/man/man{section}/{name}.{section}")
    for shell, source, place in SCRIPTS:
        script = (ROOT / "completions" / source).read_text(encoding="utf-8")
        assert (installed / "share" / place).read_text(encoding="utf-8") == script
        assert run(installed / "bin" / "rebyte", "completion", shell).stdout == script


def test_the_sdist_holds_what_its_tests_need(built: Path) -> None:
    """A distribution packager starts here."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("README.md", "LICENSE", "Makefile", "man/rebyte.1", "completions/_rebyte"):
        assert name in names
    assert len([name for name in names if name.endswith("/_rebyte")]) == 1
    assert {"hatch_build.py", "tests/conftest.py", "tests/test_install.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(".venv")]


def needed(name: str, seen: dict[str, metadata.Distribution]) -> Iterator[metadata.Distribution]:
    """A distribution and those that it needs here, as pip would collect them."""
    distribution = metadata.distribution(name)
    key = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
    if key in seen:
        return
    seen[key] = distribution
    yield distribution
    for line in distribution.requires or ():
        requirement, _, marker = line.partition(";")
        wanted = re.match(r"[\w.-]+", requirement)
        if wanted is None or "extra" in marker:
            continue
        try:
            yield from needed(wanted[0], seen)
        except metadata.PackageNotFoundError:
            continue  # for another platform


@pytest.fixture(scope="module")
def single_file(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`rebyte.pyz`, made as `make pyz` makes it, of the wheel and the dependencies found here."""
    folder = tmp_path_factory.mktemp("pyz")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "files")
    # What only works unpacked is left out: the keyring of Linux, which needs compiled code.
    seen: dict[str, metadata.Distribution] = {}
    names = ("click", "requests", "rich", "tomli-w", "keyring", "werkzeug", "h11")
    for distribution in (found for name in names for found in needed(name, seen)):
        for file in distribution.files or ():
            if file.parts[0] in ("..", "cryptography", "cffi") or file.suffix in (".pyc", ".so"):
                continue
            target = folder / "files" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(str(distribution.locate_file(file))), target)
    made = folder / "rebyte.pyz"
    zipapp.create_archive(
        folder / "files", made, sys.executable, "rebyte_cli.__main__:main", compressed=False
    )
    return made


def test_the_single_file_runs(single_file: Path, home: Path) -> None:
    """From inside the archive: the commands are listed, a task runs, data is found."""

    def rebyte(*words: str) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, "-I", "-S", single_file, *words)

    assert rebyte("--version").stdout == f"rebyte {__version__}\n"
    listed = rebyte("--help").stdout
    assert re.search(r"^  create +Run a prompt", listed, re.MULTILINE)
    assert re.search(r"^  follow-up +Send", listed, re.MULTILINE)
    done = rebyte("-P", "local", "create", "Say hello", "--wait", "--fields", "status", "-o", "csv")
    assert (done.returncode, done.stdout) == (0, "status\ncompleted\n"), done.stderr
    table = rebyte("-P", "local", "list", "-o", "table")
    assert "completed" in table.stdout
    assert "rebyte-create(1)" in rebyte("man", "create").stdout[:20].lower()
    assert rebyte("skill").stdout.startswith("---")
    for shell, source, _ in SCRIPTS:
        script = (ROOT / "completions" / source).read_text(encoding="utf-8")
        assert rebyte("completion", shell).stdout == script
    answer = run(sys.executable, "-I", "-S", single_file, "crea", _REBYTE_COMPLETE="zsh")
    assert answer.stdout.startswith("\t\ncreate\t")
