"""Calls the local service over a real socket and holds each answer against the OpenAPI document."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import yaml

from rebyte_cli.local.local_service import Service

if TYPE_CHECKING:  # each worker imports this file, and one of them needs the validator
    from openapi_core import OpenAPI

KEY = "rbk_test"
DOCUMENT = Path(__file__).with_name("rebyte-openapi.yaml")


class Clock:
    """A clock that stands still until it is told to advance."""

    def __init__(self, now: float = 1_770_633_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Answer(NamedTuple):
    """One answer; `document` is the decoded JSON, or None."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    document: Any

    @property
    def code(self) -> str:
        return str(self.document["error"]["code"])

    @property
    def message(self) -> str:
        return str(self.document["error"]["message"])


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document as plain data."""
    loaded: dict[str, Any] = yaml.load(DOCUMENT.read_text(), yaml.CSafeLoader)
    return loaded


@functools.cache
def openapi() -> OpenAPI:
    """The OpenAPI document, loaded once.

    It is taken to be valid, since checking that takes longer than most tests; a test does so.
    """
    from openapi_core import Config, OpenAPI

    def text(body: bytes, **_parameters: str) -> str:
        return body.decode("utf-8", "replace")

    kinds: dict[str, Callable[[bytes], Any]] = {
        "text/event-stream": text,
        "application/octet-stream": text,
    }
    trusting = Config(spec_validator_cls=None, extra_media_type_deserializers=kinds)
    return OpenAPI.from_dict(document(), trusting)


def conform_to(schema: str, value: object) -> None:
    """Fail unless `value` follows a schema of the OpenAPI document."""
    from openapi_schema_validator import OAS31Validator

    components = document()["components"]
    whole = {"$ref": f"#/components/schemas/{schema}", "components": components}
    OAS31Validator(whole).validate(value)


def conform(method: str, path: str, answer: Answer) -> None:
    """Fail unless the OpenAPI document allows this answer to this call (path with `/v1`)."""
    from openapi_core.exceptions import OpenAPIError
    from openapi_core.testing import MockRequest, MockResponse

    request = MockRequest("https://api.rebyte.ai", method.lower(), path, headers={"API_KEY": KEY})
    content_type = (answer.headers.get("content-type") or "").split(";")[0]
    response = MockResponse(answer.raw, answer.status, content_type=content_type)
    if answer.status in (204, 302):
        assert answer.raw == b""
        assert "content-type" not in answer.headers
    try:
        openapi().validate_response(request, response)
    except OpenAPIError as error:
        reasons = getattr(error.__cause__, "schema_errors", error.__cause__)
        raise AssertionError(f"{method} {path}: {error!r} {reasons}: {answer}") from error


class Caller:
    """Calls on one kept connection. `path` is below `/v1`; paths that start with `//` are not."""

    def __init__(self, service: Service, key: str | None = KEY) -> None:
        self.service = service
        self.key = key
        parts = urlsplit(service.base_url)
        self.connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        check: bool = True,
    ) -> Answer:
        """One call; a JSON body, or `data` with `headers`. Held against OpenAPI if `check`."""
        sent = {} if self.key is None else {"API_KEY": self.key}
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        target = path[1:] if path.startswith("//") else f"/v1{path}"
        full = f"{target}?{urlencode(query)}" if query else target
        self.connection.request(method, full, data, {**sent, **(headers or {})})
        response = self.connection.getresponse()
        raw = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        is_json = names.get("content-type") == "application/json"
        answer = Answer(response.status, names, raw, json.loads(raw) if is_json and raw else None)
        if check:
            conform(method, target, answer)
        return answer

    def create(self, prompt: str = "Say hello", **fields: Any) -> dict[str, Any]:
        """POST /tasks; the created task."""
        answer = self.call("POST", "/tasks", {"prompt": prompt, **fields})
        assert answer.status == 201, answer
        task: dict[str, Any] = answer.document
        return task

    def task(self, task_id: str) -> dict[str, Any]:
        """GET /tasks/{id}."""
        answer = self.call("GET", f"/tasks/{task_id}")
        assert answer.status == 200, answer
        task: dict[str, Any] = answer.document
        return task

    def stream(self, task_id: str) -> Iterator[tuple[str, Any]]:
        """One connection to the event stream: (record name, data), comments left out."""
        parts = urlsplit(self.service.base_url)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        with contextlib.closing(connection):
            headers = {"API_KEY": self.key or "", "Accept": "text/event-stream"}
            connection.request("GET", f"/v1/tasks/{task_id}/events", headers=headers)
            response = connection.getresponse()
            assert response.headers["Content-Type"].startswith("text/event-stream")
            name = ""
            for line in response:
                text = line.decode().rstrip("\n")
                if text.startswith("event: "):
                    name = text[7:]
                elif text.startswith("data: "):
                    data = json.loads(text[6:])
                    conform_to("DoneEvent" if name == "done" else "TaskEvent", data)
                    yield name, data

    def upload(self, content: bytes, filename: str = "data.csv") -> dict[str, str]:
        """POST /files and the signed PUT; `{id, filename}` for a task."""
        kind = "text/csv"
        slot = self.call("POST", "/files", {"filename": filename, "contentType": kind}).document
        assert put(slot["uploadUrl"], content, {"Content-Type": kind}).status == 200
        return {"id": slot["id"], "filename": slot["filename"]}

    def page_headers(self) -> dict[str, str]:
        """The headers of a page that may act, in a browser that has opened a link with a key."""
        link = self.service.pages_url.partition("?")[2]
        answer = self.call("GET", f"//?{link}", check=False)
        headers = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        once = answer.headers["location"].partition("#enter=")[2].encode()
        key = self.call("POST", "//actions", data=once, headers=headers, check=False)
        assert key.status == 200, key
        return {**headers, "Rebyte-Actions": key.raw.decode()}

    def put_artifact(self, workspace: str, filename: str, content: bytes) -> None:
        """POST /workspaces/{id}/artifacts: one file in a multipart body."""
        head = f'Content-Disposition: form-data; name="files"; filename="{filename}"'
        data = b"--xx\r\n%b\r\n\r\n%b\r\n--xx--\r\n" % (head.encode(), content)
        headers = {"Content-Type": "multipart/form-data; boundary=xx"}
        path = f"/workspaces/{workspace}/artifacts"
        assert self.call("POST", path, data=data, headers=headers).status == 201


def put(url: str, content: bytes, headers: Mapping[str, str], method: str = "PUT") -> Answer:
    """A request to a signed URL, with exactly these headers and a Content-Length."""
    parts = urlsplit(url)
    with contextlib.closing(HTTPConnection(parts.hostname or "", parts.port, timeout=60)) as wire:
        wire.request(method, f"{parts.path}?{parts.query}", content, dict(headers))
        response = wire.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read(), None)


@contextlib.contextmanager
def serving(folder: Path, clock: Clock | None = None, **options: Any) -> Iterator[Caller]:
    """A service on `folder`, with these options, and a client that calls it."""
    options |= {} if clock is None else {"clock": clock}
    with Service(folder / "state", **options) as service:
        caller = Caller(service)
        try:
            yield caller
        finally:
            caller.connection.close()
