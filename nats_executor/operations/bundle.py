"""Writes what an examination has found into an archive that may be sent to others.

What is secret by its definition is left out: options that are marked so, users and passwords in
addresses. Bodies of messages are never read. As people may write a secret into any text, such as
the reason of a pause, the secrets of this machine are then cut out of all texts, too.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf

from nats_executor.errors import ConfigError
from nats_executor.fleet.queues import queue_rows
from nats_executor.fleet.workers import served_queues
from nats_executor.operations.doctoring import versions_here
from nats_executor.operations.survey import worker_rows
from nats_executor.options import OPTIONS
from nats_executor.text import presentable

if TYPE_CHECKING:
    from nats_executor.fleet.queues import Row
    from nats_executor.operations.doctoring import Examination
    from nats_executor.settings import Settings

__all__ = ["bundle_parts", "write_bundle"]

BUNDLE_MODE = 0o600
CUT = "***"
# Shorter ones stand in texts by chance.
LEAST_SECRET = 6
# Of Airflow, beside its own list of sensitive options, which has them in other releases only.
SECRET_OPTIONS = (
    ("api_auth", "jwt_secret"),
    ("core", "fernet_key"),
    ("database", "sql_alchemy_conn"),
    ("api", "secret_key"),
)
# The user part of an address, and what looks like a token of Airflow's or NATS's.
USER_PART = re.compile(r"(?<=//)[^/@\s]+@")
TOKEN_LIKE = re.compile(
    r"\bey[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|\bS[UAO][A-Z2-7]{56}\b"
)
README = """\
What `airflow nats doctor --bundle` has found. Passwords, tokens, keys, users in addresses, and
bodies of messages are left out. Names of queues, workers, hosts and Dags may be in it, and what
people have written as a reason. Look through it before you send it to others.
"""


def bundle_parts(found: Examination, settings: Settings, rows: list[Row]) -> dict[str, Any]:
    """Return the files of the archive by their names, without secrets."""
    parts: dict[str, Any] = {
        "findings": rows,
        "versions": versions_here(),
        "settings": {option.name: settings.shown(option.name) for option in OPTIONS},
        "airflow": {
            f"[{section}] {name}": conf.get(section, name, fallback=None)
            for section, name in (
                ("core", "executor"), ("core", "execution_api_server_url"), ("core", "multi_team"),
                ("core", "parallelism"), ("operators", "default_queue"),
                ("api_auth", "jwt_issuer"), ("execution_api", "jwt_audience"),
            )
        },
        "schedulers": [asdict_of(answer.asked) for answer in found.schedulers or ()],
        "streams": found.configs,
    }  # fmt: skip
    if survey := found.survey:
        served = served_queues(survey.workers, settings)
        parts["queues"] = queue_rows(
            survey.consumers, survey.workers, settings, survey.holds, served=served
        )
        parts["workers"] = worker_rows(survey, settings)
        parts["stream_states"] = [asdict(info) for info in survey.streams]
        parts["consumers"] = [asdict(info) for info in survey.consumers]
    secrets = secrets_here(settings)
    return {name: without_secrets(part, secrets) for name, part in parts.items()}


def asdict_of(asked: Any) -> dict[str, Any]:
    return {
        "job": asked.job,
        "silence": asked.silence,
        "state": asdict(asked.state) if asked.state else None,
    }


def secrets_here(settings: Settings) -> list[str]:
    """Return what must stand nowhere in the archive, the longest first."""
    found = {getattr(settings, option.name) for option in OPTIONS if option.sensitive}
    found |= {conf.get(*option, fallback=None) for option in SECRET_OPTIONS}
    for address in (*settings.servers, *filter(None, found)):
        if match := re.search(r"//([^/@\s]+)@", str(address)):
            user, _, password = match[1].partition(":")
            found |= {password or user}
    texts = {str(secret) for secret in found if secret and len(str(secret)) >= LEAST_SECRET}
    return sorted(texts, key=len, reverse=True)


def without_secrets(value: Any, secrets: list[str]) -> Any:
    """Return plain data with secrets cut out of all texts, and of keys."""
    match value:
        case str():
            for secret in secrets:
                value = value.replace(secret, CUT)
            return presentable(TOKEN_LIKE.sub(CUT, USER_PART.sub("", value)))
        case dict():
            return {
                without_secrets(str(k), secrets): without_secrets(v, secrets)
                for k, v in value.items()
            }
        case list() | tuple() | set():
            return [without_secrets(v, secrets) for v in value]
        case int() | float() | None:
            return value
        case _:
            return without_secrets(str(value), secrets)


def write_bundle(path: str, parts: dict[str, Any]) -> None:
    """Write the archive, for its owner alone; one that is there is not written over.

    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, BUNDLE_MODE)
    except FileExistsError:
        raise ConfigError(f"--bundle {path}: there is a file already; name another one") from None
    except OSError as exc:
        raise ConfigError(
            f"--bundle {path}: {exc.strerror}; name a file that can be written"
        ) from exc
    with (
        os.fdopen(descriptor, "wb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr("README.txt", README)
        for name, part in parts.items():
            archive.writestr(f"{name}.json", json.dumps(part, indent=2, ensure_ascii=True))
