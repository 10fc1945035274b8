"""Files that are written and removed in a folder while an agent does what it likes there."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from rebyte_cli.local.agents import agent_files

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
