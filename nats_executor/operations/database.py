"""Opens Airflow's database for commands and the page, and says so if it gives no answer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.utils.session import create_session
from sqlalchemy.exc import SQLAlchemyError

from nats_executor.errors import DatabaseAway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

__all__ = ["airflow_session"]


@contextmanager
def airflow_session() -> Iterator[Session]:
    """Return a session that is committed at the end.

    Raises:
        DatabaseAway: the database gives no answer.
    """
    try:
        with create_session(scoped=False) as session:
            yield session
    except SQLAlchemyError as exc:
        # SQLAlchemy adds lines of its own below what is wrong.
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise DatabaseAway(
            f"Airflow's database does not answer: {reason}; "
            "[database] sql_alchemy_conn has to be the scheduler's here"
        ) from exc
