"""The built site: nothing leads nowhere, nothing comes from another host, every page is found."""

from __future__ import annotations

import inspect
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import rebyte_cli

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
MANUAL = {page.name for page in (ROOT / "man").iterdir()}


class HtmlPage(HTMLParser):
    """What a page leads to (`links`), what it loads (`loaded`), and where it can be entered."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the attributes that are addresses or ids."""
        found = dict(attrs)
        if name := found.get("id"):
            self.ids.add(name)
        loaded = found.get("src") or (found.get("href") if tag == "link" else None)
        self.loaded += [loaded] if loaded else []
        target = found.get("href") if tag == "a" else None
        self.links += [target] if target else []


@pytest.fixture(scope="module")
def pages() -> dict[str, HtmlPage]:
    """Every page of the site but the one for addresses that are not there."""
    return {path.name: HtmlPage(path) for path in SITE.glob("*.html") if path.name != "404.html"}


def test_every_link_leads_somewhere(pages: dict[str, HtmlPage]) -> None:
    for name, page in pages.items():
        for link in page.links:
            target = urlsplit(link)
            if target.scheme in ("https", "javascript"):
                continue
            file = unquote(target.path) or name
            file = "index.html" if file == "." else file
            assert (SITE / file).exists(), (name, link)
            if target.fragment:
                assert unquote(target.fragment) in pages[file].ids, (name, link)


def test_nothing_is_loaded_from_another_host(pages: dict[str, HtmlPage]) -> None:
    for name, page in pages.items():
        assert page.loaded
        for address in page.loaded:
            target = urlsplit(address)
            assert not target.netloc, (name, address)
            assert (SITE / unquote(target.path)).exists(), (name, address)


def test_every_page_of_the_manual_is_there_and_found(pages: dict[str, HtmlPage]) -> None:
    listed = set(pages["index.html"].links)
    index = json.loads((SITE / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    for page in MANUAL:
        assert f"{page}.html" in listed
        assert f"{page}.html" in found
        assert (SITE / f"{page}.md").exists()


def test_the_library_is_described_by_its_docstrings(pages: dict[str, HtmlPage]) -> None:
    """Every exported name, every method, and what the client is made with."""
    for name in rebyte_cli.__all__:
        found = getattr(rebyte_cli, name)
        if isinstance(found, type):
            assert f"{found.__module__}.{name}" in pages["library.html"].ids
    client = rebyte_cli.RebyteClient
    for name, _ in inspect.getmembers(client, inspect.isfunction):
        is_shown = f"{client.__module__}.RebyteClient.{name}" in pages["library.html"].ids
        assert is_shown != name.startswith("_"), name
    text = re.sub(r"<[^>]*>", "", (SITE / "library.html").read_text(encoding="utf-8"))
    assert "ca_bundle: str | None = None" in text
    assert ":::" not in text


def test_no_markup_is_left() -> None:
    for path in SITE.glob("*.html"):
        text = re.sub(r"<(pre|script|style|code)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
        text = re.sub(r"<[^>]*>", "", text)
        assert not re.search(r"```|^:   |\]\(|<!--", text, re.MULTILINE), path.name


def test_language_models_find_every_page() -> None:
    """`llms.txt` as https://llmstxt.org has it: a title, a summary, lists of links."""
    text = (SITE / "llms.txt").read_text(encoding="utf-8")
    assert re.match(r"# rebyte\n\n> .+\n\n## \w+\n\n- \[", text)
    links = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S.*$", text, re.MULTILINE)
    assert len(links) == text.count("\n- ")
    assert {f"{page}.md" for page in MANUAL} <= set(links)
    full = (SITE / "llms-full.txt").read_text(encoding="utf-8")
    for link in links:
        assert (SITE / link).read_text(encoding="utf-8") in full
