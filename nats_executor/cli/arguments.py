"""Reads arguments, asks the broker and prints answers and errors, for every command."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow.cli.simple_table import AirflowConsole
from airflow.configuration import conf
from airflow.utils.cli import suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from nats_executor.broker.connection import connect
from nats_executor.errors import BrokerError, ConfigError, NatsExecutorError, NoQuorum
from nats_executor.operations.listing import Choice, chosen
from nats_executor.operations.survey import take_survey
from nats_executor.options import SECTION
from nats_executor.settings import Settings
from nats_executor.text import lines, one_line, presentable
from nats_executor.wire.queue_names import as_text, in_text

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Awaitable, Callable, Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.queues import Row
    from nats_executor.operations.survey import Survey
    from nats_executor.wire.names import Lane

__all__ = [
    "answer_to",
    "ask",
    "ask_again",
    "cell",
    "command",
    "lanes_of",
    "named_queues",
    "print_error",
    "quiet",
    "require_yes",
    "say",
    "settings_for",
    "show",
    "show_details",
    "show_list",
]

UNREACHABLE, INTERRUPTED = 2, 130
# Clears a terminal and goes to its upper left corner.
CLEARED = "\x1b[2J\x1b[H"
ATTEMPT_MARGIN_SECONDS = 0.5
# A cluster that has lost a leader elects another one within this time, if it can elect one.
ELECTION_SECONDS = 5.0
ASK_AGAIN_SECONDS = 0.5

QuestionResult = TypeVar("QuestionResult")
Command = TypeVar("Command", bound="Callable[[Namespace], None]")


def command(function: Command) -> Command:
    """Give a command its configuration defaults, and turn expected errors into one line."""

    @functools.wraps(function)
    def run(args: Namespace) -> None:
        try:
            function(args)
        except NatsExecutorError as exc:
            print_error(of_section(str(exc), getattr(args, "team_name", None)))
            raise SystemExit(UNREACHABLE) from exc
        except Exception:  # noqa: BLE001 - Python's own traceback would show text from anyone as it is
            sys.stderr.write(lines(traceback.format_exc()))
            raise SystemExit(1) from None

    return cast("Command", providers_configuration_loaded(run))


def quiet(function: Command) -> Command:
    """Keep log lines out of a command's table, unless --verbose was given."""
    return suppress_logs_and_warning(function)


def settings_for(args: Namespace) -> Settings:
    """Read the settings of the team that was named, or the global ones.

    Raises:
        ConfigError: nothing says that there is such a team; with the defaults of every option, the
            answer would be that of another NATS.
    """
    if team := args.team_name:
        from airflow.executors.base_executor import ExecutorConf

        if not is_known(team):
            raise ConfigError(
                f"no team {team!r}: [core] executor names none, and nothing is set in [{SECTION}], "
                f"such as {variables_of(team)}SERVERS; check --team-name"
            )
        return Settings.load(ExecutorConf(team), team=team)
    return Settings.load(conf)


def is_known(team: str) -> bool:
    """Whether an executor is the team's, or an option; a worker's machine may lack the former."""
    groups = str(conf.get("core", "executor", fallback="")).split(";")
    teams = {group.partition("=")[0].strip() for group in groups if "=" in group}
    is_set = any(name.startswith(variables_of(team)) for name in os.environ)
    return team in teams or is_set or bool(conf.has_section(f"{team}={SECTION}"))


def variables_of(team: str) -> str:
    """Return how the variables of a team's options begin."""
    return f"AIRFLOW__{team}___{SECTION}__".upper()


def of_section(text: str, team: str | None) -> str:
    """Name a team's section in an error, which names the global one."""
    return text.replace(f"[{SECTION}]", f"[{team}={SECTION}]") if team else text


def ask(
    settings: Settings, question: Callable[[Broker], Awaitable[QuestionResult]]
) -> QuestionResult:
    """Connect, ask one thing, disconnect; raises what keeps the broker from answering.

    Asks again while a cluster elects a leader, so a question that changes something may come twice.
    """

    async def talk() -> QuestionResult:
        async with connect(settings, role="cli") as broker:
            return await answer_to(broker, settings, question)

    return asyncio.run(talk())


def ask_again(
    settings: Settings,
    question: Callable[[Broker], Awaitable[QuestionResult]],
    shown: Callable[[QuestionResult], None],
    every: float | None,
) -> None:
    """Ask one thing, once or every so many seconds until Ctrl-C, over one connection.

    Args:
        shown: prints an answer.
        every: seconds from one answer to the next question; None for one answer.
    """

    async def talk() -> None:
        async with connect(settings, role="cli") as broker:
            while every is not None:
                try:
                    answer = await answer_to(broker, settings, question)
                except BrokerError as exc:  # it may come back
                    print_error(str(exc))
                else:
                    sys.stdout.write(CLEARED if sys.stdout.isatty() else "")
                    shown(answer)
                    sys.stdout.flush()
                await asyncio.sleep(every)
            shown(await answer_to(broker, settings, question))

    try:
        asyncio.run(talk())
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


async def answer_to(
    broker: Broker, settings: Settings, question: Callable[[Broker], Awaitable[QuestionResult]]
) -> QuestionResult:
    """Ask as soon as the broker is there, and again while a cluster elects a leader."""
    # A little more than one attempt takes, because its end says what is wrong.
    await broker.ready(settings.connect_timeout_seconds + ATTEMPT_MARGIN_SECONDS)
    deadline = time.monotonic() + ELECTION_SECONDS
    while True:
        try:
            return await question(broker)
        except NoQuorum:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(ASK_AGAIN_SECONDS)


def named_queues(args: Namespace) -> list[str]:
    return in_text(args.queues or "") or [conf.get_mandatory_value("operators", "default_queue")]


def show(rows: list[Row], output: str) -> None:
    """Print rows in a form that the user chose; text in them, from anyone, is no markup.

    JSON and YAML keep numbers, lists and texts as they are, and escape them.
    """
    console = AirflowConsole(markup=False, emoji=False)
    typed: Any = rows  # Airflow's annotation says that it is one map
    match output:
        case "json":
            console.print_as_json(typed)
        case "yaml":
            console.print_as_yaml(typed)
        case _:
            cells = [{name: cell(value) for name, value in row.items()} for row in rows]
            console.print_as(data=cells, output=output)


def show_list(
    args: Namespace,
    settings: Settings,
    rows: Callable[[Survey], list[Row]],
    patterns: dict[str, list[str]],
) -> None:
    """Print a list once, or again and again until Ctrl-C, over one connection."""
    choice = Choice(patterns, args.sort, args.reverse)

    def show_rows(survey: Survey) -> None:
        show(chosen(rows(survey), choice), args.output)

    ask_again(settings, lambda broker: take_survey(broker, settings), show_rows, args.watch)


def show_details(details: Row, output: str) -> None:
    """Print what is known of one thing: one line for each fact, or one object."""
    if output in {"json", "yaml"}:
        show([details], output)
    else:
        show([{"what": name, "value": value} for name, value in details.items()], output)


def cell(value: Any) -> str:
    """Return a value as text of one line; `-` for none, so that columns can be counted."""
    if value is None or value == []:
        return "-"
    text = as_text(map(str, value)) if isinstance(value, list) else str(value)
    return one_line(presentable(text))


def require_yes(args: Namespace, question: str, otherwise: str) -> None:
    """Ask on stderr, as stdout is for the rows; exit 1 unless the answer is yes."""
    if args.yes:
        return
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        sys.stderr.write(f"{otherwise}\n")
        raise SystemExit(1)


def say(text: str) -> None:
    """Print a line with text from the broker in it."""
    print(one_line(text))


def print_error(text: str) -> None:
    """Print a line to stderr, likewise."""
    sys.stderr.write(f"error: {one_line(text)}\n")


def lanes_of(settings: Settings, queues: Sequence[str]) -> list[Lane]:
    return [lane for queue in queues for lane in settings.lanes(queue)]
