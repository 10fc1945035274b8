"""Show or install the manual pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..app import App
from ..errors import NotFound
from ..output.markup import Rendered
from ..output.records import INSTALLED, Text
from ._base import Group, define, installed
from ._options import completer, install_options, refuse

# Topics, and pages that share their name with a command.
TOPICS = (
    *("tutorial", "workflow", "examples", "from-curl", "shards", "places"),
    *("local-agents", "config"),
    *("check(7)", "local(7)", "api(7)"),
)


@define("man", kind=INSTALLED, text=True, statuses=(4,))
@click.argument(
    "words", metavar="[COMMAND]…", nargs=-1, shell_complete=completer("commands", TOPICS)
)
@install_options(
    "Write all pages to DIR (default: a folder that man searches).",
    "Remove the pages that --install wrote there.",
)
@click.pass_context
def command(
    ctx: click.Context, app: App, words: tuple[str, ...], folder: str | None, left: str | None
) -> Any:
    """Show the manual page of COMMAND, like man(1).

    COMMAND can also be a topic: tutorial, examples, from-curl, shards, places, local-agents,
    config, check(7), local(7), api(7). On a terminal the page opens in $MANPAGER, $PAGER or less;
    --no-input prints it. If neither man nor mandoc is installed, shows the source of the page.

    Examples:

      rebyte man create
      rebyte man config | less
      rebyte man --install && man rebyte-create
      rebyte man --uninstall
    """
    from ..manual import builder, reader, roff, tree

    refuse({"--install and --uninstall": left is not None and folder is not None})
    if left is not None:
        return installed(app, _uninstall(app, left))
    root = ctx.find_root().command
    assert isinstance(root, Group)
    described = tree.describe(root)
    known = list(builder.names(described))
    if folder is not None:
        target = Path(folder) if folder else reader.home(app.environment)
        written = {name: roff.page(builder.markdown(name, described)) for name in known}
        return installed(app, _install(app, written, target))
    if len(words) > 1 and words[0].isdigit():  # as man(1) takes it
        words = (f"{words[1]}({words[0]})",)
    words = tuple(root.canonical(ctx.find_root(), word) for word in words[:1])
    return _show(app, builder.markdown(_find(words, known), described))


def _show(app: App, text: str) -> Text:
    """The page, whose source is `text`: in a pager on a terminal, else as text."""
    from ..manual import reader, roff

    shown = reader.render(
        roff.page(text),
        width=min(app.console.width, 100),
        environment=app.environment,
        styled=app.console.styled and not app.options.get("no_input"),
    )
    return Text(text if shown is None else [Rendered(shown)], pager="MANPAGER")


def _find(words: tuple[str, ...], known: list[str]) -> str:
    """The page for `create`, `workspace list` (in its group's), `config`, `local(7)`."""
    first = words[0] if words else "rebyte"
    stem, _, section = first.removesuffix(")").replace(".", "(").partition("(")
    stem = stem if stem.startswith("rebyte") else f"rebyte-{stem}"
    found = [name for name in known if name.rpartition(".")[0] == stem and name.endswith(section)]
    if found:
        return min(found, key=lambda name: name[-1])
    from ._synonyms import for_page

    topics = list(dict.fromkeys(name.removeprefix("rebyte-").partition(".")[0] for name in known))
    raise NotFound(f"no manual page for {first}", hint=for_page(first, topics))


def _uninstall(app: App, folder: str) -> list[tuple[Path, bool]]:
    from ..completion.install import remove_empty
    from ..manual import reader

    target = Path(folder) if folder else reader.home(app.environment)
    done = reader.uninstall(target)
    if not folder:
        remove_empty(target, app.environment)
    app.note(f"Removed {len(done)} pages from {target}")
    return [(path, True) for path in done]


def _install(app: App, pages: dict[str, str], target: Path) -> list[tuple[Path, bool]]:
    import shlex

    from ..manual import reader

    done = reader.install(pages, target)
    app.note(f"Installed {len(done)} pages in {target}")
    if reader.finds(target, app.environment) is False:
        app.note("man doesn't search that folder yet. Add this to the start file of your shell:")
        app.note(f"  export MANPATH={shlex.quote(str(target))}:$MANPATH")
    return done
