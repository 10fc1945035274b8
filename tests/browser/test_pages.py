"""The pages of `rebyte local serve` as a person sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from rebyte_cli.local.server import Service

from ..witness import Caller

PATCH = b"""\
diff --git a/hello.txt b/hello.txt
new file mode 100644
--- /dev/null
+++ b/hello.txt
@@ -0,0 +1,2 @@
+<script>alert(1)</script>
+%b
""" % (b"x" * 500)
SCREENS = {"phone": (390, 844), "desktop": (1200, 900)}


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    """A client of a running service."""
    with Service(tmp_path) as service:
        yield Caller(service)


@pytest.fixture
def visit(browser: Chrome, caller: Caller) -> Iterator[Callable[[str], None]]:
    """Open a path of the service; at the end the browser has had nothing to complain about."""
    origin = caller.service.base_url.removesuffix("/v1")
    browser.get_log("browser")
    yield lambda path: browser.get(origin + path)
    browser.get("about:blank")
    assert browser.get_log("browser") == []


def texts(browser: Chrome, selector: str) -> list[str]:
    """The visible text of every element that matches."""
    # In one step: the page may change between two.
    script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)"
    found: list[str] = browser.execute_script(script, selector)
    return found


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_fit(
    browser: Chrome,
    caller: Caller,
    visit: Callable[[str], None],
    violations: Callable[[], list[str]],
    scheme: str,
    screen: str,
) -> None:
    width, height = SCREENS[screen]
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    done = caller.create("Fix <b>it</b> " + "unbreakable" * 20 + " [[run=0]]")
    caller.put_artifact(done["workspaceId"], "changes.patch", PATCH)
    asking = caller.create("[[ask]] [[run=0]]")
    for path in ("/", f"/run/{done['id']}", f"/run/{asking['id']}"):
        visit(path)
        assert violations() == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_transcript_grows(browser: Chrome, caller: Caller, visit: Callable[[str], None]) -> None:
    task = caller.create("Take your time [[run=4s]] [[events=12]]")
    visit(f"/run/{task['id']}")
    assert texts(browser, "h1 + p .status") == ["running"]
    browser.execute_script("window.opened = true")
    before = len(texts(browser, ".transcript li"))

    wait = WebDriverWait(browser, 20, poll_frequency=0.1)
    wait.until(lambda b: before < len(texts(b, ".transcript li")) < 9)
    # The first items may have nothing to open.
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "summary"))[0].click()
    wait.until(lambda b: texts(b, "h1 + p .status") == ["completed"])
    assert len(texts(browser, "details[open]")) == 1  # what a reader opened stays open
    assert len(texts(browser, ".transcript li")) == 9  # without `init`, the answer and `result`
    assert len(set(texts(browser, ".transcript li"))) == 9
    assert browser.title == "Take your time - rebyte local"
    assert texts(browser, "h3") == ["Answer"]
    assert browser.execute_script("return window.opened")  # the page was never reloaded


def test_list_keeps_up(browser: Chrome, caller: Caller, visit: Callable[[str], None]) -> None:
    caller.create("First [[run=0]]")
    visit("/")
    caller.create("Second [[run=2s]]")
    wait = WebDriverWait(browser, 20, poll_frequency=0.1)
    wait.until(lambda b: texts(b, "tbody .status") == ["running", "completed"])
    wait.until(lambda b: texts(b, "tbody .status") == ["completed", "completed"])
    assert texts(browser, "tbody a") == ["Second", "First"]
    browser.find_element(By.LINK_TEXT, "Second").click()
    assert texts(browser, "h1") == ["Second"]


def test_readable_without_script(
    browser: Chrome, caller: Caller, visit: Callable[[str], None]
) -> None:
    task = caller.create("Say hello [[run=0]]")
    caller.put_artifact(task["workspaceId"], "changes.patch", PATCH)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visit(f"/run/{task['id']}")
        assert texts(browser, "pre.prompt") == ["Say hello [[run=0]]"]
        assert texts(browser, ".transcript summary b") == ["Bash"]
        assert texts(browser, "h3 + pre")[0].startswith("This is a simulation")
        assert "+<script>alert(1)</script>" in texts(browser, ".patch")[0]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
