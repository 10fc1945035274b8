"""Show the account's balance."""

from __future__ import annotations

from ..app import App
from ..errors import ResourceNotFound
from ..output.records import CREDITS, Records
from ._base import define


@define("credits", kind=CREDITS)
def command(app: App) -> Records:
    """Show the account's credits, if the service reports a balance.

    Examples:

      rebyte credits
      rebyte credits -o json | jq .totalAvailable
    """
    try:
        return Records(CREDITS, [app.client.credits()])
    except ResourceNotFound as error:
        raise ResourceNotFound(
            "the service reports no balance for this account",
            hint="See the page of your organization in the web app",
            status_code=error.status_code,
            response=error.response,
        ) from None
