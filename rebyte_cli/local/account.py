"""The account's balance and the service's health (both seen in clients only), and its proof."""

from __future__ import annotations

from . import http
from .http import Context
from .wsgi import HttpRequest, HttpResponse

FREE_CREDITS = 10_000


def credit_balance(context: Context, _request: HttpRequest) -> HttpResponse:
    """GET /billing/credits. One imaginary credit is used up per prompt; nothing is ever charged."""
    with context.store.read() as db:
        used, last = db.execute("SELECT count(*), max(submitted) FROM prompts").fetchone()
    balance = max(0, FREE_CREDITS - used)
    return http.reply(
        {
            "balance": balance,
            "expiringBalance": 0,
            "expiringAllowance": 0,
            "totalAvailable": balance,
            "lifetimePurchased": 0,
            "lifetimeUsed": used,
            "updatedAt": http.maybe_stamp(last),
        }
    )


def health(context: Context, _request: HttpRequest) -> HttpResponse:
    """GET /health. `service` and `instance` tell this service from a real one and from others."""
    return http.reply(
        {"status": "ok", "service": "rebyte local service", "instance": context.instance}
    )


def proof(context: Context, request: HttpRequest) -> HttpResponse:
    """GET /proof?challenge=…: shows a command that this is the service of its state folder."""
    challenge = request.args.get("challenge", "")
    return HttpResponse(context.permission.proof(challenge, context.instance, context.base))
