"""A request to a model: whether it passes, and what it becomes with the real key.

Few pass, of each wire: those that ask it something. Uploads, files, batches and accounts are ways
out of a sandbox, so what is not listed here is refused. Paths, queries and headers are those of the
vendors' documents that Claude Code, Codex, Gemini CLI and OpenCode use.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from ...system.untrusted import read_json
from .allowed_hosts import HTTP_PORT, HTTPS_PORT, HostPort, parse_authority, to_ascii
from .exchange import Headers
from .gateway_settings import (
    ANTHROPIC,
    ANY,
    BEARER,
    CREDENTIALS,
    GEMINI,
    OPENAI,
    ModelRoute,
)
from .json_scanner import JsonScanner, Path
from .model_answer import ModelAnswer
from .model_usage import model_name
from .refusal import GatewayRefusal
from .request_record import printable
from .secret_mask import SecretMask
from .user_proxy import basic_authorization, password_of

# Some servers read a key in any case, and of several the last one. Here, all but the usual spelling
# of this key is in upper case, and without `_`.
_MODEL = b"model"
_MODEL_KEYS: list[Path] = [(_MODEL,), (b"MODEL",)]
# How many answers it is to write, each as long as one.
_ANSWERS: list[Path] = [(b"N",), (b"GENERATIONCONFIG", b"CANDIDATECOUNT")]
_MOST_ANSWERS = 128  # that OpenAI writes; the others write fewer
_PACKINGS = {b"gzip", b"x-gzip", b"deflate", b"br", b"zstd"}
_PARAMETER = re.compile(rb";[^,]*")
_HEADER = re.compile(r"[!-~](?:[ -~]*[!-~])?")
# One part of a path. No `%`, which the next server might decode, and no `.` or `..`.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._:@+~-]*"
_PLAIN = r"[A-Za-z0-9][A-Za-z0-9._@+~-]*"  # without a method of Gemini's
_MODEL_NAME = rf"{_NAME}(?:/{_NAME}){{0,4}}"  # such as accounts/NAME/models/NAME
# What may come before it, unless the base URL has it already.
_VERSION = {
    ANTHROPIC: r"(?:/v1)?",
    OPENAI: r"(?:/openai)?(?:/v1)?",
    GEMINI: r"(?:/v1(?:alpha|beta)?)?",
}
_POST = {
    ANTHROPIC: r"/messages(?:/count_tokens)?",
    OPENAI: (
        r"/(?:responses(?:/compact|/input_tokens)?|chat/completions"
        rf"|deployments/{_NAME}/(?:responses|chat/completions))"  # Azure
    ),
    GEMINI: (
        rf"/(?:models|tunedModels)/{_PLAIN}"
        r":(?:generateContent|streamGenerateContent|countTokens)"
    ),
}
_GET = {
    ANTHROPIC: rf"/models(?:/{_MODEL_NAME})?",
    OPENAI: rf"/models(?:/{_MODEL_NAME})?",
    GEMINI: rf"/models(?:/{_PLAIN})?",
}
# Of Anthropic, Azure, Codex and Gemini; the rest belongs to lists of models.
_QUERY = {
    "after_id", "alt", "api-version", "before_id", "beta", "client_version", "limit", "pageSize",
    "pageToken",
}  # fmt: skip
_VALUE = re.compile(r"[A-Za-z0-9._~=-]{0,200}")
# How an answer may be written: so that its counts are told apart from the text of the model.
_FORMS = {"json", "sse"}
HEADERS = {
    "accept", "anthropic-beta", "anthropic-dangerous-direct-browser-access", "anthropic-version",
    "chatgpt-account-id", "content-encoding", "openai-beta", "originator", "session-id",
    "session_id", "user-agent", "x-app", "x-goog-api-client",
}  # fmt: skip
HEADER_PREFIXES = ("x-stainless-",)
# Whose work it is: no secret, and a word that an answer may need.
BILLED = {"chatgpt-account-id", "openai-organization", "openai-project"}


class ModelRequest:
    """A request for `target`, which begins with the prefix of one of the models.

    `scheme`, `place` and `target` say where it is to go; `rest` is what of its path follows the
    base URL, which can have a secret. `route` says which of the models it is for; `answer` filters
    what comes back. `answers` is how many the model is to write, at most.
    """

    def __init__(
        self,
        models: Sequence[ModelRoute],
        method: str,
        target: str,
        passwords: Sequence[str] = (),
    ) -> None:
        """`passwords`, those of the user's proxies, are masked in the answer as well.

        Raises GatewayRefusal if there is no such model, or it has no address.
        """
        path, _, query = target.partition("?")
        route = next((each for each in models if path.startswith(f"{each.prefix}/")), None)
        if route is None:
            raise GatewayRefusal(403, "no model is served at this path")
        self._route = route
        self.route = route.name
        self._method = method
        self.rest = path.removeprefix(route.prefix)
        self._base, self.place = _address(route.base_url)
        self.scheme = self._base.scheme
        whole_path = self._base.path.rstrip("/") + self.rest
        ours = {**dict(parse_qsl(self._base.query)), **route.query}
        self._given = [part for part in clean_query(query) if part[0] not in ours]
        whole = urlencode([*self._given, *ours.items()], safe=":")
        self.target = f"{whole_path}?{whole}" if whole else whole_path
        self._wire = wire = wire_of(route.wire, self.rest)
        self.answers = 1
        self._names = {model_in(self.rest)} - {""}  # of models, as read so far
        secrets = [value for name, value in ours.items() if name not in _QUERY]
        for name, value in route.headers.items():
            secrets += () if name.lower() in BILLED else (value, *value.split())
        keys = [route.key, *password_of(self._base), *passwords]
        self.answer = ModelAnswer(route, SecretMask(secrets, keys), wire, self.place.host)
        # Whether it makes the model work, which costs something.
        self.generates = generates(method, self.rest)

    @property
    def model(self) -> str | None:
        """The model that it asks for; None if it does not say, or could mean several."""
        return model_name(next(iter(self._names))) if len(self._names) == 1 else None

    def question(self, headers: Headers) -> JsonScanner:
        """What reads the body of this request, which has these headers.

        Of one that is packed (`Content-Encoding`), any part may have everything, and it may ask for
        as many answers as its wire allows.
        """
        wanted = [*_ANSWERS, *(() if self._wire == GEMINI else _MODEL_KEYS)]
        question = JsonScanner(wanted, self._found, _spelled)
        if _packings(headers):
            question.has_ended = True
            if self._wire == GEMINI or self.rest.endswith("/chat/completions"):
                self.answers = _MOST_ANSWERS
        return question

    def _found(self, path: Path, text: bytes) -> None:
        value = ""
        with contextlib.suppress(ValueError):
            value = str(read_json(text.decode("utf-8", "replace")))
        if path in _MODEL_KEYS:
            if len(self._names) < 2:  # which says as much as more of them would
                self._names.add(value if path == (_MODEL,) else "")
        else:
            with contextlib.suppress(ValueError):
                self.answers = max(self.answers, int(min(float(value), _MOST_ANSWERS)))

    def check(self, headers: Headers) -> None:
        """Raise GatewayRefusal for anything but a question to the model with the placeholder."""
        if any(name == b"upgrade" for name, _ in headers):
            raise GatewayRefusal(426, "models are asked in HTTP/1.1 only, not over WebSocket")
        if not is_allowed(self._route.wire, self._method, self.rest):
            what = printable(f"{self._method} {self.rest}")
            raise GatewayRefusal(403, f"{what} is no question to a model, and nothing else passes")
        if any(name == "alt" and value not in _FORMS for name, value in self._given):
            reason = "no other answers than JSON and event streams can be asked for (alt)"
            raise GatewayRefusal(403, reason)
        if not _packings(headers) <= _PACKINGS:  # servers that ignore one read what is here
            raise GatewayRefusal(400, "the Content-Encoding of the request is not known")
        placeholder = self._route.placeholder.encode()
        found = [_credential(name, value) for name, value in headers]
        # hmac would compare in constant time, but takes 2 MiB; the whole jail may know it anyway.
        if placeholder and placeholder not in found:
            raise GatewayRefusal(401, "the request does not have the key that this run was given")

    def headers(self, headers: Headers) -> Headers:
        """The headers for the model: those that pass, those of the settings, and the key.

        Raises GatewayRefusal for a key or a setting that no header can have, without repeating it.
        """
        route = self._route
        ours = {name.lower(): value for name, value in route.headers.items()}
        basic = basic_authorization(self._base)
        if route.key:
            is_bearer = route.credential == BEARER
            name = "authorization" if is_bearer else route.credential
            ours[name] = f"Bearer {route.key}" if is_bearer else route.key
        elif basic is not None:
            ours["authorization"] = basic.decode()
        ours["accept-encoding"] = "identity"  # so that tokens can be counted
        if self._method == "POST":
            ours["content-type"] = "application/json"  # what the question is read as here
        if not all(map(_HEADER.fullmatch, ours.values())):
            reason = "the key or a header of the settings has characters that HTTP does not allow"
            raise GatewayRefusal(502, reason)
        kept = [
            # Some servers take their charset from a parameter of what they are told to accept.
            (name, _PARAMETER.sub(b"", value) if name == b"accept" else value)
            for name, value in headers
            if is_passed_on(name.decode()) and name.decode() not in ours
        ]
        return kept + [(name.encode(), value.encode()) for name, value in ours.items()]


def _packings(headers: Headers) -> set[bytes]:
    values = (value for name, value in headers if name == b"content-encoding")
    return {each.strip() for each in b",".join(values).lower().split(b",")} - {b"", b"identity"}


def _spelled(key: bytes) -> bytes:
    spelled = key.decode("utf-8", "replace").casefold().upper().replace("_", "").encode()
    return key if key == _MODEL else spelled


def _address(base_url: str) -> tuple[SplitResult, HostPort]:
    """The parts of a base URL, and where it leads. Raises GatewayRefusal without repeating it."""
    try:
        parts = urlsplit(base_url)
    except ValueError:
        parts = urlsplit("")
    default = HTTPS_PORT if parts.scheme == "https" else HTTP_PORT
    place = parse_authority(to_ascii(parts.netloc.rpartition("@")[2]), default)
    if place is None or parts.scheme not in ("http", "https"):
        raise GatewayRefusal(502, "the model's base URL in the settings cannot be used")
    return parts, place


def _credential(name: bytes, value: bytes) -> bytes:
    """The key that a header has; empty for other headers."""
    if name == b"authorization":
        kind, _, key = value.partition(b" ")
        return key.strip() if kind.lower() == b"bearer" else b""
    return value if name.decode() in CREDENTIALS and name != BEARER.encode() else b""


def is_allowed(wire: str, method: str, path: str) -> bool:
    """Whether a request for `path`, what follows the model's prefix, may go to the model."""
    wires = (ANTHROPIC, OPENAI, GEMINI) if wire == ANY else (wire,)
    lists = {"POST": _POST, "GET": _GET}.get(method)
    return lists is not None and any(
        re.fullmatch(_VERSION[each] + lists[each], path) for each in wires
    )


def model_in(path: str) -> str:
    """The model that the path of an allowed question names; empty if it names none."""
    found = re.search(rf"/(?:models|tunedModels)/({_PLAIN}):|/deployments/({_NAME})/", path)
    return (found[1] or found[2]) if found else ""


def generates(method: str, path: str) -> bool:
    """Whether an allowed request makes a model work, which costs something."""
    return method == "POST" and not path.endswith(
        ("/count_tokens", "/input_tokens", ":countTokens")
    )


def wire_of(wire: str, path: str) -> str:
    """The wire of an allowed request, which for `any` its path tells."""
    wires = (ANTHROPIC, OPENAI, GEMINI) if wire == ANY else (wire,)
    return next((each for each in wires if is_allowed(each, "POST", path)), wires[0])


def clean_query(query: str) -> list[tuple[str, str]]:
    """The parts of a query that a model needs; all others, such as `key=…`, are left out."""
    parts = [part.partition("=")[::2] for part in query.split("&")]
    return [(name, value) for name, value in parts if name in _QUERY and _VALUE.fullmatch(value)]


def is_passed_on(header: str) -> bool:
    """Whether a header of a request (its name in lower case) reaches the model."""
    return header in HEADERS or header.startswith(HEADER_PREFIXES)
