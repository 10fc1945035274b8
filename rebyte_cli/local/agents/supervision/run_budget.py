"""The budgets of a run: what it and others may use together of their models.

`options` of a run have `budgets`, a list of limits (`of`, and `tokens` or `cost` in dollars). `of`
is `task` for all runs of the task, `day` for all runs that began on the same day as it, or the
name in `budgetOf` of the runs that share it, such as those of one journal of `rebyte batch`. What
runs have used is in the database, and that of a run under way in the record of its gateway, even if
its supervisor was killed: so no crash resets it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ... import http
from ...gateway.model_budget import ModelBudget
from ...gateway.model_prices import ModelPrices
from ...http import JsonObject, Refusal
from ...store import Store
from .. import config
from ..adapters.adapter import Adapter
from ..adapters.model_access import AgentAccess
from ..limits.run_meter import RunMeter
from ..sandbox.egress import HOST, network_of
from ..workspaces.workspace_folder import Workspace
from .runs import RunRecord

TASK, DAY = "task", "day"
_DAY = "date(started / 1000, 'unixepoch', 'localtime')"
_RUNS_OF = {TASK: "task = ?", DAY: f"{_DAY} = ?", "": "json_extract(options, '$.budgetOf') = ?"}


class RunBudgets:
    """The budgets of one run. `reached` is for one thread at a time."""

    def __init__(self, store: Store, run: RunRecord, options: Mapping[str, Any]) -> None:
        self._store = store
        self._run = run
        self._limits: list[Mapping[str, Any]] = options.get("budgets") or []
        self._prices = ModelPrices.of_options(options)
        self._meters: dict[str, RunMeter] = {}

    def reached(self) -> str:
        """Which budget is used up, or an empty text."""
        return _reached(self._limits, self._used)

    def left(self) -> ModelBudget:
        """What is left for this run, for its gateway."""
        used = [(limit, *self._used(limit)) for limit in self._limits]
        tokens = [each["tokens"] - spent for each, spent, _ in used if "tokens" in each]
        costs = [each["cost"] - spent for each, _, spent in used if "cost" in each]
        reason = " or ".join(dict.fromkeys(map(_reason, self._limits)))
        # The runs of a task take turns.
        is_shared = any(limit["of"] != TASK for limit in self._limits)
        least = min(tokens, default=None), min(costs, default=None)
        return ModelBudget(*least, self._prices, reason, is_shared)

    def _used(self, limit: Mapping[str, Any]) -> tuple[int, float]:
        of = limit["of"]
        value = {TASK: self._run.task, DAY: self._day()}.get(of, of)
        return _used_together(self._store, of, value, self._meters)

    def _day(self) -> str:
        """The day on which the run began, or begins: at midnight, it gets no new budget."""
        with self._store.read() as db:
            row = db.execute(
                f"SELECT {_DAY} FROM runs WHERE prompt = ?",  # noqa: S608 - ours
                (self._run.prompt,),
            ).fetchone()
        return row[0] or _today()


def _used_together(
    store: Store, of: str, value: object, meters: dict[str, RunMeter]
) -> tuple[int, float]:
    """The tokens and the dollars that the runs of a budget have used so far.

    `meters` keeps what was read of the records of those whose use is not recorded in full.
    """
    with store.read() as db:
        rows = db.execute(
            "SELECT prompt, workspace, ended, used, counted, json_object('price',"  # noqa: S608 - ours
            " json_extract(options, '$.price'), 'prices', json_extract(options, '$.prices')) AS"
            " options"
            f" FROM runs WHERE {_RUNS_OF.get(of, _RUNS_OF[''])} AND started IS NOT NULL",
            (value,),
        ).fetchall()
    tokens, cost = 0, 0.0
    for row in rows:
        used = {} if row["used"] is None else json.loads(row["used"])
        prices = ModelPrices.of_options(json.loads(row["options"]))
        if not row["counted"]:  # a canceled run has ended before that
            prompt = row["prompt"]
            if prompt not in meters:
                meters[prompt] = RunMeter(
                    Workspace(store.folder, row["workspace"]).run_folder(prompt), prices
                )
            meters[prompt].look()
            seen = meters[prompt].used(used, has_ended=row["ended"] is not None)
            used = max(used, seen, key=_tokens)
        tokens += _tokens(used)
        cost += (prices.cost(used, None) or 0.0) + used.get("uncounted", {}).get("cost_usd", 0.0)
    return tokens, cost


def _reached(
    limits: Iterable[Mapping[str, Any]], used: Callable[[Mapping[str, Any]], tuple[int, float]]
) -> str:
    """Why the first of these limits that is used up is, or an empty text."""
    for limit in limits:
        if ModelBudget(limit.get("tokens"), limit.get("cost")).is_used_up(*used(limit)):
            return _reason(limit)
    return ""


def _today() -> str:
    """This day here, as the database writes it."""
    return time.strftime("%Y-%m-%d")


def _tokens(used: Mapping[str, Any]) -> int:
    """What a run counts for, with what its models did not say."""
    hidden = used.get("uncounted", {}).get("tokens", 0)
    return int(used.get("input_tokens", 0)) + int(used.get("output_tokens", 0)) + int(hidden)


def _reason(limit: Mapping[str, Any]) -> str:
    tokens, cost = limit.get("tokens"), limit.get("cost")
    amount = f"{tokens:,} tokens" if tokens is not None else f"${cost:,.2f}"
    if limit["of"] == DAY:
        return f"the budget of {amount} a day ([local] budget_per_day) is used up"
    return f"the budget of {amount} is used up"


def asked_for(
    body: JsonObject,
    settings: config.LocalConfig,
    prices: Mapping[str, list[float]],
    model: str | None,
    repeated: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The options that say what a run may use: those that `body` asks for, and that of the day.

    `budgetTokens`, `budgetUsd` and `budgetOf` are this service's own extension. The last one names
    what shares the budget; without it, that are the runs of the task. A further run of the task has
    the budget of the one before, whose options are `repeated`.
    """
    group = http.optional_text(body, "budgetOf", most=200, least=1)
    limits = [{"of": group or TASK, **amount} for amount in http.budgets(body)]
    if not limits and repeated is not None:
        group = repeated.get("budgetOf")
        before = repeated.get("budgets") or []
        limits = [limit for limit in before if limit["of"] != DAY]
    if settings.budget_per_day:
        limits.append({"of": DAY, **settings.budget_per_day})
    price = prices.get(model or "")
    return {"budgets": limits, "budgetOf": group, "price": price, "prices": prices}


def why_uncounted(adapter: Adapter, options: Mapping[str, Any], access: AgentAccess) -> str:
    """Why the gateway cannot keep the budgets of a run, if that has any; or an empty text."""
    if not (options.get("budgets") and access.inside) or network_of(options) == HOST:
        return ""
    return (
        f"A budget cannot be kept: {adapter.title} has the {access.inside} of its model in"
        " the sandbox, where the gateway does not see what it uses"
    )


def check(store: Store, adapter: Adapter, options: Mapping[str, Any], access: AgentAccess) -> None:
    """Raise Refusal for a budget that cannot be kept, and for that of a day that is used up."""
    limits = options["budgets"]
    if reason := why_uncounted(adapter, options, access):
        raise Refusal(
            400,
            "budget_unknown",
            reason,
            "Leave out the budget, or use a key that the gateway can keep outside"
            " (`rebyte local agents` says which)",
        )
    if limits and network_of(options) == HOST:
        raise Refusal(
            400,
            "budget_unknown",
            "A budget cannot be kept without the gateway, which counts what a run uses",
            "Leave out --network host and --no-jail, or the budget",
        )
    if any("cost" in limit for limit in limits) and options["price"] is None:
        model = options["model"] or f"the default model of {adapter.title}"
        raise Refusal(
            400,
            "no_price",
            f"A budget in dollars needs the price of {model}",
            "Name the model with -m, and its price in [prices] of config.toml",
        )
    of_day = [limit for limit in limits if limit["of"] == DAY]
    if reason := _reached(of_day, lambda _: _used_together(store, DAY, _today(), {})):
        raise Refusal(402, "budget_reached", reason[:1].upper() + reason[1:])
