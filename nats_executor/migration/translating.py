"""Decides what becomes of each thing that a team with Celery has: the rows of `migrate check`."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nats_executor.errors import ConfigError
from nats_executor.migration.chart import chart_values_in, is_chart, options_of_chart
from nats_executor.migration.command_lines import (
    flags_in,
    starts_in_text,
    starts_in_tree,
    variables_in,
    variables_in_tree,
)
from nats_executor.migration.counterparts import COUNTERPARTS, Change, counterpart_of
from nats_executor.migration.verbs import WORKER_FLAGS
from nats_executor.text import presentable
from nats_executor.wire.queue_names import as_argument, as_text, in_text, require_servable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nats_executor.migration.command_lines import PartStart
    from nats_executor.migration.dag_uses import DagUse

__all__ = ["HIDDEN", "Deployed", "GivenFile", "check_for_celery", "is_decided"]

OptionPlace = tuple[str, str]
OURS = "nats_executor.NatsExecutor"
CELERY, HYBRID = "CeleryExecutor", "CeleryKubernetesExecutor"
OF_CELERY = "celery"
HIDDEN = "hidden"
LONGEST_VALUE = 200
MOST_LISTED = 10
# The login in an address, up to the last @ of the word: a password may have slashes.
USERINFO = re.compile(r"(?<=://)\S*@")


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A file that the command was given.

    Attributes:
        documents: what a YAML file holds; none for any other file.
    """

    name: str
    text: str
    documents: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Deployed:
    """The settings, Dags and files of the Airflow that runs.

    Attributes:
        executors: `[core] executor`.
        options: the options that are set, by section and name.
        unread: how many Dags were not read.
        unfinished: how many task instances have not ended, by the name of their executor; '' for
            those that name none.
    """

    executors: str
    options: Mapping[OptionPlace, str]
    default_queue: str
    dags: Sequence[DagUse] = ()
    unread: int = 0
    unfinished: Mapping[str, int] = field(default_factory=dict)
    files: Sequence[GivenFile] = ()


def row(
    where: str, theirs: str, value: object, change: Change, ours: str = "", note: str = ""
) -> dict[str, Any]:
    """Return one finding; text is cut, because anyone may have written it, and has no login."""
    shown = presentable(no_userinfo(value))[:LONGEST_VALUE] if isinstance(value, str) else value
    return {
        "where": where, "theirs": theirs, "value": shown, "change": str(change),
        "ours": no_userinfo(ours), "note": note,
    }  # fmt: skip


def no_userinfo(text: str) -> str:
    return USERINFO.sub(f"{HIDDEN}@", text)


def check_for_celery(deployed: Deployed) -> list[dict[str, Any]]:
    """Return a row for each thing, in the order in which a person goes through them."""
    rows = list(executor_rows(deployed.executors))
    rows += option_rows("Airflow's configuration", deployed.options)
    starts: list[PartStart] = []
    of_files: list[dict[str, Any]] = []
    for file in deployed.files:
        found = starts_in(file)
        starts += found
        of_files += file_rows(file, found)
    rows += dag_rows(deployed, starts)
    rows += unfinished_rows(deployed)
    return rows + of_files


def is_decided(rows: Iterable[dict[str, Any]]) -> bool:
    """Whether there is nothing left that a person has to decide."""
    return all(found["change"] != Change.DECIDE for found in rows)


# The list of executors


def names_in(executors: str) -> list[str]:
    """Return the executors of `[core] executor`, of all teams, without their aliases."""
    groups = [group.rpartition("=")[2] for group in executors.split(";")]
    names = [name.strip() for group in groups for name in group.split(",")]
    return [class_of(name) for name in names if name]


def class_of(name: str) -> str:
    """Return the name of the class: of `alias:path.to.Class`, of a path, or of a short name."""
    return name.rpartition(":")[2].rpartition(".")[2]


def executor_rows(executors: str) -> Iterator[dict[str, Any]]:
    place, option = "Airflow's configuration", "[core] executor"
    names = names_in(executors)
    ours = class_of(OURS)
    if HYBRID in names:
        note = f"Write {CELERY} and KubernetesExecutor in its place, and name them by executor=."
        yield row(place, option, executors, Change.DECIDE, "", note)
    elif CELERY in names and ours in names:
        yield row(place, option, executors, Change.SAME, executors, "Both run side by side.")
    elif CELERY in names:
        note = (
            "For schedulers, API servers, Dag processors and workers of both kinds. Restart them. "
            f"{CELERY} stays first until it has nothing left."
        )
        groups = [with_ours(group) for group in executors.split(";")]
        yield row(place, option, executors, Change.SET, ";".join(groups), note)
    else:
        yield row(place, option, executors, Change.SAME, executors, f"{CELERY} is not in it.")


def with_ours(group: str) -> str:
    """Return the executors of one team with ours behind Celery's."""
    has_celery = CELERY in names_in(group)
    return f"{group},{OURS}" if has_celery else group


# Options


def option_rows(where: str, options: Mapping[OptionPlace, str]) -> Iterator[dict[str, Any]]:
    known = [(row.section, row.option) for row in COUNTERPARTS]
    order = {place: number for number, place in enumerate(known)}
    for place in sorted(options, key=lambda place: (order.get(place, len(order)), place)):
        section, option = place
        found = counterpart_of(*place)
        theirs = f"[{section}] {option}"
        if found is None:
            if section.startswith(OF_CELERY):
                note = "This release does not know the option. Look it up in Celery's docs."
                yield row(where, theirs, HIDDEN, Change.DECIDE, "", note)
            continue
        value = options[place].strip()
        if value.lower() in found.harmless:
            continue
        shown = HIDDEN if found.is_secret else value
        ours = found.ours.replace("{value}", presentable(value)[:LONGEST_VALUE])
        yield row(where, theirs, shown, found.change, ours, found.note)


# Dags


def dag_rows(deployed: Deployed, starts: Sequence[PartStart]) -> Iterator[dict[str, Any]]:
    dags = deployed.dags
    queues, pools, executors = Counter[str](), Counter[str](), Counter[str]()
    for dag in dags:
        queues += dag.queues
        pools += dag.pools
        executors += dag.executors
    if deployed.unread:
        note = "Look through them yourself: queue=, executor=, executor_config=."
        yield row("Dags", "Dags that were not read", deployed.unread, Change.DECIDE, "", note)
    yield from rows_of_queues(queues, served_by(starts, deployed.default_queue))
    if pools:
        note = "Pools are Airflow's own and hold for every executor."
        yield row("Dags", "pool=", tallied(pools), Change.SAME, "pool=", note)
    for name, count in sorted(executors.items()):
        yield executor_use(name, count, [dag.dag_id for dag in dags if dag.executors[name]])
    if configured := [dag.dag_id for dag in dags if dag.with_config]:
        note = "Neither CeleryExecutor nor this one reads it."
        yield row("Dags", "executor_config=", listed(configured), Change.SAME, "", note)
    if calling := [dag.dag_id for dag in dags if dag.with_callbacks]:
        note = (
            "Callbacks run where they did. For those of a deadline that name no executor it is the "
            "first one in [core] executor."
        )
        yield row("Dags", "callbacks", listed(calling), Change.SAME, "", note)


def rows_of_queues(queues: Counter[str], served: set[str]) -> Iterator[dict[str, Any]]:
    fit = [name for name in sorted(queues) if is_servable(name)]
    for name in sorted(set(queues) - set(fit)):
        note = "NATS cannot have a queue of this name. Give these tasks another one."
        yield row("Dags", "queue=", name, Change.DECIDE, "", note)
    if fit:
        command = f"airflow nats setup -q {as_argument(as_text(fit))}"
        note = "Each queue needs a worker that serves it: airflow nats worker -q."
        counts = tallied({name: queues[name] for name in fit})
        yield row("Dags", "queue=", counts, Change.SET, command, note)
    for name in [name for name in fit if served and name not in served]:
        note = "No worker in the files that you gave serves it."
        yield row("Dags", "queue=", name, Change.DECIDE, "airflow nats worker -q", note)


def is_servable(queue: str) -> bool:
    try:
        require_servable(queue)
    except ValueError:
        return False
    return True


def served_by(starts: Iterable[PartStart], default_queue: str) -> set[str]:
    """Return the queues that the workers in files serve."""
    served: set[str] = set()
    for start in starts:
        if start.part == "worker":
            named, _ = flags_in(start.words)
            served |= set(queues_in(named.get("-q", default_queue)))
    return served


def queues_in(text: str) -> list[str]:
    try:
        return in_text(text)
    except ConfigError:
        return text.split(",")


def executor_use(name: str, count: int, dag_ids: list[str]) -> dict[str, Any]:
    value = f"{name}: {count} in {listed(dag_ids)}"
    if class_of(name) in {CELERY, HYBRID}:
        note = "They stay with Celery until you change it. Do so before it leaves the list."
        return row("Dags", "executor=", value, Change.DECIDE, f'executor="{OURS}"', note)
    return row("Dags", "executor=", value, Change.SAME, f'executor="{name}"')


def tallied(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


# Task instances


def unfinished_rows(deployed: Deployed) -> Iterator[dict[str, Any]]:
    """Yield what an executor still has, while both are there or when one is gone already."""
    names = names_in(deployed.executors)
    counts = Counter[str]()
    for name, count in deployed.unfinished.items():
        counts[class_of(name) if name else names[0] if names else ""] += count
    for name in (CELERY, class_of(OURS)):
        theirs = f"unfinished task instances of {name}"
        if name in names and len(names) > 1:
            note = f"{name} may leave [core] executor when this is 0, and its workers with it."
            yield row("Airflow's database", theirs, counts[name], Change.SAME, "", note)
        elif name not in names and counts[name]:
            note = f"They wait for it. Put {name} back into [core] executor, or clear their runs."
            yield row("Airflow's database", theirs, counts[name], Change.DECIDE, "", note)


# Files


def starts_in(file: GivenFile) -> list[PartStart]:
    if file.documents:
        return [start for document in file.documents for start in starts_in_tree(document)]
    return starts_in_text(file.text)


def file_rows(file: GivenFile, starts: Sequence[PartStart]) -> list[dict[str, Any]]:
    """Return what one file has: commands, variables, values of the official chart."""
    rows = [start_row(file.name, start) for start in starts]
    options = dict(variables_in(file.text))
    for document in file.documents:
        listed_there = variables_in_tree(document)
        options |= {place: HIDDEN if text is None else text for place, text in listed_there}
        if is_chart(document):
            options |= options_of_chart(document)
            rows += chart_rows(file.name, document)
    rows += option_rows(file.name, options)
    return rows or [row(file.name, "file", "", Change.SAME, "", "Nothing in it is of Celery.")]


def chart_rows(where: str, document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path, value, about in chart_values_in(document):
        is_plain = isinstance(value, bool | int | float) or path.endswith("executor")
        shown = value if is_plain else HIDDEN
        yield row(where, path, shown, about.change, about.ours, about.note)


def start_row(where: str, start: PartStart) -> dict[str, Any]:
    if start.part == "flower":
        note = "Start nothing: the page is part of Airflow's UI."
        return row(where, "airflow celery flower", HIDDEN, Change.DROP, "airflow nats top", note)
    flags, unknown = flags_in(start.words)
    if "-a" in flags:
        flags.pop("-c", None)  # Celery does not use it then
    words: list[str] = []
    notes: list[str] = []
    is_open = bool(unknown)
    if unknown:
        notes.append("It has words that airflow celery worker does not know; look through them.")
    for flag in WORKER_FLAGS:
        if (name := flag.names[0]) not in flags:
            continue
        value = value_of(name, flags[name])
        is_open |= flag.is_open or value is None
        notes += [flag.note] if flag.note and (flag.is_open or not flag.ours) else []
        if value is None:
            notes.append("Celery fills in the % of -H; without -H it is the host's name here.")
        elif flag.ours and flag.ours not in words:
            words += [flag.ours, value] if flag.takes else [flag.ours]
    theirs = " ".join(["airflow celery worker", *(f for f in flags)])
    change = Change.DECIDE if is_open else Change.SET
    ours = " ".join(["airflow nats worker", *map(shell_word, words)])
    return row(where, theirs, " ".join(filter(None, flags.values())), change, ours, " ".join(notes))


def value_of(flag: str, value: str) -> str | None:
    """Return a flag's value as our worker takes it; None if only a person can tell."""
    if flag == "-a":
        numbers = [int(part) for part in value.split(",") if part.strip().isdigit()]
        return str(max(numbers)) if numbers else value
    if flag == "-H":
        name = value.removeprefix("celery@")
        return None if "%" in name else name
    return value


def shell_word(word: str) -> str:
    """Quote a word for the shell, but for a variable that the shell shall fill in."""
    return word if "$" in word else shlex.quote(word)
