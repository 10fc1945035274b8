"""What a page in the browser of this machine gets from the local service: nothing."""

from __future__ import annotations

from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.witness import KEY, serving

OTHER_HOSTS = [
    "evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.999.1.1", "127.1", "",
    "0.0.0.0", "10.0.0.1", "localhost@evil.example", "localhost:x", "[::2]", "localhost/x",
]  # fmt: skip
OTHER_PAGES = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
]


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_case_55_a_host_that_is_not_this_machine_is_misdirected(tmp_path: Path, host: str) -> None:
    """A name of the attacker that resolves to a loopback address makes a page same-origin."""
    with serving(tmp_path) as caller:
        headers = {"Host": host}
        refused = caller.call("POST", "/tasks", {"prompt": "x"}, headers=headers, check=False)
        assert (refused.status, refused.code) == (421, "misdirected_request")
        assert caller.call("GET", "//run/x", headers=headers, check=False).status == 421
        assert caller.call("GET", "/tasks").document["total"] == 0


def test_case_55_a_host_in_the_target_counts_more_than_the_header(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        port = urlsplit(caller.service.base_url).port
        for target, status in (
            (f"http://evil.example:{port}/v1/tasks", 421),
            (f"HTTP://localhost:{port}/v1/tasks", 200),
        ):
            caller.connection.request("GET", target, headers={"API_KEY": KEY})
            answer = caller.connection.getresponse()
            answer.read()
            assert answer.status == status


@pytest.mark.parametrize("headers", OTHER_PAGES)
def test_case_55_another_page_may_neither_write_nor_read(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with serving(tmp_path) as caller:
        task = caller.create()["id"]
        hook = {"url": "http://127.0.0.1:1/x", "events": ["task.created"]}
        for method, path, body in (
            ("POST", "/tasks", {"prompt": "x"}),
            ("DELETE", f"/tasks/{task}", None),
            ("POST", "/webhooks", hook),
            ("GET", f"/tasks/{task}", None),
            ("OPTIONS", "/tasks", None),
        ):
            refused = caller.call(method, path, body, headers=headers, check=False)
            assert (refused.status, refused.code) == (403, "foreign_origin"), path
            assert "access-control-allow-origin" not in refused.headers
        assert caller.call("GET", "/tasks").document["total"] == 1
        assert caller.call("GET", "/webhooks").document == {"webhooks": []}


def test_this_service_s_own_pages_and_links_to_them_work(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task = caller.create()["id"]
        port = urlsplit(caller.service.base_url).port
        for host in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]", "127.8.9.10"):
            own = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}".lower()}
            own["Sec-Fetch-Site"] = "same-origin"
            assert caller.call("GET", f"/tasks/{task}", headers=own).status == 200, host
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        shown = {**link, "Sec-Fetch-Dest": "document"}
        framed = {**link, "Sec-Fetch-Dest": "iframe"}
        page = f"//run/{task}"
        assert caller.call("GET", page, headers=shown, check=False).status == 200
        assert caller.call("GET", page, headers=framed, check=False).status == 403
        assert caller.call("GET", f"/tasks/{task}", headers=shown, check=False).status == 403


def test_case_55_the_object_store_believes_no_page_either(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        slot = caller.call("POST", "/files", {"filename": "a.txt"}).document
        url = urlsplit(slot["uploadUrl"])
        kind = {"Content-Type": "application/octet-stream"}
        for headers, status in (
            ({"Host": "evil.example"}, 421),
            ({"Origin": "http://evil.example"}, 403),
            ({}, 200),
        ):
            connection = HTTPConnection(url.hostname or "", url.port, timeout=60)
            target = f"{url.path}?{url.query}"
            connection.request("PUT", target, b"x", {**kind, **headers})
            assert connection.getresponse().status == status
            connection.close()


def test_a_body_needs_a_json_content_type(tmp_path: Path) -> None:
    """A page may send any of these without asking first."""
    with serving(tmp_path) as caller:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            refused = caller.call(
                "POST", "/tasks", headers={"Content-Type": kind}, data=b'{"prompt": "x"}'
            )
            assert (refused.status, refused.code) == (400, "validation_error"), kind
