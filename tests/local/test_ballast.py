"""A full disk: what is kept back on it lets the service forget, and so free some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rebyte_cli.local.ballast import full_disk

# In a mount namespace, whose small disk is full of bytes and files at once.
FILL = """
import os, sys
from pathlib import Path
from rebyte_cli.local import ballast
from rebyte_cli.local.store import StateError, Store

folder = Path(sys.argv[1])
folder.chmod(0o700)
Store(folder).close()
if sys.argv[2] == "kept":
    ballast.keep(folder, plenty=0)
number = 0
try:
    while True:
        with open(folder / f"full{number}", "xb", buffering=0) as file:
            number += 1
            file.write(bytes(500_000))
except OSError:
    pass
try:
    while True:
        (folder / f"full{number}").touch(exist_ok=False)
        number += 1
except OSError:
    pass
print(ballast.full_disk(folder, 1))
try:
    store = Store(folder)
    with store.write() as db:
        db.execute("INSERT INTO meta VALUES ('a', ?)", ("x" * 1_000_000,))
    print("written")
except StateError as error:
    print("refused")
"""


def in_namespace(folder: Path, how: str) -> list[str]:
    """What the program prints, on a disk of 16 MiB and 300 files."""
    mount = 'mount -t tmpfs -o size=16m,nr_inodes=300,mode=700 tmpfs "$1" && shift && exec "$@"'
    words = ["unshare", "-rm", "sh", "-c", mount, "sh", str(folder)]
    words += [sys.executable, "-c", FILL, str(folder), how]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="needs namespaces of Linux")
@pytest.mark.parametrize(("how", "then"), [("kept", "written"), ("not kept", "refused")])
def test_a_full_disk_lets_the_database_forget(tmp_path: Path, how: str, then: str) -> None:
    full, after = in_namespace(tmp_path, how)
    assert full.startswith("the disk has ")
    assert after == then


def test_how_full_a_disk_is(tmp_path: Path) -> None:
    assert full_disk(tmp_path, 0) == ""
    assert "MB left ([local] keep_free)" in full_disk(tmp_path, 10**18)
