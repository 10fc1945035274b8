"""The pictures in the README: sessions on a terminal, recorded and drawn.

`python -m tests.picture FOLDER` redraws those in which what is seen has changed by more than ids
and times. rich lays the letters out; the frame around them is ours, because rich's own fetches
fonts.
"""

from __future__ import annotations

import html
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.sessions import Step, environment, run_step, stable
from tests.terminals import Session

COLUMNS = 92
# The last line ends first, so that the order is that of the service's list on a slow machine too.
PROMPTS = (
    "Audit login [[run=2.5s]]\nAudit search [[run=1.3s]]\nAudit upload [[run=0.1s]] [[fail]]\n"
)
SESSION = (
    "export REBYTE_PROFILE=local",
    'rebyte create "Find security problems" -s deep-research --wait --fields id,status,title',
    'rebyte follow-up @last "Fix the critical ones" --wait -q -o json | jq -r .status',
    'rebyte create "Nightly audit" --once audit-2026-11-24 -q -o id',
    'rebyte create "Nightly audit" --once audit-2026-11-24 -q -o id',
    'rebyte batch prompts.txt --text --jobs 1 -q --fields key,status,id; echo "status $?"',
    "rebyte list -q --limit 4 --fields id,status,title",
)

THEME = TerminalTheme(
    (13, 17, 23),
    (201, 209, 217),
    [
        *((72, 79, 88), (255, 123, 114), (86, 211, 100), (227, 179, 65)),
        *((121, 192, 255), (210, 168, 255), (86, 212, 221), (201, 209, 217)),
    ],
    [
        *((110, 118, 129), (255, 161, 152), (126, 231, 135), (242, 204, 96)),
        *((165, 214, 255), (226, 197, 255), (179, 240, 255), (240, 246, 252)),
    ],
)
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" \
xml:space="preserve">
<title>A session of rebyte</title>
<style>
.{unique_id}-matrix {{
  font: {char_height}px/{line_height}px "Fira Code", ui-monospace, SFMono-Regular, Menlo, \
Consolas, "DejaVu Sans Mono", monospace;
}}
.{unique_id}-title {{ font: 600 17px system-ui, "Helvetica Neue", Arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def record() -> Text:
    """The session as a terminal shows it now, in colour."""
    shown = Text()
    with tempfile.TemporaryDirectory() as folder:
        env = environment(Path(folder))
        del env["NO_COLOR"]
        env["FORCE_COLOR"] = "1"  # with TERM=dumb: colours, but nothing that moves
        (Path(folder) / "prompts.txt").write_text(PROMPTS)
        for command in SESSION:
            output = run_step(Step(command, ""), env, Path(folder), COLUMNS)
            shown.append("$ ", "bright_black").append(f"{command}\n", "bold bright_white")
            shown.append_text(Text.from_ansi(output.rstrip())).append("\n\n" if output else "\n")
    shown.rstrip()
    return shown


# Tasks for the picture of what is redrawn: what they do takes longer than the recording.
RUNNING = (
    ("Upgrade the billing", "[[run=10m]] [[events=600]]"),
    ("Find security bugs", "[[run=10m]] [[events=600]]"),
    ("Migrate the database", "[[fail]]"),
)
ASKING = "Deploy the shop [[ask]]"


def record_live() -> Text:
    """A question inside a wait, and `list --watch`, as a terminal shows them, in colour."""
    with tempfile.TemporaryDirectory() as folder:
        env = environment(Path(folder)) | {
            "REBYTE_PROFILE": "local",
            "REBYTE_LOCAL_QUIET": "1",
            "TERM": "xterm-256color",
        }
        del env["NO_COLOR"]
        # The fork server's command is not in the foreground of the terminal, so it asks nothing.
        env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        shown = Text()
        wait = f'rebyte create "{ASKING}" --wait -q -o json --fields status,title'
        with _session(wait, env) as session:
            session.until(lambda lines: "own words:" in str(lines))
            session.child.sendline("1")
            assert session.finish() == 0
            _add(shown, wait, session)
        for title, words in RUNNING:
            run_step(Step(f'rebyte create "{title} {words}" -q -o id', ""), env, Path(folder))
        run_step(Step(f'rebyte create "{ASKING}" -q -o id', ""), env, Path(folder))
        with _session("rebyte list --watch", env, rows=11) as session:
            session.until(_is_still)
            _add(shown, "rebyte list --watch", session)
    shown.rstrip()
    return shown


def _is_still(lines: list[str]) -> bool:
    text = "\n".join(lines)
    expected = ("? How", "Enter logs", "  failed  ", "  completed  ")
    return text.count("* Bash: ls") == 2 and all(words in text for words in expected)


@contextmanager
def _session(command: str, env: Mapping[str, str], rows: int = 24) -> Any:
    session = Session(["bash", "-c", command], COLUMNS, rows, echo=True, env=env)
    try:
        yield session
    finally:
        session.child.close(force=True)


def _add(shown: Text, command: str, session: Session) -> None:
    """A command and what the screen holds of its output."""
    shown.append("$ ", "bright_black").append(f"{command}\n", "bold bright_white")
    for number, line in enumerate(session.lines):
        cells = [session.screen.buffer[number][column] for column in range(len(line))]
        for style, run in groupby(cells, _style):
            shown.append("".join(cell.data for cell in run), style)
        shown.append("\n")
    shown.append("\n")


def _style(cell: Any) -> Style:
    color = COLORS.get(cell.fg, cell.fg)
    return Style(color=None if color == "default" else color, bold=cell.bold)


# How pyte names colours, and rich.
COLORS = {"brown": "yellow", **{f"bright{c}": f"bright_{c}" for c in ("black", "blue", "white")}}


def draw(session: Text) -> str:
    """The session as an SVG image that needs nothing from elsewhere."""
    console = Console(record=True, width=COLUMNS + 2, file=io.StringIO(), legacy_windows=False)
    console.print(Padding(session, (1, 1)), highlight=False)
    drawn = console.export_svg(title="rebyte", theme=THEME, code_format=FRAME, unique_id="rebyte")
    drawn = re.sub(r"<text [^>]*>\s*</text>", "", drawn)
    return re.sub(r"\s+\n", "\n", drawn)


def said(drawn: str) -> str:
    """The text that a picture shows, line by line, without what changes from run to run."""
    lines: dict[float, str] = {}
    for y, text in re.findall(r'<text [^>]*? y="([\d.]+)"[^>]*>(.*?)</text>', drawn):
        lines[float(y)] = lines.get(float(y), "") + html.unescape(text)
    text = stable("\n".join(lines[y] for y in sorted(lines)).replace("\xa0", " "))
    return re.sub(r" {2,}", "  ", re.sub(r"\b(\d+m )?\d+s  +", "<age>  ", text))


PICTURES: Mapping[str, Callable[[], Text]] = {"session.svg": record, "live.svg": record_live}


def update(folder: Path) -> None:
    """Redraw each picture that does not show the present output."""
    for name, recorded in PICTURES.items():
        picture, drawn = folder / name, draw(recorded())
        if not picture.exists() or said(picture.read_text()) != said(drawn):
            picture.write_text(drawn)


if __name__ == "__main__":
    update(Path(sys.argv[1]))
