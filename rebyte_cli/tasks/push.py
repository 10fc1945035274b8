"""A push from a repository whose settings others may have written.

git pushes from a repository of ours, which borrows the objects. There, the user's own settings are
in force, and of the repository's only those in `KEPT`.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes

from ..system import git
from ..system.untrusted import read_file
from .patch import own_repository

Configured = list[tuple[str, str]]  # names and values, of which the later ones count
SECONDS = 600.0
LARGEST_SHALLOW = 1 << 24  # bytes, for some hundred thousand commits
# None of them names a program, a file, a proxy or what is trusted.
KEPT = re.compile(
    r"http\.(?:.*\.)?extraheader"  # a checkout in CI keeps its token there
    r"|http\.(?:.*\.)?(?:postbuffer|version)"  # what large pushes to some servers need
    r"|credential\.(?:.*\.)?(?:username|usehttppath)"  # which of the user's logins it is
    r"|remote\..*\.fetch",  # which reference remembers the branch of the remote
    re.DOTALL,
)
# What has had its effect once the settings have been listed, and the address is known.
_USED = re.compile(r"include(?:if\..*)?\.path|url\..*|remote\..*\.(?:push)?url", re.DOTALL)
# git's own protocols. git has a rule for any other helper, too, but lets all but `ext` run.
PROTOCOLS = (
    ("protocol.allow", "never"), ("protocol.file.allow", "user"), ("protocol.git.allow", "always"),
    ("protocol.http.allow", "always"), ("protocol.https.allow", "always"),
    ("protocol.ssh.allow", "always"),
)  # fmt: skip
_HELPER = re.compile(r"([A-Za-z0-9][A-Za-z0-9+.-]*):(?::|//)")
# An address that git takes for no folder on this disk.
_ELSEWHERE = re.compile(r"(?:https?|git|ssh|git\+ssh|ssh\+git)://|\[[^/]*:|[^/:]+:(?!:|//)")


def push_branch(root: Path, name: str, remote: str) -> None:
    """Push a branch to a remote, where it may only move forward. Raises GitFailed.

    No program runs that the repository names, nor one that a repository on this disk names, which
    may be a part of the one here. As git does, the remote-tracking branch follows.
    """
    known, ref = own_repository(), f"refs/heads/{name}"
    commit = git.commit_of(root, ref, known)
    if not commit:
        raise git.GitFailed(f"the repository has no branch {name}")
    common = Path(git.common_folder(root, known)).resolve()
    git.check_lenders(root, common)
    users, _ = git.settings(root, known)
    # What it includes may be the settings of another repository, with what these keep secret.
    words = ["config", "-z", "--no-includes", "--file", str(common / "config"), "--list"]
    repositorys = git.settings_in(git.run(words, root, known))
    if f"remote.{remote}.vcs" in dict(repositorys):
        raise git.GitFailed(
            f"the repository's configuration names a helper for the remote: remote.{remote}.vcs",
            hint=f"If you trust it: git push {shlex.quote(remote)} {shlex.quote(name)}",
        )
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        repository, config = Path(folder, "repository"), Path(folder, "config")
        variables = _scratch(root, known, repository) | git.only_settings(config)
        if ssh := dict(users).get("core.sshcommand"):
            variables.setdefault("GIT_SSH_COMMAND", os.environ.get("GIT_SSH_COMMAND", ssh))
        to, addresses = _resolved(root, remote, users + repositorys, variables)
        for address in addresses:
            settings = [*_in_force(users, repositorys), (f"remote.{to}.url", address)]
            config.write_bytes(_text(settings))
            _push(root, address, [to, f"{commit}:{ref}"], variables)
        listed = git.run(["for-each-ref", "--format=%(refname)", "refs/remotes"], root, variables)
    for tracking in os.fsdecode(listed).split("\n")[:-1]:
        words = ["update-ref", "--no-deref", "-m", "update by push", tracking, commit]
        with suppress(git.GitFailed):  # as if the push had failed, which it has not
            git.run(words, root, known, to_end=True)


def _push(root: Path, address: str, to: Sequence[str], variables: Mapping[str, str]) -> None:
    words = ["-c", "push.negotiate=false", "push", "--quiet", "--no-verify"]
    words += ["--no-recurse-submodules"]
    if not _ELSEWHERE.match(address):
        off: list[str] = []
        if address.startswith("file://") or not _HELPER.match(address):
            receiver = _checked_receiver(root, address)
            off = git.hooks_off(root, {**variables, "GIT_DIR": receiver})
        words += ["--no-signed", f"--receive-pack={git.receive_pack(off)}"]
    try:
        git.run([*words, "--end-of-options", *to], root, variables, timeout=SECONDS)
    except git.GitFailed as error:
        helper = _HELPER.match(address)
        # Those two run and read what an address says, which is seldom the user's.
        if (
            helper
            and helper[1] not in ("ext", "fd")
            and f"transport '{helper[1]}' not allowed" in error.said
        ):
            hint = f"If you trust it: git config --global protocol.{helper[1]}.allow always"
            raise error.copy_with(hint=hint) from None
        raise


def _checked_receiver(root: Path, address: str) -> str:
    """The repository on this disk as git finds it: it would write through its links, too."""
    place = os.path.join(root, _path_of(address))
    for end in ("/.git", "", ".git/.git", ".git"):
        with suppress(git.GitFailed):
            found = git.line(["rev-parse", "--resolve-git-dir", place + end], root)
            break
    else:
        raise git.GitFailed(f"there is no repository at {address}")
    here = {"GIT_DIR": os.path.join(root, found)}
    common = git.line(["rev-parse", "--path-format=absolute", "--git-common-dir"], root, here)
    for each in {found, common}:
        git.check_parts(Path(root, each).resolve())
    return here["GIT_DIR"]


def _path_of(address: str) -> str:
    """The path that git takes an address on this disk for, without slashes at its end."""
    is_url = address.startswith("file://")
    text = address.removeprefix("file://")
    if is_url:
        text = os.fsdecode(unquote_to_bytes(os.fsencode(text).replace(b"%00", b"%2500")))
    if (is_url and not text.startswith("/")) or re.search(r"(?:^|@)\[", text):
        raise git.GitFailed(
            f"git would drop a part of the remote's address, and push elsewhere: {address}",
            hint="Let the address be the path of the repository, with no host",
        )
    return (text if is_url else os.path.expanduser(text)).rstrip("/") or "/"


def _in_force(users: Configured, repositorys: Configured) -> Configured:
    """The settings with which git pushes to an address."""
    kept = [each for each in repositorys if KEPT.fullmatch(each[0]) and each[1].isprintable()]
    settings = [each for each in users + kept if not _USED.fullmatch(each[0])]
    return settings if "protocol.allow" in dict(settings) else [*PROTOCOLS, *settings]


def _resolved(
    root: Path, remote: str, settings: Configured, variables: Mapping[str, str]
) -> tuple[str, list[str]]:
    """A name for a remote, or for an address, and where git pushes by what `url.*` says of it."""
    names = (f"remote.{remote}.url", f"remote.{remote}.pushurl")
    # To git, what begins with a slash is never a name.
    urls = [each for each in settings if each[0] in names and not remote.startswith("/")]
    name = remote if urls else f"address {remote}"
    told = [each for each in settings if each[0].startswith("url.")]
    config = Path(variables["GIT_DIR"], "config")
    before = config.read_bytes()
    # git shows remotes of no other file.
    config.write_bytes(before + _text([*told, *(urls or [(f"remote.{name}.url", remote)])]))
    words = ["remote", "get-url", "--push", "--all", "--end-of-options", name]
    listed = git.run(words, root, variables)
    config.write_bytes(before)
    return name, os.fsdecode(listed).split("\n")[:-1]


def _scratch(root: Path, known: Mapping[str, str], repository: Path) -> dict[str, str]:
    """Variables for a new repository with the objects of another, and with no settings yet."""
    objects, shallow = (
        git.line(["rev-parse", "--path-format=absolute", "--git-path", name], root, known)
        for name in ("objects", "shallow")
    )
    form = git.line(["rev-parse", "--show-object-format"], root, known)
    words = ["init", "--quiet", "--bare", "--template=", f"--object-format={form}"]
    git.run([*words, str(repository)])
    if cut := read_file(shallow, LARGEST_SHALLOW):
        (repository / "shallow").write_bytes(cut)
    lenders = [git.quoted(objects), known.get("GIT_ALTERNATE_OBJECT_DIRECTORIES", "")]
    return {
        "GIT_DIR": str(repository),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join(filter(None, lenders)),
    }


def _text(settings: Configured) -> bytes:
    """A file of git's with these settings."""
    text = ""
    for name, value in settings:
        section, _, rest = name.partition(".")
        part, dot, key = rest.rpartition(".")
        text += f"[{section} {git.quoted(part)}]\n" if dot else f"[{section}]\n"
        text += f"\t{key} = " + git.quoted(value).replace("\n", "\\n") + "\n"
    return text.encode("utf-8", "surrogateescape")
