"""The programs that a contender needs, and how to get them."""

from __future__ import annotations

import importlib.util
import shutil
from typing import TYPE_CHECKING

from tests.airflow import postgres
from tests.support.nats_server import server_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Missing", "Unmeasured", "missing", "require_contender"]


class Missing(Exception):
    """Something cannot be measured here; says what is missing and how to get it."""


class Unmeasured(Exception):
    """Some of a measurement failed and the rest was done.

    Attributes:
        reasons: why, by key and contender.
    """

    def __init__(self, reasons: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__(str(reasons))
        self.reasons = reasons


def require_nats() -> None:
    try:
        server_binary()
    except FileNotFoundError as exc:
        raise Missing(str(exc)) from exc


def require_redis() -> None:
    if shutil.which("redis-server") is None:
        raise Missing(
            "Redis is not installed: apt-get install --no-install-recommends redis-server"
        )


def require_postgres() -> None:
    if postgres.programs() is None:
        raise Missing("PostgreSQL is not installed: apt-get install postgresql")


def require_celery() -> None:
    for module in ("celery", "redis"):
        require_module(module)


def require_edge() -> None:
    require_module("airflow.providers.edge3")


def require_module(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise Missing(f"the package {name} is not installed: run this as `make bench`")


NEEDS: dict[str, tuple[Callable[[], None], ...]] = {
    "celery": (require_celery, require_redis, require_postgres),
    "edge": (require_edge, require_postgres),
    "": (require_nats,),
}


def require_contender(contender: str) -> None:
    """Raise `Missing` unless a contender can be measured here."""
    for require in NEEDS.get(contender, NEEDS[""]):
        require()


def missing(contender: str) -> str:
    """Return what a contender lacks, with the remedy; '' when it can be measured."""
    try:
        require_contender(contender)
    except Missing as exc:
        return str(exc)
    return ""
