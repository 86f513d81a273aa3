"""Shows queues and workers on a terminal, again and again, and does what keys say."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import sys
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from airflow.utils.platform import getuser
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nats_executor.broker.connection import connect
from nats_executor.cli.arguments import answer_to, cell, settings_for
from nats_executor.errors import AccessDenied, ConfigError, NatsExecutorError
from nats_executor.local.interrupts import Interrupted, run_until_interrupted
from nats_executor.operations.board import (
    COLUMNS,
    HELP,
    Act,
    ActOn,
    Board,
    Mode,
    Tab,
    ViewState,
    footer,
    keys_in,
    pressed,
    selected_row,
    visible_rows,
    window,
)
from nats_executor.operations.choosing import Which
from nats_executor.operations.describing import Untold, carried_rows, description_of
from nats_executor.operations.draining import drain_workers, undrain_workers
from nats_executor.operations.pausing import Wish, pause_queues, resume_queues
from nats_executor.operations.survey import survey_queue_rows, take_survey, worker_rows
from nats_executor.text import one_line

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Seen
    from nats_executor.fleet.queues import Row
    from nats_executor.fleet.rates import Counters
    from nats_executor.settings import Settings

__all__ = ["run_top"]

READ_BYTES = 1024
# Beside the rows: title and header, two lines of what is selected, one of keys; then come the news.
OTHER_LINES = 5
MOST_NEWS_LINES = 3
FEWEST_ROWS = 1
RIGHT_ALIGNED = {"running", "concurrency", "last_seen_seconds", "slots", "workers", "pending"}
NARROW = {"in_flight", "in_per_s", "out_per_s"}


class Key(NamedTuple):
    """A key that was pressed."""

    name: str


class News(NamedTuple):
    """A line about what a key has brought, or why it has brought nothing."""

    text: str
    is_bad: bool = False


class Redraw(NamedTuple):
    """There is something new to show, or another size of the terminal."""


ViewEvent = Key | News | Redraw


def run_top(args: Namespace) -> None:
    """Show queues and workers until a key or a signal ends it.

    Raises:
        ConfigError: this is no terminal.
    """
    settings, console = settings_for(args), Console(highlight=False)
    if not (sys.stdin.isatty() and console.is_terminal) or console.is_dumb_terminal:
        raise ConfigError(
            "top needs a terminal; elsewhere run: airflow nats queues list --watch 2, or "
            "airflow nats workers list --watch 2"
        )
    view = LiveView(settings, console, args.every)
    try:
        run_until_interrupted(view.run())
    except Interrupted as exc:
        raise SystemExit(exc.exit_code) from None


class LiveView:
    """The rows on the terminal, and the survey behind them."""

    def __init__(self, settings: Settings, console: Console, every: float) -> None:
        self.settings = settings
        self.console = console
        self.every = every
        self.state = ViewState()
        self.board = Board()
        self.carried: list[Row] | str = ""
        self.news = News("")
        # Why the last look brought nothing.
        self.trouble = "looking ..."
        self.last: Counters | None = None
        self.events: asyncio.Queue[ViewEvent] = asyncio.Queue()
        self.is_due = asyncio.Event()

    async def run(self) -> None:
        """Show it until a key ends it; the terminal is as before then, however it ends."""
        loop = asyncio.get_running_loop()
        with (
            keys_read(loop, self.events),
            Live(console=self.console, screen=True, auto_refresh=False) as live,
        ):
            loop.add_signal_handler(signal.SIGWINCH, self.events.put_nowait, Redraw())
            try:
                async with connect(self.settings, role="cli") as broker:
                    await self.show(broker, live)
            finally:
                loop.remove_signal_handler(signal.SIGWINCH)

    async def show(self, broker: Broker, live: Live) -> None:
        """Draw after each event; what a key wants goes on beside that."""
        async with asyncio.TaskGroup() as group:
            looks = group.create_task(self.look_forever(broker), name="looks")
            try:
                while True:
                    live.update(self.drawn(), refresh=True)
                    wanted = self.taken_in(await self.events.get())
                    if wanted and wanted.act is Act.QUIT:
                        return
                    if wanted:
                        group.create_task(self.carry_out(broker, wanted), name=wanted.act)
            finally:
                looks.cancel()

    def taken_in(self, event: ViewEvent) -> ActOn | None:
        """Change what is shown after an event; returns what is to be done."""
        if isinstance(event, News):
            self.news = event
        if not isinstance(event, Key):
            return None
        before = self.state
        rows = visible_rows(before, self.board)
        self.state, wanted = pressed(before, event.name, rows)
        if (self.state.tab, self.state.selected) != (before.tab, before.selected):
            self.carried = ""
            self.is_due.set()  # what another worker runs is asked for now
        return wanted

    async def look_forever(self, broker: Broker) -> None:
        """Look again and again; while NATS is away, say so and go on."""
        while True:
            self.is_due.clear()
            try:
                await answer_to(broker, self.settings, self.look)
                self.trouble = ""
            except NatsExecutorError as exc:
                self.trouble = str(exc)
            self.events.put_nowait(Redraw())
            try:
                async with asyncio.timeout(self.every):
                    await self.is_due.wait()
            except TimeoutError:
                continue

    async def look(self, broker: Broker) -> None:
        survey, settings = await take_survey(broker, self.settings), self.settings
        queues = survey_queue_rows(survey, settings, self.last)
        self.last, self.board = survey.look, Board(queues, worker_rows(survey, settings))
        rows = visible_rows(self.state, self.board)
        if self.state.tab is Tab.WORKERS and rows:
            name = rows[selected_row(self.state, rows)]["worker"]
            self.carried = await self.carried_by(
                broker, [seen for seen in survey.workers if seen.presence.name == name]
            )

    async def carried_by(self, broker: Broker, selected: list[Seen]) -> list[Row] | str:
        """Ask the selected worker alone what it runs, as a fleet may have a thousand of them."""
        if len(selected) != 1:
            return "several workers have this name"
        try:
            told = await description_of(broker, self.settings, selected[0])
        except AccessDenied as exc:
            return str(exc)
        return told.text if isinstance(told, Untold) else carried_rows(told)

    async def carry_out(self, broker: Broker, wanted: ActOn) -> None:
        """Do what a person wants, and say what has come of it."""
        try:
            lines = await self.done(broker, wanted)
        except NatsExecutorError as exc:
            self.events.put_nowait(News(str(exc), is_bad=True))
        else:
            self.events.put_nowait(News("; ".join(lines)))
        self.is_due.set()

    async def done(self, broker: Broker, wanted: ActOn) -> list[str]:
        settings, names, by = self.settings, [wanted.name], getuser()
        which = Which(names)
        match wanted.act:
            case Act.PAUSE:
                wish = Wish(by=by, reason=wanted.reason, seconds=None)
                return await pause_queues(broker, settings.names, names, wish)
            case Act.RESUME:
                return await resume_queues(broker, settings.names, names)
            case Act.DRAIN:
                drained = await drain_workers(broker, settings, which, by=by, reason=wanted.reason)
                return [result.text for result in drained.results]
            case _:
                answers = await undrain_workers(broker, settings, which, by=by)
                return [answer.text for answer in answers]

    def drawn(self) -> RenderableType:
        """Return the whole screen."""
        width, height = self.console.size
        style = "red" if self.trouble or self.news.is_bad else ""
        # In full, as a remedy stands at the end.
        news = Text(one_line(self.trouble or self.news.text) or " ", style=style)
        told = news.wrap(self.console, width)[:MOST_NEWS_LINES]
        last = [*told, line(footer(self.state), "reverse")]
        room = max(FEWEST_ROWS, height - OTHER_LINES - len(told))
        if self.state.mode is Mode.HELP:
            shown = [line(text) for text in HELP[: room + 3]]
            return Group(line(title(self.board), "bold"), *padded(shown, room + 3), *last)
        rows = visible_rows(self.state, self.board)
        index = selected_row(self.state, rows)
        numbers = window(index, len(rows), room)
        table = table_of(self.state, [rows[n] for n in numbers], index - numbers.start)
        selected = self.described(rows[index]) if rows else [line("nothing to show")]
        blank = [Text("") for _ in range(room - len(numbers))]
        head = line(title(self.board), "bold")
        return Group(head, table, *blank, *padded(selected, 2), *last)

    def described(self, row: Row) -> list[Text]:
        """Return up to two lines about the selected row."""
        if self.state.tab is Tab.QUEUES:
            return [line(pause_in_words(row), "yellow")]
        why = f"{row['state']}: {row['reason']}" if row["reason"] else ""
        if isinstance(self.carried, str):
            return [line(self.carried), line(why, "yellow")]
        return [line(f"runs {what_runs(self.carried)}"), line(why, "yellow")]


def what_runs(carried: list[Row]) -> str:
    """Name what a worker has in hand, what is so for longest first."""
    tasks = [f"{row['dag']}.{row['task']}" if row["task"] else str(row["kind"]) for row in carried]
    return ", ".join(tasks) or "nothing"


def padded(lines: list[Text], count: int) -> list[Text]:
    return [*lines, *(Text("") for _ in range(count - len(lines)))][:count]


def line(text: str, style: str = "") -> Text:
    return Text(one_line(text), style=style, no_wrap=True, overflow="ellipsis")


def title(board: Board) -> str:
    pending = sum(row["pending"] for row in board.queues)
    running = sum(row["in_flight"] for row in board.queues)
    slots = sum(row["concurrency"] for row in board.workers)
    return (
        f"airflow nats top: {len(board.queues)} queues, {pending} pending, {running} running; "
        f"{len(board.workers)} workers, {slots} slots"
    )


def pause_in_words(row: Row) -> str:
    if not row["paused_until"]:
        return ""
    by = f" by {row['paused_by']}" if row["paused_by"] else ""
    why = f" ({row['reason']})" if row["reason"] else ""
    return f"{row['queue']} is paused{by} until {row['paused_until']}{why}"


def table_of(state: ViewState, rows: Iterable[Row], selected: int) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, header_style="bold")
    columns = COLUMNS[state.tab]
    for name, text in columns.items():
        is_number = name in RIGHT_ALIGNED | NARROW
        table.add_column(
            f"{text}*" if name == state.sort else text,
            justify="right" if is_number else "left",
            ratio=1 if name == state.tab else None,
            min_width=len(text) if is_number else 6,
            no_wrap=True,
            overflow="ellipsis",
        )
    for number, row in enumerate(rows):
        cells = [Text(shown_cell(name, row[name])) for name in columns]
        table.add_row(*cells, style="reverse" if number == selected else "")
    return table


def shown_cell(name: str, value: object) -> str:
    """Return a cell; a pause is told in full below the table."""
    if name == "paused_until":
        return "paused" if value else "-"
    return cell(value)


@contextmanager
def keys_read(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[ViewEvent]) -> Iterator[None]:
    """Have each key come at once, as an event; the terminal is as before at the end."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def read() -> None:
        if not (data := os.read(terminal, READ_BYTES)):  # the terminal is gone
            loop.remove_reader(terminal)
            events.put_nowait(Key("q"))
        for key in keys_in(decoder.decode(data)):
            events.put_nowait(Key(key))

    try:
        tty.setcbreak(terminal, termios.TCSADRAIN)
        attributes = termios.tcgetattr(terminal)
        # A stopped program would leave the terminal as it is now.
        attributes[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(terminal, termios.TCSADRAIN, attributes)
        loop.add_reader(terminal, read)
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
