"""A headless Chromium, and axe-core from npm to check pages with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service as Driver

from ..tools import lack, need_tool

CACHE = Path(__file__).parents[2] / ".browser-cache"
AXE = "axe-core@4.14.1"


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """Debian's Chromium. What it complains about (`get_log("browser")`) is kept."""
    options = webdriver.ChromeOptions()
    options.binary_location = need_tool("chromium")
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # its sandbox refuses to run as root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=Driver(need_tool("chromedriver")))
    yield running
    running.quit()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, from a folder inside the checkout that is filled once."""
    script = CACHE / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        npm = [need_tool("npm"), "install", "--prefix", str(CACHE), "--no-save", "--silent", AXE]
        if subprocess.run(npm, check=False).returncode:
            lack(f"npm cannot install {AXE}")
    return script.read_text(encoding="utf-8")


@pytest.fixture
def violations(browser: webdriver.Chrome, axe: str) -> Any:
    """What axe-core finds wrong with the page that is open: `violations() == []`."""

    def find() -> list[str]:
        browser.execute_script(axe)
        found = browser.execute_async_script("axe.run().then(arguments[0])")
        return [
            f"{each['id']}: {node['html']}"
            for each in found["violations"]
            for node in each["nodes"]
        ]

    return find
