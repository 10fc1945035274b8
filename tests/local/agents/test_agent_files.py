"""Files that are written and removed in a folder while an agent does what it likes there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from rebyte_cli.local.agents import agent_files

from .bench import with_mounts

# Waits until a folder is being emptied, and puts links in place of what is still to come.
SWAPPING = """
import os, sys
place, victim = sys.argv[1:]
os.chdir(place)
names = [entry.name for entry in os.scandir(".")]
print("ready", flush=True)
while os.path.lexists(names[0]):
    pass
for name in reversed(names):
    try:
        os.rmdir(name)
        os.symlink(victim, name)
    except OSError:
        break
"""
# The code may be in a folder that only root can read: it is imported first.
UNPRIVILEGED = """
import os
from pathlib import Path
from rebyte_cli.local.agents import agent_files
os.setresuid(54321, 54321, 54321)
agent_files.remove_tree(Path("tree"))
"""


@pytest.mark.slow
def test_an_agent_at_work_cannot_turn_a_mode_change_to_another_file(tmp_path: Path) -> None:
    """The name of a folder can have become a link by the time its mode is changed."""
    home, victim = tmp_path / "home", tmp_path / "victim"
    victim.write_text("mine")
    victim.chmod(0o444)
    place = home / ".agent/.login.new"
    for number in range(3000):
        (place / str(number)).mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", SWAPPING, str(place), str(victim)], stdout=subprocess.PIPE
    ) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        with suppress(OSError):  # what the agent put there cannot all be removed
            agent_files.write(home, ".agent/login", b"{}")
    assert victim.stat().st_mode & 0o777 == 0o444


def test_a_file_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    for name in ("login", ".login.new"):
        (tmp_path / name / "below").mkdir(parents=True)
        agent_files.write(tmp_path, "login", b"{}")
        assert (tmp_path / "login").read_bytes() == b"{}"
        assert [path.name for path in tmp_path.iterdir()] == ["login"]
        (tmp_path / "login").unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without privileges")
def test_a_user_can_remove_what_an_agent_made_unreadable(tmp_path: Path) -> None:
    (tmp_path / "tree/a/b/c").mkdir(parents=True)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 54321, 54321)
    for name, mode in (("a/b", 0), ("a", 0o311), ("", 0)):
        (tmp_path / "tree" / name).chmod(mode)
    subprocess.run([sys.executable, "-c", UNPRIVILEGED], cwd=tmp_path, check=True)
    assert not (tmp_path / "tree").exists()


# Folders from below an overlay cannot be moved, nor those out of a subvolume of btrfs.
OVERLAY = """
mount -t tmpfs none . && cd "$PWD" && mkdir -p below/tree/a/b/c/d above work merged &&
    touch below/tree/a/b/c/f &&
    mount -t overlay none -o lowerdir=below,upperdir=above,workdir=work,userxattr merged || exit 9
exec "$@"
"""
REMOVING = """
import errno, os
from pathlib import Path
from rebyte_cli.local.agents import agent_files
try:
    os.rename("merged/tree/a/b", "merged/tree/b")
except OSError as error:
    assert error.errno == errno.EXDEV
agent_files.remove_tree(Path("merged/tree"))
print(os.listdir("merged"))
"""


def test_folders_that_cannot_be_moved_are_removed_where_they_are(tmp_path: Path) -> None:
    done = with_mounts(tmp_path, OVERLAY, REMOVING)
    assert done.stdout == "[]\n", done.stderr


# Those that are encrypted, without their key, for one.
STRACE = shutil.which("strace", path=os.defpath) or ""
LOCKED = "inject=rename,renameat,renameat2:error=ENOKEY"
LOCKED_REMOVING = """
import os
from pathlib import Path
from rebyte_cli.local.agents import agent_files
try:
    os.rename("tree/a/b", "tree/b")
except OSError:
    agent_files.remove_tree(Path("tree"))
"""


@pytest.mark.skipif(not STRACE, reason="no strace")
def test_locked_folders_are_removed_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "tree/a/b/c/d").mkdir(parents=True)
    (tmp_path / "tree/a/b/c/f").touch()
    (tmp_path / "tree/a/b").chmod(0o500)
    subprocess.run(
        [STRACE, "-qq", "-o", "/dev/null", "-e", LOCKED, sys.executable, "-c", LOCKED_REMOVING],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        check=True,
    )
    assert os.listdir(tmp_path) == []


MOUNTED = """
mkdir -p tree/a/b/c kept/below && touch kept/file && mount --bind kept tree/a/b || exit 9
exec "$@"
"""
UNMOUNTED = """
from pathlib import Path
from rebyte_cli.local.agents import agent_files
agent_files.remove_tree(Path("tree"))
"""


def test_what_is_mounted_in_a_folder_is_kept(tmp_path: Path) -> None:
    done = with_mounts(tmp_path, MOUNTED, UNMOUNTED)
    assert done.returncode == 0, done.stderr
    assert {*os.listdir(tmp_path / "kept")} == {"below", "file"}


MANY = 12_000


def removed(folder: Path) -> None:
    agent_files.remove_tree(folder / "below")


def emptied(folder: Path) -> None:
    agent_files.keep_only(folder, ["kept", "below/kept"])


def walked(folder: Path) -> None:
    assert sum(1 for _ in agent_files.walk(folder)) == MANY + 2


@pytest.mark.slow
@pytest.mark.parametrize("make", [os.mknod, os.mkdir])
@pytest.mark.parametrize("work", [removed, emptied, walked])
def test_many_names_take_no_memory(
    tmp_path: Path, make: Callable[[str], None], work: Callable[[Path], None]
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "kept").touch()
    for number in range(MANY):
        make(f"{tmp_path}/below/{number:0200}")
    tracemalloc.start()
    try:
        work(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    left = {removed: {"kept"}, emptied: {"kept", "below"}}
    assert work is walked or set(os.listdir(tmp_path)) == left[work]
    assert work is not emptied or not os.listdir(tmp_path / "below")


def test_a_walk_sees_what_is_below_at_any_depth(tmp_path: Path) -> None:
    here, made = tmp_path, set[str]()
    for number in range(3 * agent_files.MOST_OPEN):
        for name in ("a", "b"):
            (here / name).mkdir()
            made.add(str(here / name))
        (here / f"{number}").symlink_to(tmp_path)
        made.add(str(here / f"{number}"))
        here /= "b" if number % 2 else "a"
    descriptors = len(os.listdir("/proc/self/fd"))
    found = []
    for entry in agent_files.walk(tmp_path):
        found.append(entry.path)
        assert len(os.listdir("/proc/self/fd")) <= descriptors + agent_files.MOST_OPEN + 1
    assert sorted(found) == sorted(made)
    agent_files.remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()
