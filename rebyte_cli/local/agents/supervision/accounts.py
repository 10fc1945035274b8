"""Which runs share a usage limit: those of one agent with the same credential.

The headers of the settings, which name an organization or a project, are part of the credential.
With a key they also have the same model: the vendors limit the requests to each model of a key, and
all that a login does.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import config
from ..adapters.adapter import Adapter, User
from ..adapters.model_access import AgentAccess


class LimitedAccount(NamedTuple):
    """Whose limit a run meets: `name` tells nothing of the key.

    `limited_model` is a pattern (fnmatch) for the model whose limit it is, and `limited_route` the
    name of the route to it; None for any.
    """

    name: str
    limited_model: str | None
    limited_route: str | None


def account_of(
    adapter: Adapter, access: AgentAccess, user: User, secret: bytes, model: str | None
) -> LimitedAccount:
    """The account that a run with this access uses. `model` is the one that the run names.

    A login is known by its file: its tokens change.
    """
    is_login = access.inside == "login" or bool(access.files.keys() & set(adapter.logins))
    keys = [each.key for each in access.models]
    parts: list[object] = [adapter.title, adapter.command]
    parts += [
        [each.base_url, "" if is_login else each.key, sorted(each.headers.items())]
        for each in access.models
    ]
    if not access.models:
        keys = [user.variables[name] for name in adapter.keys(user)]
        parts += [keys]
    limited_model = limited_route = None
    if model and any(keys) and not is_login:
        parts += [model]
        limited_model = adapter.asked_model(model, user)
        limited_route = adapter.asked_route(model)
    digest = hmac.new(secret, json.dumps(parts).encode(), hashlib.sha256)
    return LimitedAccount(digest.hexdigest()[:32], limited_model, limited_route)


def has_credential(options: Mapping[str, Any]) -> bool:
    """Whether the environment of this process has a key or a login for the agent of a run, if the
    one in which the run was created had.
    """
    if not options.get("hasCredential"):
        return True
    adapter = config.adapter_of(options["adapter"])
    user = adapter.surroundings(User(os.environ, Path.home()))
    return adapter.found_login(user) is not None
