"""Print the command tree, or a JSON Schema of the results or of a file."""

from __future__ import annotations

import click

from ..app import App
from ..output.records import Document, results_schema
from ._base import define
from ._options import refuse


@define("schema", json_only=True, statuses=())
@click.option("--results", is_flag=True, help="Print the JSON Schema of what each command prints.")
@click.option("--config", is_flag=True, help="Print the JSON Schema of config.toml.")
@click.option("--repository", is_flag=True, help="Print the JSON Schema of .rebyte.toml.")
@click.pass_context
def command(
    ctx: click.Context, _app: App, results: bool, config: bool, repository: bool
) -> Document:
    """Print every command with its arguments, options, types, choices, defaults and statuses.

    `schemaVersion` changes when a key is removed or changes its meaning, not when commands or keys
    are added.

    Examples:

      rebyte schema | jq -r '.commands[].path'
      rebyte schema --results | jq '."$defs".task'
      rebyte schema --config > config.schema.json
    """
    refuse({"--results, --config and --repository": results + config + repository > 1})
    if repository:
        from ..system.repository_file import schema

        return Document(schema())
    if config:
        from ..config.json_schema import config_schema

        return Document(config_schema())
    from ..manual import tree

    root = ctx.find_root().command
    assert isinstance(root, click.Group)
    described = tree.describe(root)
    if not results:
        return Document(described)
    return Document(results_schema(tree.printed(described)))
