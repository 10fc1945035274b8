"""Print the command tree, or the schema of the results, as JSON."""

from __future__ import annotations

import click

from ..app import App
from ..output.records import Document
from ._base import define


@define("schema", statuses=())
@click.option("--results", is_flag=True, help="Print the JSON Schema of what each command prints.")
@click.pass_context
def command(ctx: click.Context, _app: App, results: bool) -> Document:
    """Print every command with its arguments, options, types, choices, defaults and statuses.

    `schemaVersion` changes when a key is removed or changes its meaning, not when commands or keys
    are added.

    Examples:

      rebyte schema | jq -r '.commands[].path'
      rebyte schema --results | jq '."$defs".task'
    """
    from ..manual import tree

    root = ctx.find_root().command
    assert isinstance(root, click.Group)
    described = tree.describe(root)
    if not results:
        return Document(described)
    from ..output.records import results_schema

    return Document(results_schema(tree.printed(described)))
