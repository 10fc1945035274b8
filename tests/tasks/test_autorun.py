"""The list of files that tools run by themselves."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from rebyte_cli.tasks import autorun

LIST = Path(autorun.__file__).parent / "autorun.txt"


@pytest.mark.parametrize(
    "path",
    [
        "AGENTS.md", "sub/CLAUDE.md", "GEMINI.md", "opencode.json", ".agents/x", ".cursor/rules/a",
        ".cargo/config.toml", "mise.toml", "flake.nix", "eslint.config.js", "vite.config.ts",
        "web/webpack.config.cjs", "tox.ini", "noxfile.py", "pytest.ini", "a/conftest.py",
        "setup.py", "CMakeLists.txt", "Rakefile", "pom.xml", "x.pth", ".vimrc", ".exrc",
        ".gitlab-ci.yml", "bitbucket-pipelines.yml", "azure-pipelines.yml", "Jenkinsfile",
        ".woodpecker/a.yml", "action.yml", "a/action.yaml", ".env", ".env.local", "prod.env",
        ".github/workflows/ci.yml", "Makefile", "GNUmakefile", "a/b/Dockerfile.prod", "build.rs",
        ".envrc", "package.json", "poetry.lock", "go.sum", ".husky/pre-commit", ".mcp.json",
        ".gitattributes", ".gitmodules", "sitecustomize.py", ".vscode/tasks.json", ".gitignore",
        "lefthook.json", ".lefthook-local.yml", "prek.toml", "CODEOWNERS", ".woodpecker.yaml",
        ".openhands/setup.sh", ".junie/guidelines.md", ".config/mise.toml", "mise-tasks/test",
        ".env-prod", ".node-version", "lib/x.nix", "pytest.toml", "x.start", "sitecustomize.so",
        "jupyterhub_config.py", "jest.config.json", ".swcrc", ".size-limitrc.js", ".bazelversion",
        "project/Plugins.scala", "Properties/launchSettings.json", "x.vcxproj.user", "x.slnx",
        ".formatter.exs", "hie.yaml", ".RData", "pubspec.yaml", "hook/build.dart", "config.nims",
        ".terraform.lock.hcl", "packages.lock.json", "Dockerfile", "Containerfile.dev", "_netrc",
        "__pycache__/a.cpython-313.pyc", "a/b.pyc", "tui.json", "tui.jsonc",
        ".jvmopts", ".sbtopts", "www/.user.ini", "www/.htaccess", "Tupfile", "Tuprules.tup",
        "cpanfile", "Berksfile", ".tmuxinator.yml", ".ycm_extra_conf.py", ".lazy.lua", ".nvimrc",
        ".vim/coc-settings.json", ".vimspector.json", ".prototools", ".fleet/run.json", ".gdbinit",
        ".dir-locals.el", ".lldbinit", ".project", ".externalToolBuilders/x.launch", "bb.edn",
        "helmfile.yaml", "helmfile.d/a.yaml", "Tupfile.lua", "doc/HEAD", "a/commondir",
        "captainhook.json", "grumphp.yml", ".rusty-hook.toml", "hk.pkl", ".trunk/trunk.yaml",
        ".simple-git-hooks.json", ".cargo-husky/hooks/pre-commit", "lean-toolchain", ".dvc/config",
        "requirements/dev.txt", "dev-requirements.txt", "lakefile.lean", "foundry.toml", ".gitlint",
    ],
)  # fmt: skip
def test_known_files_are_named(path: str) -> None:
    assert autorun.reader_of(path)


@pytest.mark.parametrize(
    "path",
    [
        "MAKEFILE", "makefile", ".GitHub/Workflows/ci.yml", "PACKAGE.JSON", "Makefile.",
        "Makefile ", "Makefile::$DATA", ".g\u200cithub/x", ".en\ufeffvrc", "a\\.envrc",
        "con\uff46test.py", ".github./x", "\uff21gents.md", "AGENT\u017f.md",
    ],
)  # fmt: skip
def test_other_spellings_are_named_too(path: str) -> None:
    """Of the same file on a file system that is more forgiving than the one of Linux."""
    assert autorun.reader_of(path)


@pytest.mark.parametrize(
    "path",
    ["main.py", "README.md", "src/app.ts", "docs/makefile-guide.md", "env.py", "test_setup.py",
     "lock.py", "src/environment.ts", "package.json.md", "myconftest.py", "a/dockerfile/x",
     "src/hooks/useTheme.ts", "app/ContainerFiles.cs", "lexers/procfile.py", "public/vercel.svg",
     "docs/lefthook.md", "share/app.desktop"],
)  # fmt: skip
def test_ordinary_files_are_not(path: str) -> None:
    assert autorun.reader_of(path) == ""


@pytest.mark.parametrize("piece", [".", "/.", "/a", ".x", "/\uff41", "a/.github/"])
def test_no_path_takes_long(piece: str) -> None:
    """Git takes names of any length in a patch, which can have thousands of them."""
    began = time.process_time()
    for length in (4_000, 30_000):
        autorun.reader_of(piece * (length // len(piece)))
    assert time.process_time() - began < 0.5


def test_a_file_is_known_at_the_end_of_a_long_path() -> None:
    above = "folder/" * 500
    assert autorun.reader_of(f"{above}Makefile") == autorun.reader_of("Makefile")
    assert autorun.reader_of(f".github/{above}x") == autorun.reader_of(".github/x")


def test_each_line_has_a_pattern_a_reader_and_a_source() -> None:
    lines = [line for line in LIST.read_text().splitlines() if not line.startswith("#")]
    for line in lines:
        assert line.split("|")[0].rstrip("/").count("/") < autorun.DEEPEST
        pattern, reader, source = line.removeprefix("!").split("|")
        assert pattern == pattern.lower()
        example = pattern.replace("*", "x") + ("x" * pattern.endswith("/"))
        assert autorun.reader_of(example) == reader, f"another line names {example}"
        assert re.fullmatch(r"https://[^ ]+|rebyte man local-agents", source), line
    patterns = [line.partition("|")[0] for line in lines]
    assert len(patterns) == len(set(patterns))
