"""The picture in the README: a session on a terminal, recorded and drawn.

`python -m tests.picture FILE` redraws it when what is seen has changed by more than ids and
times. rich lays the letters out; the frame around them is ours, because rich's own fetches fonts.
"""

from __future__ import annotations

import html
import io
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.sessions import Step, environment, run_step, stable

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
    return stable("\n".join(lines[y] for y in sorted(lines)).replace("\xa0", " "))


def update(picture: Path) -> None:
    """Redraw the picture unless it already shows the present output."""
    drawn = draw(record())
    if not picture.exists() or said(picture.read_text()) != said(drawn):
        picture.write_text(drawn)


if __name__ == "__main__":
    update(Path(sys.argv[1]))
