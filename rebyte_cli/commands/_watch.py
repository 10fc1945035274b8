"""`list --watch` on a terminal: the table, and keys that run a command on the chosen task."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

from ..app import App
from ..errors import Interrupted, Next
from ..output.live_table import LiveRow, LiveState, LiveTable, live_table
from ..output.prompt_line import Keyboard
from ..output.records import TASK_ROW
from ..system import python_process

if TYPE_CHECKING:
    from ..tasks.task_watch import TaskWatch, WatchedTask

LOOK_SECONDS = 0.2  # between two looks at whether the watch has failed
_HELP = "Enter logs  d diff  a answer  c cancel  / filter  q quit"
_COMMANDS = {"enter": "logs", "d": "diff", "a": "answer", "c": "cancel"}
_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10,
          "home": -1_000_000, "end": 1_000_000, "g": -1_000_000, "G": 1_000_000}  # fmt: skip


def draw(
    app: App, watch: TaskWatch, passes: Callable[[WatchedTask], bool], *, full_ids: bool
) -> None:
    """Show the tasks that pass until `q` or an interrupt; the last table stays on the screen.

    Keys work where stdin is a terminal, too, and prompts are allowed.
    """
    screen = _TaskScreen(app, watch, passes, full_ids=full_ids)
    keyboard = None
    if app.interactive:
        with suppress(OSError):
            keyboard = Keyboard()
    try:
        if keyboard is None:
            with live_table(app.console, screen.table):
                while True:
                    time.sleep(watch.step())
                    screen.update()
        screen.selected = screen.first()
        with keyboard, _stepping(watch, screen.update) as check:
            while words := _asked(app, screen, keyboard, check):
                keyboard.release()
                status = _run(app, words)
                if status:
                    app.console.write_err("Press a key to go back")
                    while not keyboard.read(LOOK_SECONDS):
                        check()
                    app.console.write_err("\n")
    finally:
        columns, rows = app.console.size(on_out=True)
        screen.selected = screen.message = ""
        screen.update()
        app.console.write_out(screen.table.text(columns - 1, rows), flush=True)


class _TaskScreen:
    """What is shown: the tasks, which one is chosen, and a line about the keys."""

    def __init__(
        self,
        app: App,
        watch: TaskWatch,
        passes: Callable[[WatchedTask], bool],
        *,
        full_ids: bool,
    ) -> None:
        self._app = app
        self._watch = watch
        self._passes = passes
        self._full_ids = full_ids
        self.selected = ""  # the id of a task
        self.message = ""  # in place of the help
        self.wanted = ""  # only tasks with this text are shown
        self._rows: dict[str, LiveRow] = {}  # as of the last update, those without that text too
        self.table = LiveTable(app.console, LiveState([]))
        self.update()

    def update(self) -> None:
        """Show what the watch knows now."""
        tasks = [task for task in self._watch.tasks if self._passes(task)]
        ids = [task.id for task in tasks]
        names = {} if self._full_ids else self._app.history.shortest_prefixes(ids)
        rows = [(task.id, _row(task, names.get(task.id, task.id))) for task in tasks]
        self._rows = dict(sorted(rows, key=lambda item: item[1].rank))
        shown = self._shown()
        asking = next((task.id for task in tasks if task.question is not None), None)
        hint = self.message
        if self.selected and not hint:
            hint = _HELP
        elif asking in shown and not hint:
            hint = self._app.typed("Answer with " + Next("answer", shown[asking].id))
        errors = self._watch.errors.items()
        self.table.state = LiveState(
            [*shown.values()],
            hint,
            next((f"Cannot read {what}: {why}" for what, why in errors), ""),
            shown[self.selected].id if self.selected in shown else "",
        )

    def _shown(self) -> dict[str, LiveRow]:
        """The rows that are shown, from top to bottom, by the ids of their tasks."""
        wanted = self.wanted.casefold()
        return {
            each: row
            for each, row in self._rows.items()
            if wanted in f"{each} {row.status} {row.title} {row.step}".casefold()
        }

    def first(self) -> str:
        """The id of the task on top; "" without tasks."""
        return next(iter(self._shown()), "")

    def move(self, by: int) -> None:
        """Choose the task so many rows further down, at most the last one."""
        order = [*self._shown()]
        at = order.index(self.selected) if self.selected in order else 0
        self.selected = order[min(max(at + by, 0), len(order) - 1)] if order else ""


def _row(task: WatchedTask, name: str) -> LiveRow:
    return LiveRow(
        name,
        TASK_ROW.status(task.record) or task.status or "ended",
        str(task.row.get("completedAt") or task.began or ""),
        str(task.row.get("title") or ""),
        task.step,
    )


@contextmanager
def _stepping(watch: TaskWatch, update: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Keep the watch up to date in a thread, so that keys don't wait for the network.

    Yields a function that raises what ended the thread.
    """
    stopped, failures = Event(), list[BaseException]()

    def run() -> None:
        try:
            while not stopped.wait(watch.step()):
                update()
        except BaseException as error:
            failures.append(error)

    def check() -> None:
        if failures:
            raise failures[0]

    Thread(target=run, daemon=True, name="watch").start()
    try:
        yield check
    finally:
        stopped.set()


def _asked(
    app: App, screen: _TaskScreen, keyboard: Keyboard, check: Callable[[], None]
) -> Sequence[str]:
    """Show the table until a key asks for a command; its words, or none to quit."""
    with live_table(app.console, screen.table) as redraw:

        def key() -> str:
            screen.update()
            redraw()
            while not (pressed := keyboard.read(LOOK_SECONDS)):
                check()
            return pressed

        while (pressed := key()) not in ("q", "end of input"):
            if pressed in _MOVES:
                screen.move(_MOVES[pressed])
            elif pressed == "/":
                _filter(screen, key)
            elif pressed == "escape":
                screen.wanted = ""
            elif (
                pressed in _COMMANDS
                and (chosen := screen.selected)
                and (pressed != "c" or _confirmed(screen, key))
            ):
                return [_COMMANDS[pressed], chosen]
            screen.move(0)
    return []


def _filter(screen: _TaskScreen, key: Callable[[], str]) -> None:
    """Take text from the keys; the table follows it. Enter keeps it, Escape drops it."""
    while True:
        screen.message = f"Filter: {screen.wanted}_"
        pressed = key()
        if pressed == "backspace":
            screen.wanted = screen.wanted[:-1]
        elif pressed.isprintable() and len(pressed) == 1:
            screen.wanted += pressed
        elif pressed in ("enter", "escape", "end of input"):
            screen.wanted = screen.wanted if pressed == "enter" else ""
            screen.message = ""
            return
        screen.move(0)


def _confirmed(screen: _TaskScreen, key: Callable[[], str]) -> bool:
    screen.message = f"Cancel {screen.table.state.selected}? y/n"
    answer = key()
    screen.message = ""
    return answer in ("y", "Y")


def _run(app: App, words: Sequence[str]) -> int:
    """Run a command of rebyte on the terminal; returns its exit status."""
    named = app.options.get("profile")
    profile = ["-P", str(named)] if named else []
    shown = " ".join(["$ rebyte", *profile, *words])
    app.console.write_err(f"{shown}\n")
    # A page that is short stays on the screen until it is left, since the table is drawn over it.
    environment = {"LESS": "R", **app.environment}
    rebyte = python_process.command("rebyte_cli.__main__", *profile, *words, with_libraries=True)
    command = subprocess.Popen(rebyte, env=environment)
    while True:
        try:
            return command.wait()
        except (KeyboardInterrupt, Interrupted):  # it got the signal as well
            continue
