"""The pages of `rebyte local serve` as a person sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from rebyte_cli.local.local_service import Service

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
SCREENS = {"phone": (375, 812), "desktop": (1280, 900)}
ANSWER = f"""# Done <script>document.title = "run"</script>
A [link](https://x.example/a) and [none](javascript:document.title="run"), ![p](https://x.example/p)
<img src="https://x.example/q" onerror="document.title='run'">
```
{"x" * 300}
```
| {"wide " * 60}|
|---|
| cell |
> quoted
1. one"""


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


def eventually(browser: Chrome, selector: str, expected: list[str]) -> None:
    """Wait until the elements that match have these texts."""
    wait = WebDriverWait(browser, 30, poll_frequency=0.1)
    wait.until(lambda b: texts(b, selector) == expected, message=selector)


def fill(browser: Chrome, selector: str, words: str) -> None:
    """Type words where a selector leads, as soon as that can be seen."""
    wait = WebDriverWait(browser, 30, poll_frequency=0.1)
    wait.until(lambda b: b.find_element(By.CSS_SELECTOR, selector).is_displayed())
    browser.find_element(By.CSS_SELECTOR, selector).send_keys(words)


def say(text: str) -> str:
    """The steering word that has a simulated run answer with a text."""
    return "[[say=" + "".join(f"\\u{ord(one):04x}" for one in text) + "]]"


@pytest.fixture
def enter(browser: Chrome, caller: Caller, visit: Callable[[str], None]) -> Iterator[None]:
    """Let the browser in with a link, so that it may act."""
    visit("/?" + caller.service.pages_url.partition("?")[2])
    acts = "return document.documentElement.classList.contains('acts')"
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(acts))
    assert "#" not in browser.current_url
    yield
    browser.delete_all_cookies()


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.usefixtures("enter")
def test_pages_are_accessible_and_fit(
    browser: Chrome,
    caller: Caller,
    visit: Callable[[str], None],
    violations: Callable[[], list[str]],
    scheme: str,
    screen: str,
) -> None:
    width, height = SCREENS[screen]
    emulate(browser, scheme, width, height)
    batch = {"id": "b", "title": "unbreakable" * 20, "lines": 9}
    title = "Fix <b>it</b> " + "unbreakable" * 20
    usage = "[[run=0]] [[usage=1200:80:0.02]]"
    done = caller.create(f"{title} {usage} {say(ANSWER)}", batch=batch)
    caller.put_artifact(done["workspaceId"], "changes.patch", PATCH)
    for how in ("[[fail]] [[run=0]]", "[[cancel]] [[run=0]]", "[[run=1h]]", "[[limit=1h]]"):
        caller.create(how, batch=batch)
    asking = caller.create("[[ask=2]] [[run=0]]", batch=batch)
    for path in ("/", "/?batch=b", "/?q=nothing", "/?status=waiting"):
        visit(path)
        check_page(browser, violations, width)
    for task in (done, asking):
        visit(f"/run/{task['id']}")
        check_page(browser, violations, width)


def emulate(browser: Chrome, scheme: str, width: int, height: int) -> None:
    """Let the browser have a screen of this size, and a scheme of colours."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def check_page(browser: Chrome, violations: Callable[[], list[str]], width: int) -> None:
    """With all of it open, the page is accessible, and nothing in it is wider than the screen."""
    browser.execute_script(
        "for (const one of document.querySelectorAll('details')) one.open = true"
    )
    assert violations() == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_nothing_that_an_agent_wrote_runs_or_is_loaded(
    browser: Chrome, caller: Caller, visit: Callable[[str], None]
) -> None:
    """The fixture `visit` also sees what the policy has refused."""
    task = caller.create(f"[[title=<img src=x>]] [[run=0]] {say(ANSWER)}")
    caller.put_artifact(
        task["workspaceId"], "changes.patch", PATCH.replace(b"hello", b"<img src=x>")
    )
    visit(f"/run/{task['id']}")
    assert texts(browser, ".markdown h4") == ['Done <script>document.title = "run"</script>']
    assert texts(browser, ".markdown a") == ["link", "p"]
    eventually(browser, "h1", ["<img src=x>"])
    assert browser.title == "<img src=x> - rebyte local"
    loaded = "return performance.getEntriesByType('resource').map((one) => new URL(one.name).host)"
    assert set(browser.execute_script(loaded)) == {caller.service.origin.partition("//")[2]}
    assert browser.execute_script("return document.images.length") == 0


@pytest.mark.usefixtures("enter")
def test_answer_follow_up_and_cancel(
    browser: Chrome, caller: Caller, visit: Callable[[str], None]
) -> None:
    task = caller.create("[[ask=2]] [[run=0]]")["id"]
    visit(f"/run/{task}")
    eventually(browser, "legend", ["Question 1 of 2", "Question 2 of 2"])
    fill(browser, "fieldset:nth-of-type(2) textarea", "as you like")
    browser.find_element(By.CSS_SELECTOR, "form[data-message] button").click()
    eventually(browser, "form[data-message] output", ["Choose an option, or write an answer."])
    browser.find_element(By.CSS_SELECTOR, ".option").click()
    browser.find_element(By.CSS_SELECTOR, "form[data-message] button").click()
    eventually(browser, "h1 + div .status", ["completed"])
    assert "Answered: Go on; as you like" in texts(browser, ".markdown")[-1]

    fill(browser, "#follow-up", "And more [[run=1h]]")
    browser.find_element(By.CSS_SELECTOR, "form[data-post$=prompts] button").click()
    eventually(browser, "pre.prompt", ["[[ask=2]] [[run=0]]", "And more [[run=1h]]"])
    eventually(browser, "h2 .status", ["succeeded", "running"])

    browser.find_element(By.CSS_SELECTOR, "#cancel button").click()
    browser.switch_to.alert.accept()
    eventually(browser, "h2 .status", ["succeeded", "canceled"])
    eventually(browser, "#cancel", [""])


def test_a_browser_without_the_key_sees_no_forms(
    browser: Chrome, caller: Caller, visit: Callable[[str], None]
) -> None:
    """It may have the cookie, which it sends to every port."""
    task = caller.create("[[ask]] [[run=0]]")["id"]
    visit("/?" + caller.service.pages_url.partition("?")[2])
    WebDriverWait(browser, 30).until(lambda b: b.execute_script("return localStorage.length"))
    browser.execute_script("localStorage.clear()")
    visit(f"/run/{task}")
    assert len(browser.find_elements(By.TAG_NAME, "form")) == 3
    assert not any(one.is_displayed() for one in browser.find_elements(By.TAG_NAME, "button"))
    assert texts(browser, ".unable") == [f"Answer: rebyte answer {task}"]


def test_times_are_those_of_the_reader(
    browser: Chrome, caller: Caller, visit: Callable[[str], None]
) -> None:
    task = caller.create("[[run=0]]")
    zones = {}
    for zone in ("Asia/Tokyo", "UTC"):
        browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": zone})
        visit("/")
        zones[zone] = texts(browser, "time")[0]
        titles = [one.get_attribute("title") for one in browser.find_elements(By.TAG_NAME, "time")]
        utc = task["createdAt"]
        assert titles == [f"{utc[:10]} {utc[11:19]} UTC"]
    read = "return arguments[0].map((one) => Date.parse(one))"
    tokyo, utc = browser.execute_script(read, list(zones.values()))
    assert tokyo - utc == 9 * 3600 * 1000


def test_search_and_filter(browser: Chrome, caller: Caller, visit: Callable[[str], None]) -> None:
    caller.create("Fix the cat [[run=0]]")
    caller.create("Feed the cat [[run=1h]]")
    caller.create("Feed the dog [[run=1h]]")
    visit("/")
    fill(browser, "input[type=search]", "CAT")
    eventually(browser, "tbody a", ["Feed the cat", "Fix the cat"])
    assert browser.current_url.endswith("/?q=CAT")
    browser.find_element(By.CSS_SELECTOR, "#chips .running").click()
    eventually(browser, "tbody a", ["Feed the cat"])
    eventually(browser, "[aria-current]", ["running 1"])
    caller.create("Ask the cat [[run=1h]]")
    eventually(browser, "tbody a", ["Ask the cat", "Feed the cat"])
    fill(browser, "input[type=search]", Keys.BACKSPACE * 3)
    eventually(browser, "tbody a", ["Ask the cat", "Feed the dog", "Feed the cat"])


def test_a_batch_moves(browser: Chrome, caller: Caller, visit: Callable[[str], None]) -> None:
    batch = {"id": "b", "title": "tasks.jsonl", "lines": 2}
    caller.create("One [[run=0]]", batch=batch)
    visit("/")
    eventually(browser, "#batches a", ["tasks.jsonl"])
    browser.find_element(By.LINK_TEXT, "tasks.jsonl").click()
    eventually(browser, ".progress", ["1 of 2 ended"])
    caller.create("Two [[run=0]]", batch=batch)
    eventually(browser, ".progress", ["2 of 2 ended"])
    assert len(browser.find_elements(By.CSS_SELECTOR, ".parts rect")) == 1


def test_what_was_opened_stays_open_when_the_patch_changes(
    browser: Chrome, caller: Caller, visit: Callable[[str], None]
) -> None:
    task = caller.create("[[run=1h]]")
    other = PATCH.replace(b"hello", b"other")
    caller.put_artifact(task["workspaceId"], "changes.patch", PATCH + other)
    visit(f"/run/{task['id']}")
    browser.find_elements(By.CSS_SELECTOR, ".file summary")[1].click()
    caller.put_artifact(task["workspaceId"], "changes.patch", PATCH + other + b"+more\n")
    eventually(browser, ".file[open] summary", ["other.txt +3 −0"])  # noqa: RUF001
    assert texts(browser, ".file summary")[0] == "hello.txt +2 −0"  # noqa: RUF001


def test_a_page_says_when_the_service_is_gone(browser: Chrome, tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        browser.get(service.origin)
        assert not browser.find_element(By.ID, "lost").is_displayed()
    wait = WebDriverWait(browser, 30)
    wait.until(lambda b: b.find_element(By.ID, "lost").is_displayed())
    browser.get("about:blank")


def test_transcript_grows(browser: Chrome, caller: Caller, visit: Callable[[str], None]) -> None:
    task = caller.create("Take your time [[run=4s]] [[events=12]]")
    visit(f"/run/{task['id']}")
    assert texts(browser, "h1 + div .status") == ["running"]
    browser.execute_script("window.opened = true")
    before = len(texts(browser, ".transcript li"))

    wait = WebDriverWait(browser, 20, poll_frequency=0.1)
    wait.until(lambda b: before < len(texts(b, ".transcript li")) < 9)
    # The first items may have nothing to open.
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "li summary"))[0].click()
    wait.until(lambda b: texts(b, "h1 + div .status") == ["completed"])
    assert len(texts(browser, "li details[open]")) == 1  # what a reader opened stays open
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
        browser.find_element(By.CSS_SELECTOR, ".steps > summary").click()
        assert texts(browser, ".transcript summary b") == ["Bash"]
        assert texts(browser, "h3 + .markdown")[0].startswith("This is a simulation")
        assert "+<script>alert(1)</script>" in texts(browser, ".patch")[0]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
