"""The model providers that OpenCode knows: where they are, and which of them a user has a key for.

Addresses, variables and packages are those of its built-in list (models.dev, 1.18.33).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from ..gateway.settings import ANTHROPIC, ANY, BEARER, GEMINI, OPENAI, X_API_KEY, X_GOOG_API_KEY
from .adapter import User
from .model_access import ModelAccess, placeholder
from .user_config import read_json, strings

LOGIN = ".local/share/opencode/auth.json"
# Its copy of the list, which it keeps up to date.
KNOWN_FILE = ".cache/opencode/models.json"
ZEN = "opencode"
NO_KEY = "public"  # what it sends there without a key, for the models that need none


class Provider(NamedTuple):
    """A provider: its address and the variables with its key."""

    root: str
    variables: tuple[str, ...]
    wire: str = OPENAI
    credential: str = BEARER


PROVIDERS = {
    "anthropic": Provider(
        "https://api.anthropic.com/v1", ("ANTHROPIC_API_KEY",), ANTHROPIC, X_API_KEY
    ),
    "deepseek": Provider("https://api.deepseek.com", ("DEEPSEEK_API_KEY",)),
    "google": Provider(
        "https://generativelanguage.googleapis.com/v1beta",
        ("GOOGLE_GENERATIVE_AI_API_KEY", "GEMINI_API_KEY"), GEMINI, X_GOOG_API_KEY,
    ),
    "groq": Provider("https://api.groq.com/openai/v1", ("GROQ_API_KEY",)),
    "mistral": Provider("https://api.mistral.ai/v1", ("MISTRAL_API_KEY",)),
    "moonshotai": Provider("https://api.moonshot.ai/v1", ("MOONSHOT_API_KEY",)),
    "moonshotai-cn": Provider("https://api.moonshot.cn/v1", ("MOONSHOT_API_KEY",)),
    "openai": Provider("https://api.openai.com/v1", ("OPENAI_API_KEY",)),
    ZEN: Provider("https://opencode.ai/zen/v1", ("OPENCODE_API_KEY",), ANY),
    "openrouter": Provider("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    "xai": Provider("https://api.x.ai/v1", ("XAI_API_KEY",)),
    "zai": Provider("https://api.z.ai/api/paas/v4", ("ZHIPU_API_KEY",)),
    "zai-coding-plan": Provider("https://api.z.ai/api/coding/paas/v4", ("ZHIPU_API_KEY",)),
    "zhipuai": Provider("https://open.bigmodel.cn/api/paas/v4", ("ZHIPU_API_KEY",)),
    "zhipuai-coding-plan": Provider(
        "https://open.bigmodel.cn/api/coding/paas/v4", ("ZHIPU_API_KEY",)
    ),
}  # fmt: skip
# The APIs of the packages that speak another one than OpenAI's.
PACKAGES = {
    "@ai-sdk/anthropic": (ANTHROPIC, X_API_KEY),
    "@ai-sdk/google": (GEMINI, X_GOOG_API_KEY),
}
# The variable with another address of a provider, where its package obeys one.
ADDRESSES = {"anthropic": "ANTHROPIC_BASE_URL", "openai": "OPENAI_BASE_URL"}
# The hosts of logins that OpenCode has to use itself.
LOGIN_HOSTS = {
    "anthropic": ("api.anthropic.com", "console.anthropic.com"),
    "github-copilot": ("api.githubcopilot.com", "*.githubcopilot.com", "api.github.com"),
    "openai": ("chatgpt.com", "auth.openai.com"),
}
# Those whose tokens can be renewed once: what is renewed in a jail would be lost.
RENEWED_ONCE = ("anthropic", "openai")


def find(settings: Mapping[str, Any], user: User) -> Iterator[ModelAccess]:
    """The access to each provider for which the user has an address or a key."""
    logins, known = read_json(user.home / LOGIN), read_json(user.home / KNOWN_FILE)
    outside = user.variables
    own = settings.get("provider")
    own = own if isinstance(own, dict) else {}
    for name in dict.fromkeys((*own, *PROVIDERS, *logins)):
        given, listed = _table(own.get(name)), _table(known.get(name))
        options, login = _table(given.get("options")), _table(logins.get(name))
        default = PROVIDERS.get(name, Provider(str(listed.get("api") or ""), ()))
        root = options.get("baseURL") or given.get("api")
        root = root or outside.get(ADDRESSES.get(name, "")) or default.root
        variables = [*default.variables, *_texts(given.get("env")), *_texts(listed.get("env"))]
        key = _resolved(options.get("apiKey"), outside)
        key = key or next((outside[one] for one in variables if outside.get(one)), "")
        if login.get("type") == "api" and not key:
            key = str(login.get("key", ""))
        is_login = login.get("type") not in (None, "api")
        if name == ZEN and not is_login:
            key = key or NO_KEY
        if not root or is_login or not (key or name in own):
            continue
        wire, credential = PACKAGES.get(given.get("npm", ""), (default.wire, default.credential))
        headers = {
            header: _resolved(value, outside)
            for header, value in strings(options.get("headers")).items()
        }
        stand_in = "" if key == NO_KEY else placeholder("sk-")
        root = _resolved(root, outside)
        yield ModelAccess(name, wire, root, key, credential, stand_in, headers)


def behind(
    settings: Mapping[str, Any], models: Mapping[str, ModelAccess], *, only_own: bool = False
) -> dict[str, Any]:
    """The settings with the gateway in place of each of these providers' addresses and keys.

    With `only_own`, of those that they have.
    """
    result = deepcopy(dict(settings))
    providers = _table(result.get("provider"))
    for name, model in models.items():
        if only_own and name not in providers:
            continue
        provider = providers[name] = _table(providers.get(name))
        options = {key: v for key, v in _table(provider.get("options")).items() if key != "headers"}
        options["baseURL"] = model.url
        if model.placeholder:
            options["apiKey"] = model.placeholder
        provider["options"] = options
    return result | ({"provider": providers} if providers else {})


def login_inside(text: str, behind_gateway: Mapping[str, ModelAccess]) -> dict[str, Any]:
    """The entries of the login file that OpenCode has to have itself."""
    import json

    kept = {}
    for name, entry in json.loads(text).items():
        if name not in behind_gateway and isinstance(entry, dict):
            lost = ("refresh",) if name in RENEWED_ONCE else ()
            kept[name] = {key: value for key, value in entry.items() if key not in lost}
    return kept


def _table(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _resolved(value: object, outside: Mapping[str, str]) -> str:
    """A text of the settings, with the variables that it names (`{env:NAME}`)."""
    text = value if isinstance(value, str) else ""
    return re.sub(r"\{env:(\w+)\}", lambda found: outside.get(found[1], ""), text)
