"""The suite's own PATH, HOME and environment: its tests reach nothing of the user who runs them.

A test must never start an agent that is installed here, ask a running ssh-agent or keyring, or
read a key from the environment. What is not listed here is therefore not there, for every test and
every process that a test starts.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# In the environment of processes whose parent has entered them already: workers, servers.
ENTERED = "TEST_SURROUNDINGS"

VARIABLES = (
    *("CI", "LANG", "LANGUAGE", "LOGNAME", "TERM", "TZ", "USER"),
    *("TEMP", "TMP", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("PYTHONDEVMODE", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONPATH"),
    "PYTHONWARNINGS",
)
PREFIXES = ("LC_", "PYTEST_", "REBYTE_FUZZ", "REBYTE_TEST_")
# How this machine downloads packages, which slow tests do.
DOWNLOADS = (
    *("CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"),
    *("SSL_CERT_DIR", "SSL_CERT_FILE"),
    *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("all_proxy", "http_proxy", "https_proxy", "no_proxy"),
)
DOWNLOAD_PREFIXES = ("PIP_", "UV_", "NPM_CONFIG_", "npm_config_")
# The one file in HOME that each of those programs may read.
DOWNLOAD_FILES = {"PIP_CONFIG_FILE": ".config/pip/pip.conf", "NPM_CONFIG_USERCONFIG": ".npmrc"}

# Of the system, shells, languages, manual pages, and services that tests start for themselves.
PROGRAMS = """
    [ awk basename cat chmod chown clear cmp comm cp cut date dd df diff dirname du echo env
    expr false find findmnt flock fold getent grep gzip head hostname id install join kill ln
    locale ls mkdir mkfifo mktemp mount mv nice nl nohup nproc numfmt od paste pgrep printenv
    printf prlimit ps pwd readlink realpath rm rmdir script sed seq setsid sha256sum shuf sleep
    sort split stat stty sync tac tail tar tee test timeout touch tput tr true truncate tsort
    tty umount uname uniq unshare wc which whoami xargs yes
    bash busybox dash fish sh zsh curl fzf jq less more parallel rsync shellcheck tmux
    git make node npm npx perl python python3
    apropos col eqn groff grotty man mandb mandoc manpath nroff preconv tbl troff
    bwrap chromedriver chromium cron crontab dbus-daemon faketime gnome-keyring-daemon
    ssh ssh-keygen sshd
    nsenter podman sbatch scancel scontrol sinfo slurmctld slurmd slurmstepd squeue srun systemctl
    systemd-run
"""


def enter() -> None:
    """Replace the environment of this process, and so of all that it starts."""
    if ENTERED in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="rebyte-tests."))
    made_by = os.getpid()

    def remove() -> None:
        if os.getpid() == made_by:  # a fork that ends leaves it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    variables = _variables(VARIABLES, PREFIXES) | for_downloads() | _home(folder / "home")
    variables["PATH"] = _path(folder / "bin")
    os.environ.clear()
    os.environ.update(variables, GIT_CONFIG_NOSYSTEM="1", **{ENTERED: str(folder)})


def for_downloads() -> dict[str, str]:
    """The variables with which package managers reach their index from here."""
    files = {name: Path.home() / place for name, place in DOWNLOAD_FILES.items()}
    found = {name: str(file) for name, file in files.items() if file.exists()}
    return found | _variables(DOWNLOADS, DOWNLOAD_PREFIXES)


def _variables(names: tuple[str, ...], prefixes: tuple[str, ...]) -> dict[str, str]:
    """Those of the environment with these names, or whose names begin with these prefixes."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith(prefixes)
    }


def _home(home: Path) -> dict[str, str]:
    """An empty HOME; XDG_* is not set, so that every folder is in it."""
    runtime = home / "run"
    runtime.mkdir(parents=True, mode=0o700)
    return {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}


def _path(folder: Path) -> str:
    """A PATH with nothing but `PROGRAMS`."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = {name: shutil.which(name, path=search) for name in PROGRAMS.split()}
    folder.mkdir()
    for name, path in found.items():
        if path is not None:
            (folder / name).symlink_to(path)
    return str(folder)
