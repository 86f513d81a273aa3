"""Reads what the running Airflow is set to, its Dags from its database, and the files given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import State
from sqlalchemy import func, or_, select

from nats_executor.errors import ConfigError
from nats_executor.migration.counterparts import COUNTERPARTS, counterpart_of
from nats_executor.migration.dag_uses import uses_in
from nats_executor.migration.translating import HIDDEN, Deployed, GivenFile
from nats_executor.operations.instances import from_database

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from nats_executor.migration.dag_uses import DagUse

__all__ = ["read_deployed"]

# Far above what anyone has; more are counted and named.
MOST_DAGS = 10_000
DAGS_AT_A_TIME = 20
LARGEST_FILE = 4_000_000
# Part of the name that Airflow gives to the source of a default.
UNSET = "default"
CELERY_SECTIONS = "celery"
COMMAND_SUFFIXES = ("_cmd", "_secret")
YAML_ENDINGS = frozenset({".yaml", ".yml", ".json"})
# Options that have a row with their default, too.
ALWAYS = (("logging", "remote_logging"),)


def read_deployed(paths: Sequence[str]) -> Deployed:
    """Return all that there is to translate.

    Raises:
        ConfigError: a file cannot be read.
        DatabaseAway: the database gives no answer.
    """
    files = [read_file(Path(path)) for path in paths]
    default_queue = conf.get_mandatory_value("operators", "default_queue")

    def ask(session: Session) -> Deployed:
        dags, unread = read_dags(session, default_queue)
        return Deployed(
            executors=conf.get_mandatory_value("core", "executor"),
            options=options_set(),
            default_queue=default_queue,
            dags=dags,
            unread=unread,
            unfinished=read_unfinished(session),
            files=files,
        )

    deployed: Deployed = from_database(ask)
    return deployed


def options_set() -> dict[tuple[str, str], str]:
    """Return the options that are set and that a row is about; runs no command."""
    sections_known = {found.section for found in COUNTERPARTS}
    # With their values, because Airflow else hides all that variables set; the rows decide.
    sections = conf.as_dict(
        display_source=True,
        display_sensitive=True,
        raw=True,
        include_cmds=False,
        include_secret=False,
    )
    found: dict[tuple[str, str], str] = {}
    for section, options in sections.items():
        for name, (value, source) in pairs(options) if section in sections_known else ():
            plain, is_command = without_suffix(name)
            place = section, plain
            # Airflow's own sections have many options that no row is about.
            is_ours = section.startswith(CELERY_SECTIONS) or counterpart_of(*place) is not None
            is_set = UNSET not in source and str(value) != conf.get_default_value(*place)
            if is_ours and is_set:
                found[place] = HIDDEN if is_command else str(value)
    for place in ALWAYS:
        found.setdefault(place, conf.get_mandatory_value(*place))
    return found


def pairs(options: Any) -> Any:
    """Return options with values and their sources; Airflow's annotation has other forms, too."""
    return options.items()


def without_suffix(name: str) -> tuple[str, bool]:
    """Return an option's name, and whether a command or a secrets backend gives its value."""
    for suffix in COMMAND_SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix), True
    return name, False


def read_dags(session: Session, default_queue: str) -> tuple[list[DagUse], int]:
    """Return what the Dags that are there use, and how many are left out."""
    newest = (
        select(SerializedDagModel.dag_id, func.max(SerializedDagModel.created_at).label("at"))
        .join(DagModel, DagModel.dag_id == SerializedDagModel.dag_id)
        .where(DagModel.is_stale.is_(False))
        .group_by(SerializedDagModel.dag_id)
        .subquery()
    )
    count = session.scalar(select(func.count()).select_from(newest)) or 0
    of_newest = (SerializedDagModel.dag_id == newest.c.dag_id) & (
        SerializedDagModel.created_at == newest.c.at
    )
    query = (
        select(SerializedDagModel)
        .join(newest, of_newest)
        .order_by(SerializedDagModel.dag_id)
        .limit(MOST_DAGS)
        .execution_options(yield_per=DAGS_AT_A_TIME)
    )
    uses: dict[str, DagUse] = {}
    for stored in session.scalars(query):
        data: Any = stored.data
        if isinstance(data, dict):
            uses[stored.dag_id] = uses_in(stored.dag_id, data, default_queue)
        session.expunge(stored)
    return list(uses.values()), int(count) - len(uses)


def read_unfinished(session: Session) -> dict[str, int]:
    """Return how many task instances of open runs have not ended, by their executor's name."""
    is_open = or_(TaskInstance.state.is_(None), TaskInstance.state.not_in(State.finished))
    query = (
        select(TaskInstance.executor, func.count())
        .join(TaskInstance.dag_run)
        .where(is_open, DagRun.state.in_(State.unfinished_dr_states))
        .group_by(TaskInstance.executor)
    )
    return {name or "": int(count) for name, count in session.execute(query)}


def read_file(path: Path) -> GivenFile:
    """Read a file of commands, variables or values.

    Raises:
        ConfigError: it cannot be read, or is no YAML although its name says so.
    """
    try:
        with path.open("rb") as file:  # it may be a pipe, which has no size
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ConfigError(f"--file {path}: larger than {LARGEST_FILE} bytes")
        text = data.decode()
        documents = list(yaml.safe_load_all(text)) if path.suffix in YAML_ENDINGS else []
    except OSError as exc:
        raise ConfigError(f"--file {path}: {exc.strerror}") from exc
    except (UnicodeDecodeError, yaml.YAMLError) as exc:
        # Their own words would show what the file holds.
        raise ConfigError(f"--file {path}: no text, or no YAML ({type(exc).__name__})") from exc
    return GivenFile(str(path), text, [document for document in documents if document])
