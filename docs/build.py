"""Write the pages of the site: the manual, the README and what belongs to them, for MkDocs.

`python -m docs.build FOLDER` writes `FOLDER/mkdocs.yml` and `FOLDER/pages/`. The manual's pages are
the source of the man pages too, in the subset of Markdown that `rebyte_cli.manual.roff` describes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import rebyte_cli
from hatch_build import for_an_index
from rebyte_cli.cli import root
from rebyte_cli.manual.builder import fill, markdown, names, written
from rebyte_cli.manual.tree import describe


class SitePage(NamedTuple):
    """One page: its file, its title in the navigation, what it is for, and its Markdown."""

    file: str
    title: str
    purpose: str
    text: str


ROOT = Path(__file__).parents[1]
ABOUT = "Run coding-agent tasks in cloud VMs from a shell, a script or a CI job."
PICTURES = "rebyte_cli/manual/*.svg"
# The pages of the manual that are about no single command, in the order of the site.
GUIDES = {
    "rebyte-tutorial.7": "Tutorial",
    "rebyte-workflow.7": "From a prompt to a branch",
    "rebyte-examples.7": "Recipes",
    "rebyte-from-curl.7": "From curl",
    "rebyte-local.7": "The local service",
    "rebyte-local-agents.7": "Agents on this machine",
    "rebyte-places.7": "Agents on another machine",
    "rebyte-shards.7": "A batch on many machines",
    "rebyte-check.7": "Checks",
    "rebyte-config.5": "Settings",
    "rebyte-api.7": "The HTTP interface",
}
DOCUMENTS = {
    "README.md": SitePage("index.md", "rebyte", ABOUT, ""),
    "CHANGELOG.md": SitePage("changelog.md", "Changelog", "What changed in each version.", ""),
    "SECURITY.md": SitePage("security.md", "Security", "How keys and data are protected.", ""),
    "CONTRIBUTING.md": SitePage(
        "contributing.md", "Contributing", "How the code is organised.", ""
    ),
}
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_PAGE = re.compile(r"(?<![\w-])(rebyte[\w-]*)\((\d)\)")


def pages() -> dict[str, list[SitePage]]:
    """The pages of the site by their part of it, in order. The first is the start page."""
    tree = describe(root)
    known = set(names(tree))
    commands = [name for name in known if name not in GUIDES]
    commands.sort(key=lambda name: (name != "rebyte.1", name))
    made = {name: _manual_page(name, markdown(name, tree), known) for name in (*GUIDES, *commands)}
    skill = fill(written("SKILL.md"), tree)
    about = re.search(r"^description: (.+)$", skill, re.MULTILINE)
    assert about is not None
    return {
        "Start": [_document("README.md")],
        "Guides": [made[name] for name in GUIDES],
        "Commands": [made[name] for name in commands],
        "Agents": [SitePage("skill.md", "Skill", about[1], skill.partition("---\n\n")[2])],
        "Python": [_library()],
        "Project": [_document(file) for file in DOCUMENTS if file != "README.md"],
    }


def _manual_page(name: str, text: str, known: set[str]) -> SitePage:
    first, _, rest = text.partition("\n")
    purpose = first.partition(": ")[2]
    title = GUIDES.get(name) or name.removesuffix(".1").replace("-", " ", 1)

    def link(found: re.Match[str]) -> str:
        target = f"{found[1]}.{found[2]}"
        return f"[{found[0]}]({target}.md)" if target in known and target != name else found[0]

    body = _outside_of_code(rest, lambda words: _PAGE.sub(link, words.replace("<", "&lt;")))
    if name == "rebyte.1":
        body = re.sub(r"^`([\w-]+)`(?=\n:   )", partial(_command, known), body, flags=re.MULTILINE)
    about = f"{purpose[:1].upper()}{purpose[1:]}."
    return SitePage(f"{name}.md", title, purpose, f"# {title}\n\n{about}\n{_fences(body)}")


def _library() -> SitePage:
    """The reference of the library: mkdocstrings replaces each `:::` by docstrings and types."""
    purpose = "The Python library: the client, its types and its errors"
    sections: dict[str, list[str]] = {"Client": [], "Types": [], "Errors": []}
    for name in sorted(rebyte_cli.__all__, key=str.casefold):
        found = getattr(rebyte_cli, name)
        if not isinstance(found, type):
            continue
        section, options = "Types", {"show_source": True, "members": False}
        if found is rebyte_cli.RebyteClient:
            section, options = "Client", {}
        elif issubclass(found, BaseException):
            section, options = "Errors", {"members": False, "show_bases": True}
        directive = f"::: {found.__module__}.{name}\n    options: {json.dumps(options)}"
        sections[section].append(directive)
    written = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    listed = (f"## {title}\n\n" + "\n\n".join(each) for title, each in sections.items())
    return SitePage("library.md", "Library", purpose, "\n\n".join([written.rstrip(), *listed]))


def _command(known: set[str], term: re.Match[str]) -> str:
    """A term of the list of commands, which leads to its page."""
    page = f"rebyte-{term[1]}.1"
    return f"[{term[0]}]({page}.md)" if page in known else term[0]


def _document(file: str) -> SitePage:
    text = for_an_index((ROOT / file).read_text(encoding="utf-8"))

    def link(found: re.Match[str]) -> str:
        mark, words, place = found.groups()
        if re.match(r"[a-z]+:|#", place):
            return found[0]
        if Path(place).match(PICTURES):
            return f"{mark}[{words}]({Path(place).name})"
        if place in DOCUMENTS:
            return f"[{words}]({DOCUMENTS[place].file})"
        if place == "man":
            return f"[{words}](rebyte.1.md)"
        if place.startswith("rebyte_cli/manual/pages/"):
            return f"[{words}]({Path(place).name})"
        return words  # a file of the checkout

    text = re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, text)
    return DOCUMENTS[file]._replace(text=_fences(text))


def _outside_of_code(text: str, change: Callable[[str], str]) -> str:
    """The text with what is neither in a fence nor in backticks changed."""
    made, end = [], 0
    for code in _CODE.finditer(text):
        made += [change(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*made, change(text[end:])])


def _fences(text: str) -> str:
    """Fences with a language alone: `console real` says how a session is recorded."""
    return re.sub(r"^```(\w+) .*$", r"```\1", text, flags=re.MULTILINE)


def llms(parts: dict[str, list[SitePage]], base: str) -> str:
    """The site for language models, in the format of llmstxt.org; the links are to Markdown."""
    lines = ["# rebyte", "", f"> {ABOUT}"]
    for part, listed in parts.items():
        lines += ["", f"## {'Optional' if part == 'Project' else part}", ""]
        lines += [f"- [{page.title}]({base}{page.file}): {_short(page.purpose)}" for page in listed]
    return "\n".join(lines) + "\n"


def _short(purpose: str) -> str:
    """The first sentence."""
    return re.split(r"(?<=\w)\. ", purpose)[0].rstrip(".")


def write(folder: Path, base: str) -> None:
    """Write everything that MkDocs reads. `base` is the URL of the site, or "" for none."""
    parts = pages()
    shutil.rmtree(folder, ignore_errors=True)
    target = folder / "pages"
    target.mkdir(parents=True)
    for page in (page for listed in parts.values() for page in listed):
        (target / page.file).write_text(page.text, encoding="utf-8")
    for picture in ROOT.glob(PICTURES):
        shutil.copy(picture, target)
    readable = {part: listed for part, listed in parts.items() if part != "Python"}
    (target / "llms.txt").write_text(llms(readable, base), encoding="utf-8")
    full = "\n\n".join(page.text for listed in readable.values() for page in listed)
    (target / "llms-full.txt").write_text(full, encoding="utf-8")
    configuration = {
        "INHERIT": os.path.relpath(ROOT / "docs" / "mkdocs.yml", folder),
        "docs_dir": "pages",
        "nav": list(_navigation(parts)),
    }
    (folder / "mkdocs.yml").write_text(json.dumps(configuration, indent=2), encoding="utf-8")


def _navigation(parts: dict[str, list[SitePage]]) -> Iterator[dict[str, Any]]:
    for part, listed in parts.items():
        entries = [{page.title: page.file} for page in listed]
        yield {part: entries if len(entries) > 1 else listed[0].file}


if __name__ == "__main__":
    write(Path(sys.argv[1]), os.environ.get("SITE_URL", ""))
