"""Show the account's balance."""

from __future__ import annotations

from ..app import App
from ..errors import ResourceNotFound
from ..output.records import CREDITS, Records
from ._base import define


@define("credits", kind=CREDITS)
def command(app: App) -> Records:
    """Show the credits of the account, where it has a balance to show.

    Examples:

      rebyte credits
      rebyte credits -o json | jq .totalAvailable
    """
    try:
        return Records(CREDITS, [app.client.credits()])
    except ResourceNotFound as error:
        raise ResourceNotFound(
            "this account has no balance to show",
            hint="the page of the organization in the web app does",
            status_code=error.status_code,
            response=error.response,
        ) from None
