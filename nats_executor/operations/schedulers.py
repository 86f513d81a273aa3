"""Asks the executors of the living schedulers how it stands with them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from airflow.configuration import conf
from airflow.jobs.job import Job
from airflow.sdk import timezone
from sqlalchemy import select

from nats_executor.errors import BrokerUnavailable, DecodeError, NoResponders
from nats_executor.operations.database import airflow_session
from nats_executor.wire.messages import decode
from nats_executor.wire.names import SchedulerVerb
from nats_executor.wire.scheduler_answers import ExecutorState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.wire.names import Names

__all__ = ["AskedExecutor", "living_schedulers", "state_of_executor"]

# Airflow's words.
SCHEDULER_JOB, RUNNING = "SchedulerJob", "running"
# Far above what anyone runs.
MOST_SCHEDULERS = 100
# An executor answers at once, unless its machine is very busy.
STATE_SECONDS = 2.0


class AskedExecutor(NamedTuple):
    """The executor of a scheduler's job, and what it said.

    Attributes:
        silence: why there is no state, '' if there is one.
    """

    job: str
    state: ExecutorState | None
    silence: str = ""


def living_schedulers() -> list[str]:
    """Return the ids of the schedulers' jobs that Airflow takes for alive.

    Raises:
        DatabaseAway: the database gives no answer.
    """
    threshold = conf.getint("scheduler", "scheduler_health_check_threshold")
    query = (
        select(Job.id, Job.latest_heartbeat)
        .where(
            Job.job_type == SCHEDULER_JOB,
            Job.state == RUNNING,
            Job.latest_heartbeat.is_not(None),
        )
        .order_by(Job.latest_heartbeat.desc())
        .limit(MOST_SCHEDULERS)
    )
    with airflow_session() as session:
        jobs = session.execute(query).all()
    now = timezone.utcnow()
    living = [row.id for row in jobs if (now - row.latest_heartbeat).total_seconds() < threshold]
    return [str(job) for job in sorted(living)]


async def executor_states(broker: Broker, names: Names, jobs: Sequence[str]) -> list[AskedExecutor]:
    """Ask the executors of these schedulers' jobs at the same time.

    Raises:
        AccessDenied: this user may not ask.
        BrokerUnavailable: it is NATS that does not answer.
    """
    return await asyncio.gather(*(state_of_executor(broker, names, job) for job in jobs))


async def state_of_executor(
    broker: Broker, names: Names, job: str, dispatch_id: str = ""
) -> AskedExecutor:
    """Ask the executor of one scheduler's job; raises as `executor_states` does.

    Args:
        dispatch_id: about which it is asked, too.
    """
    subject = names.scheduler(job, SchedulerVerb.STATE)
    try:
        answer = await broker.request(subject, dispatch_id.encode(), timeout=STATE_SECONDS)
        state = decode(ExecutorState, answer)
    except NoResponders:
        why = "it has no connection to NATS, runs another executor, or an earlier release of this"
    except BrokerUnavailable:
        if not broker.is_connected:
            raise
        why = f"it did not answer within {STATE_SECONDS:g} s"
    except DecodeError as exc:
        why = f"its answer cannot be read: {exc}"
    else:
        return AskedExecutor(job, state)
    return AskedExecutor(job, None, why)
