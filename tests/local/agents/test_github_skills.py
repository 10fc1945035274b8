"""Skills of repositories on GitHub, of which some kilobytes can stand for gigabytes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.local.agents.sources import skills
from rebyte_cli.local.agents.workspaces.workspace_folder import disk_usage
from tests.repositories import git, name_bare_ones

SKILL = "---\nname: audit\n---\n"
Hub = Callable[[dict[str, str]], Path]


@pytest.fixture
def hub(tmp_path: Path, user_home: Path) -> Hub:
    """Make the repository `acme/skills` with these files; `>` begins the target of a link."""
    settings = f'[url "{tmp_path}/hub/"]\n\tinsteadOf = https://github.com/\n'
    (user_home / ".gitconfig").write_text(settings)

    def made(files: dict[str, str]) -> Path:
        root = tmp_path / "hub/acme/skills.git"
        root.mkdir(parents=True)
        git(root, "init", "-q", "-b", "main")
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content.startswith(">"):
                path.symlink_to(content[1:])
            else:
                path.write_bytes(content.encode())
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "Start")
        return root

    return made


def resolved(cache: Path, path: str = "") -> Path:
    found = skills.resolve([f"github:acme/skills{path}"], [], cache)
    assert isinstance(found[0], str)
    return Path(found[0])


def many_names(hub: Hub) -> None:
    """Give a repository 101 names for one megabyte."""
    root = hub({"one": "x" * 1_000_000, "SKILL.md": SKILL, "tools/audit/SKILL.md": SKILL})
    blob = git(root, "rev-parse", "HEAD:one").strip()
    for number in range(101):
        git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},tools/audit/{number}")
    git(root, "commit", "-q", "-m", "Grow")


@pytest.mark.slow
@pytest.mark.parametrize("path", ["", "/tools/audit", "/tools"])
def test_of_one_that_is_too_large_nothing_is_written(hub: Hub, tmp_path: Path, path: str) -> None:
    many_names(hub)
    with pytest.raises(skills.UnknownSkill) as problem:
        resolved(tmp_path / "cache", path)
    told = "has no SKILL.md" if path == "/tools" else "is too large: a skill may have 100 MB in"
    assert told in str(problem.value)
    assert disk_usage(tmp_path / "cache") < 1_000_000


@pytest.mark.slow
def test_too_many_files_or_folders_are_refused(hub: Hub, tmp_path: Path) -> None:
    root = hub({"SKILL.md": SKILL})
    tree = git(root, "rev-parse", "HEAD^{tree}").strip()
    for _ in range(101):
        done = subprocess.run(
            ["git", "mktree"], cwd=root, input=f"040000 tree {tree}\ta\n", text=True,
            capture_output=True, check=True,
        )  # fmt: skip
        tree = done.stdout.strip()
    git(root, "read-tree", "--prefix=deep", tree)
    git(root, "commit", "-q", "-m", "Deep")
    with pytest.raises(skills.UnknownSkill, match="too large"):
        resolved(tmp_path / "cache")


def test_only_the_skill_is_written(hub: Hub, tmp_path: Path) -> None:
    hub({
        "large": "x" * 1_000_000, ".gitattributes": "*.txt eol=crlf\n", "tools/b/SKILL.md": SKILL,
        "tools/audit/SKILL.md": SKILL, "tools/audit/a/b.txt": "1\n", "tools/audit/[a]": "",
    })  # fmt: skip
    cache = tmp_path / "cache"
    audit = resolved(cache, "/tools/audit")
    assert (audit.name, sorted(os.listdir(audit))) == ("audit", ["SKILL.md", "[a]", "a"])
    assert (audit / "a/b.txt").read_bytes() == b"1\r\n"
    assert os.listdir(audit.parent) == ["audit"]
    assert disk_usage(cache) < 1_000_000
    kept = (audit / "SKILL.md").stat().st_ino
    assert resolved(cache, "/tools/b").name == "b"
    assert (resolved(cache, "/tools/audit") / "SKILL.md").stat().st_ino == kept


def test_no_filter_of_the_user_runs_for_a_skill(hub: Hub, tmp_path: Path, user_home: Path) -> None:
    """It may run what is in the folder, which a stranger wrote."""
    hub({".gitattributes": "* filter=upper\n", "audit/SKILL.md": SKILL})
    with (user_home / ".gitconfig").open("a") as settings:
        settings.write('[filter "upper"]\n\tsmudge = tr a-z A-Z\n\trequired\n')
    assert (resolved(tmp_path / "cache", "/audit") / "SKILL.md").read_text() == SKILL


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True])
def test_a_skill_behind_links(hub: Hub, tmp_path: Path, user_home: Path, named: bool) -> None:
    if named:
        name_bare_ones(user_home)
    hub({
        "tools/audit/SKILL.md": SKILL, ".claude/skills/mine": ">../../all/audit", "all": ">tools",
        "out": ">../../etc", "loop/a": ">b", "loop/b": ">a", "root": ">.", "SKILL.md": SKILL,
        "file/SKILL.md": ">../SKILL.md",
    })  # fmt: skip
    found = resolved(tmp_path, "/.claude/skills/mine")
    assert (found.name, (found / "SKILL.md").read_text()) == ("mine", SKILL)
    assert (resolved(tmp_path, "/root") / "tools/audit/SKILL.md").is_file()
    assert resolved(tmp_path).name == "acme+skills"
    for path, told in (("/out", "leads out"), ("/loop/a", "leads out"), ("/no", "has no SKILL.md")):
        with pytest.raises(skills.UnknownSkill, match=told):
            resolved(tmp_path / "other", path)
    with pytest.raises(skills.UnknownSkill, match="is no file in its folder"):
        resolved(tmp_path / "other", "/file")


def test_a_hint_names_the_skills_of_a_very_deep_repository(hub: Hub, tmp_path: Path) -> None:
    root = hub({"tools/audit/SKILL.md": SKILL, "no-SKILL.md": ""})
    deep = "/".join("a" * 1200)
    blob = git(root, "rev-parse", "HEAD:no-SKILL.md").strip()
    git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{deep}")
    git(root, "commit", "-q", "-m", "Deep")
    with pytest.raises(skills.UnknownSkill) as problem:
        resolved(tmp_path)
    assert problem.value.hint == "Folders that have one: tools/audit"


@pytest.mark.slow
def test_of_any_number_of_skills_so_many_are_known(tmp_path: Path) -> None:
    for number in range(skills.MOST_FILES):
        (tmp_path / f"a{number:05}").mkdir()
    (tmp_path / "z").mkdir()
    for name in ("a00007", "z"):
        (tmp_path / name / "SKILL.md").write_text(f"---\ndescription: {'much ' * 1000}\n---\n")
    found = skills.known([skills.SkillFolder(tmp_path)])
    assert [(slug, len(skill.description)) for slug, skill in found.items()] == [("a00007", 1024)]
