"""The search of the site that `make site` builds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from ..tools import lack

SITE = Path(__file__).parents[2] / "build" / "site"


class QuietHandler(SimpleHTTPRequestHandler):
    """Files of a folder, without a log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    """Where the site is served."""
    if not (SITE / "index.html").exists():
        lack("make site has not run")
    handler = partial(QuietHandler, directory=str(SITE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_word_is_found(browser: Chrome, address: str) -> None:
    browser.get(f"{address}/index.html?q=idempotency")
    links = WebDriverWait(browser, 20).until(
        lambda page: page.find_elements(By.CSS_SELECTOR, "a.md-search-result__link")
    )
    assert any((link.get_attribute("href") or "").startswith(f"{address}/rebyte") for link in links)
