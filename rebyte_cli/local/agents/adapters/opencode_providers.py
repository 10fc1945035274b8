"""The model providers that OpenCode knows: where they are, and which of them a user has a key for.

Addresses, variables and packages are those of its built-in list (models.dev, 1.18.33).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...gateway.gateway_settings import (
    ANTHROPIC,
    ANY,
    BEARER,
    GEMINI,
    OPENAI,
    X_API_KEY,
    X_GOOG_API_KEY,
    ModelRoute,
)
from .adapter import User
from .model_access import placeholder
from .user_config import only, read_json, strings

LOGIN = ".local/share/opencode/auth.json"
# Its copy of the list, which it keeps up to date.
KNOWN_FILE = ".cache/opencode/models.json"
ZEN = "opencode"
NO_KEY = "public"  # what it sends there without a key, for the models that need none


# Settings that decide which model answers.
KEPT_SETTINGS = ("model", "small_model", "provider", "disabled_providers", "enabled_providers")
# What of them is shown in a jail: everything else may hold a key.
PROVIDER_OPTIONS = (
    "apiVersion", "chunkTimeout", "compatibility", "headerTimeout", "includeUsage", "setCacheKey",
    "timeout", "useCompletionUrls", "useDeploymentBasedUrls",
)  # fmt: skip
MODEL_FIELDS = (
    "attachment", "cache_read", "cache_write", "context", "context_over_200k", "cost",
    "experimental", "family", "field", "id", "input", "interleaved", "limit", "modalities", "name",
    "output", "reasoning", "release_date", "status", "temperature", "tool_call",
)  # fmt: skip
MODEL_OPTIONS = (
    "budgetTokens", "budget_tokens", "chat_template_args", "chat_template_kwargs", "clear_thinking",
    "disabled", "effort", "enable_thinking", "exclude", "frequencyPenalty", "include",
    "includeThoughts", "maxOutputTokens", "max_tokens", "parallelToolCalls", "presencePenalty",
    "reasoning", "reasoningEffort", "reasoningSummary", "reasoning_effort", "seed", "serviceTier",
    "store", "strictJsonSchema", "structuredOutputs", "temperature", "textVerbosity", "thinking",
    "thinkingBudget", "thinkingConfig", "thinkingLevel", "topK", "topP", "top_k", "top_p",
    "truncation", "type",
)  # fmt: skip
LOGIN_FIELDS = ("type", "access", "refresh", "expires", "accountId", "enterpriseUrl", "key")


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
KEY_VARIABLES = tuple(sorted({name for one in PROVIDERS.values() for name in one.variables}))
# The APIs of the packages that speak another one than OpenAI's.
PACKAGES = {
    "@ai-sdk/anthropic": (ANTHROPIC, X_API_KEY),
    "@ai-sdk/google": (GEMINI, X_GOOG_API_KEY),
}
# What OpenAI is told besides the key, and the options of a provider with it.
BILLED = {"OpenAI-Organization": "organization", "OpenAI-Project": "project"}
# The variable with another address of a provider, where its package obeys one.
ADDRESSES = {"anthropic": "ANTHROPIC_BASE_URL", "openai": "OPENAI_BASE_URL"}
# The hosts of logins that OpenCode has to use itself.
LOGIN_HOSTS = {
    "anthropic": ("api.anthropic.com", "console.anthropic.com"),
    "github-copilot": ("api.githubcopilot.com", "*.githubcopilot.com"),
    "openai": ("chatgpt.com", "auth.openai.com"),
}
# Those whose tokens can be renewed once: what is renewed in a jail would be lost.
RENEWED_ONCE = ("anthropic", "openai")


def find(settings: Mapping[str, Any], user: User) -> Iterator[ModelRoute]:
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
        billed = BILLED.items() if wire == OPENAI else ()
        headers = {header: _resolved(options.get(option), outside) for header, option in billed}
        headers = {header: value for header, value in headers.items() if value} | {
            header: _resolved(value, outside)
            for header, value in strings(options.get("headers")).items()
        }
        stand_in = "" if key == NO_KEY else placeholder("sk-")
        root = _resolved(root, outside)
        query = {
            one: _resolved(value, outside)
            for one, value in strings(options.get("queryParams")).items()
        }
        yield ModelRoute(name, wire, root, key, credential, stand_in, headers, query)


def model_id(settings: Mapping[str, Any], model: str) -> str:
    """How the provider itself names a `model`, which is PROVIDER/NAME."""
    provider, _, name = model.partition("/")
    models = _table(_table(_table(settings.get("provider")).get(provider)).get("models"))
    return str(_table(models.get(name)).get("id") or name)


def kept(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide which model answers, with the user's keys.

    Plugins, MCP servers, commands and permissions are not for a jail.
    """
    return only(settings, KEPT_SETTINGS)


def behind(
    settings: Mapping[str, Any],
    models: Mapping[str, ModelRoute],
    logins: Collection[str],
    *,
    only_own: bool = False,
) -> dict[str, Any]:
    """The same without keys: the gateway is in place of the providers' addresses.

    Providers that are neither in `models` nor among `logins`, the logins inside, are left out. With
    `only_own`, those too that the settings do not have.
    """
    own, result = _table(settings.get("provider")), dict[str, Any]()
    for name in own if only_own else dict.fromkeys((*own, *models)):
        if name not in models and name not in logins:
            continue
        provider = _plain_provider(_table(own.get(name)))
        if (model := models.get(name)) is not None:
            provider["options"]["baseURL"] = model.url
            if model.placeholder:
                provider["options"]["apiKey"] = model.placeholder
        result[name] = provider
    return kept(settings) | {"provider": result}


def named(settings: Mapping[str, Any], user_home: Path) -> set[str]:
    """The providers that the settings and the login file name."""
    return {*_table(settings.get("provider")), *read_json(user_home / LOGIN)}


def login_inside(
    logins: Mapping[str, Any], behind_gateway: Collection[str] | None
) -> dict[str, Any]:
    """The entries of the login file that OpenCode has to have itself.

    Without a gateway (None), keys are among them. One of the type `wellknown` never is: OpenCode
    would obey the settings at its address.
    """
    found = {}
    for name, entry in logins.items():
        kind = entry.get("type") if isinstance(entry, dict) else None
        is_inside = kind in ("api", "oauth") if behind_gateway is None else kind == "oauth"
        if is_inside and name not in (behind_gateway or ()):
            lost = ("refresh",) if name in RENEWED_ONCE else ()
            found[name] = {key: entry[key] for key in LOGIN_FIELDS if key in entry.keys() - lost}
    return found


def _plain_provider(given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a provider's settings is no secret: nothing else is known to be none."""
    result: dict[str, Any] = _only(given, ("name", "npm", "whitelist", "blacklist"))
    result["options"] = _only(_table(given.get("options")), PROVIDER_OPTIONS)
    if models := _table(given.get("models")):
        result["models"] = {name: _plain_model(_table(each)) for name, each in models.items()}
    return result


def _plain_model(given: Mapping[str, Any]) -> dict[str, Any]:
    variants = _table(given.get("variants"))
    return {
        **_only(given, MODEL_FIELDS),
        "options": _only(_table(given.get("options")), MODEL_OPTIONS),
        "variants": {name: _only(each, MODEL_OPTIONS) for name, each in variants.items()},
        "provider": _only(_table(given.get("provider")), ("npm",)),
    }


def _only(value: Any, names: Collection[str]) -> Any:
    """A value in which tables have members with these names alone, at any depth."""
    if isinstance(value, dict):
        return {name: _only(value[name], names) for name in names if name in value}
    return [_only(one, names) for one in value] if isinstance(value, list) else value


def _table(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _resolved(value: object, outside: Mapping[str, str]) -> str:
    """A text of the settings, with the variables that it names (`{env:NAME}`)."""
    text = value if isinstance(value, str) else ""
    return re.sub(r"\{env:(\w+)\}", lambda found: outside.get(found[1], ""), text)
