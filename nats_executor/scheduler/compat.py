"""Hides the differences between Airflow's versions, and the internals that an executor needs.

No other module knows a version. `tests/scheduler/test_airflow_names.py` lists all names of Airflow
that this wing relies on, and looks for them in the installed release.

Supported: 3.3 and 3.4 (read in 3.4.0b2). 3.4 keeps the queues of a `BaseExecutor` in
`executor_queues`, lists its workload types in `supported_workload_types` and sorts by itself.
The key of a task is its coordinates in 3.3. In 3.4 attempts may share these, in loops for example,
so the key is the id of the attempt.
"""

from __future__ import annotations

import uuid
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow import __version__ as airflow_version
from airflow.configuration import conf
from airflow.executors import workloads
from airflow.executors.base_executor import BaseExecutor
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.observability import stats
from airflow.utils.state import CallbackState, TaskInstanceState
from packaging.version import Version
from sqlalchemy.exc import SQLAlchemyError

from nats_executor.metrics_package import SWITCHES, require_metrics
from nats_executor.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.api_fastapi.auth.tokens import JWTGenerator
    from airflow.callbacks.callback_requests import CallbackRequest
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane

__all__ = [
    "AIRFLOW_V_3_4_PLUS",
    "Mint",
    "RequeueRule",
    "VersionedExecutor",
    "airflow_version",
    "attempts_in",
    "body_of",
    "default_queue",
    "discard_waiting",
    "dispatch_id_of",
    "ended_event",
    "has_metrics",
    "is_waiting",
    "key_of",
    "key_of_task",
    "key_parts",
    "kind_of",
    "lane_of",
    "log_contexts",
    "name_key",
    "queued_event",
    "queued_timeout",
    "requeue_rule",
    "running_event",
    "stats",
    "token_subject_of",
    "waiting_in",
    "waits_in",
]

AIRFLOW_V_3_4_PLUS = Version(Version(airflow_version).base_version) >= Version("3.4.0")

# The type checker sees one version; what only 3.4 has is reached through this name.
newer: Any = workloads

RequeueRule: TypeAlias = "Callable[[TaskInstance, Session], None]"

# Lines of the audit log, far more than one loop of the scheduler writes.
KEPT_LOGS = 1000


class VersionedExecutor(BaseExecutor):
    """`BaseExecutor` with one face on every supported version of Airflow."""

    if AIRFLOW_V_3_4_PLUS:
        supports_task_instance_uuid = True
        supported_workload_types = frozenset(
            {
                newer.WorkloadType.EXECUTE_TASK,
                newer.WorkloadType.EXECUTE_CALLBACK,
                newer.WorkloadType.TEST_CONNECTION,
            }
        )
    else:
        supports_callbacks = True
        supports_connection_test = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require_metrics()  # in the place of Airflow's traceback
        super().__init__(*args, **kwargs)
        self._audited: deque[Any] = deque(maxlen=KEPT_LOGS)

    def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
        """Add a line to the audit log, and keep it until the scheduler has written it.

        `_process_task_event_logs` (3.3.2) hands a generator to SQLAlchemy, which refers to objects
        weakly; without another reference every line is lost with an error in the log.
        """
        super().log_task_event(event=event, extra=extra, ti_key=ti_key)
        self._audited.extend(list(self._task_event_logs)[-1:])

    def send_callback(self, request: CallbackRequest) -> None:
        """Have the Dag processor run a callback; a task's is stored together with the task's end.

        Airflow's sink commits and closes the session that the scheduler's loop works in. From 3.4
        on the loop then writes the next try beside the last one, and the database refuses that: the
        scheduler ends, and so does the next one. So a task's callback is added to the loop's
        transaction and takes effect with it, or not at all. The loop tells of a Dag's callback
        outside of any such unit of work, and may throw away afterwards what is not committed.
        """
        from airflow import settings as airflow_settings
        from airflow.callbacks.callback_requests import DagCallbackRequest
        from airflow.callbacks.database_callback_sink import DatabaseCallbackSink

        if airflow_settings.Session is None or not isinstance(
            self.callback_sink, DatabaseCallbackSink
        ):
            super().send_callback(request)
            return
        session = airflow_settings.Session()  # the loop's, as `create_session` finds it
        has_owner = session.in_transaction() and not isinstance(request, DagCallbackRequest)
        self.callback_sink.send(request, session=session)
        if has_owner:
            session.flush()  # a refusal shows here, not somewhere in the loop
        else:
            session.commit()

    def _get_workloads_to_schedule(
        self, open_slots: int
    ) -> list[tuple[WorkloadKey, ExecutorWorkload]]:
        """Callbacks first, then tasks by priority; 3.3.0 and 3.3.1 sorted the lowest first."""
        if AIRFLOW_V_3_4_PLUS:
            return super()._get_workloads_to_schedule(open_slots)
        tasks = sorted(
            self.queued_tasks.items(), key=lambda item: item[1].ti.priority_weight, reverse=True
        )
        ordered: list[Any] = [*self.queued_callbacks.items(), *tasks]
        return ordered[: max(0, open_slots)]


def key_of(workload: ExecutorWorkload) -> WorkloadKey:
    """Return what events, `running` and the ledger know a workload by."""
    newer_executor: Any = VersionedExecutor
    return newer_executor.get_workload_key(workload) if AIRFLOW_V_3_4_PLUS else workload.key


def key_of_task(ti: TaskInstance, coordinates: TaskInstanceKey) -> WorkloadKey:
    """Return the key of an attempt that is not here yet; its coordinates are known."""
    newer_executor: Any = VersionedExecutor
    return newer_executor.get_task_key(ti) if AIRFLOW_V_3_4_PLUS else coordinates


def name_key(executor: BaseExecutor, key: WorkloadKey, coordinates: Any) -> None:
    """Have Airflow's own lines name an attempt; 3.4 forgets that at an attempt's first end."""
    if coordinates is not None and key != coordinates:
        vars(executor).get("_task_coordinates", {}).setdefault(key, coordinates)


def waiting_in(executor: BaseExecutor) -> list[dict[Any, Any]]:
    """Return what was queued in an executor and not handed over yet, by key."""
    if AIRFLOW_V_3_4_PLUS:
        queues: dict[Any, dict[Any, Any]] = vars(executor)["executor_queues"]
        return list(queues.values())
    return [executor.queued_tasks, executor.queued_callbacks, executor.queued_connection_tests]


def waits_in(executor: BaseExecutor, key: WorkloadKey) -> bool:
    return any(key in queue for queue in waiting_in(executor))


def discard_waiting(executor: BaseExecutor, key: WorkloadKey) -> None:
    for queue in waiting_in(executor):
        queue.pop(key, None)


def attempts_in(events: dict[Any, Any]) -> dict[uuid.UUID, Any]:
    """Return the keys of attempts among these, by id; 3.3 has none."""
    if not AIRFLOW_V_3_4_PLUS:
        return {}
    of_attempts: Any = newer.types.TaskInstanceUuid
    return {key.id: key for key in events if isinstance(key, of_attempts)}


def kind_of(workload: ExecutorWorkload) -> str:
    """Return a workload's type as the wire names it; 3.4 has an enum for it."""
    return str(getattr(workload.type, "value", workload.type))


def queue_of(workload: ExecutorWorkload) -> str:
    """Return the queue that a workload belongs to; callbacks have none in Airflow 3.3 and 3.4."""
    if isinstance(workload, workloads.ExecuteTask):
        queue: str | None = workload.ti.queue
    else:
        queue = getattr(workload, "queue", None)
    return queue or default_queue()


def priority_of(workload: ExecutorWorkload) -> int | None:
    """Return a task's effective `priority_weight`; the other workloads have none."""
    return workload.ti.priority_weight if isinstance(workload, workloads.ExecuteTask) else None


def lane_of(workload: ExecutorWorkload, settings: Settings) -> Lane:
    """Return the lane that a workload is sent in."""
    return settings.lane(queue_of(workload), priority_of(workload))


def default_queue() -> str:
    return conf.get_mandatory_value("operators", "default_queue")


def queued_timeout() -> float:
    """Return for how many seconds a task may be queued before Airflow asks about it."""
    return conf.getfloat("scheduler", "task_queued_timeout")


def requeue_rule(executor: BaseExecutor) -> RequeueRule | None:
    """Return what Airflow does to a stuck task after `revoke_task`; None if it does that elsewhere.

    It counts, writes the audit log, queues the task again or fails it and asks for its callback.
    That is the scheduler's own method, reached through a runner without a job: it reads options
    and an empty cache of Dags, and has nothing of the scheduler that runs.
    """
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    no_job: Any = SimpleNamespace(job_type=None)
    try:
        runner: Any = SchedulerJobRunner(no_job, executors=[executor])
        requeue = runner._maybe_requeue_stuck_ti  # noqa: SLF001 - Airflow offers no other way to it
    except (AttributeError, TypeError):
        return None

    def rule(ti: TaskInstance, session: Session) -> None:
        requeue(ti=ti, session=session, executor=executor)

    return rule


def has_metrics() -> bool:
    """Whether `stats`, which statsd and OpenTelemetry both stand behind, goes anywhere."""
    return any(conf.getboolean("metrics", switch, fallback=False) for switch in SWITCHES)


def dispatch_id_of(workload: ExecutorWorkload) -> tuple[str, bool]:
    """Return the id that the scheduler assigned at queueing, or a new one; and whether it is new.

    The scheduler assigns none to callbacks and connection tests, nor to a task that names its
    executor by the bare class name (`scheduler_job_runner.py`). A new one is entered in the
    workload: the attempt to send it that follows a lost answer must carry the same.
    """
    if not isinstance(workload, workloads.ExecuteTask):
        return token_subject_of(workload), False
    if assigned := workload.ti.external_executor_id:
        return assigned, False
    workload.ti.external_executor_id = new = str(uuid.uuid4())
    return new, True


def token_subject_of(workload: ExecutorWorkload) -> str:
    """Return the id that a workload's token is issued for."""
    if isinstance(workload, workloads.ExecuteTask):
        return str(workload.ti.id)
    if isinstance(workload, workloads.ExecuteCallback):
        return workload.callback.id
    return str(workload.connection_test_id)


def body_of(workload: ExecutorWorkload) -> dict[str, Any]:
    """Return a workload as plain data, its token included."""
    return workload.model_dump(mode="json")


def key_parts(key: WorkloadKey) -> list[Any]:
    """Return a key as plain data for the wire."""
    if isinstance(key, TaskInstanceKey):
        return [key.dag_id, key.task_id, key.run_id, key.try_number, key.map_index]
    return [str(key.id)]


def log_contexts(tis: Sequence[TaskInstance], session: Session) -> dict[Any, Any]:
    """Return what the paths of task logs depend on in 3.4, by task instance, asked for at once.

    Empty for 3.3, and where one row spoils it for all: each workload then asks for itself.
    """
    if not AIRFLOW_V_3_4_PLUS:
        return {}
    from airflow.utils.log import task_log_address  # type: ignore[attr-defined] # 3.4 has it

    template = conf.get("logging", "log_filename_template")
    prepare: Any = task_log_address.prepare_task_log_contexts
    try:
        contexts: dict[Any, Any] = prepare(tis, session=session, filename_template=template)
    except SQLAlchemyError:
        raise
    except Exception:  # noqa: BLE001 - its reason is logged for the row that has it
        return {}
    return contexts


class Mint:
    """Makes workloads with their tokens, as the scheduler does when it queues them."""

    def __init__(self, generator: Callable[[], JWTGenerator], sentry_integration: str) -> None:
        """Make nothing yet.

        Args:
            generator: returns what makes tokens; called at the first use, as it may read a key.
        """
        self._generator = generator
        self._sentry_integration = sentry_integration

    def token(self, kind: str, subject: str) -> str:
        """Make a token in place of one that died while its workload waited, by Airflow's own rule.

        In 3.4 each kind of workload has a scope of its own.
        """
        workload: Any = getattr(workloads, kind)
        token: str = workload.generate_token(subject, self._generator())
        return token

    def task(self, ti: TaskInstance, contexts: dict[Any, Any]) -> workloads.ExecuteTask:
        """Make a task's workload; `contexts` are of `log_contexts`."""
        more: dict[str, Any] = {"log_context": contexts[ti.id]} if ti.id in contexts else {}
        return workloads.ExecuteTask.make(
            ti, generator=self._generator(), sentry_integration=self._sentry_integration, **more
        )

    def callback(self, row: Any, dag_run: Any) -> ExecutorWorkload:
        """Make a callback's workload."""
        return workloads.ExecuteCallback.make(
            callback=row, dag_run=dag_run, generator=self._generator()
        )

    def connection_test(self, row: Any) -> ExecutorWorkload:
        """Make a connection test's workload."""
        make: Any = workloads.TestConnection.make
        team: dict[str, Any] = {}
        if AIRFLOW_V_3_4_PLUS and conf.getboolean("core", "multi_team"):
            team["team_name"] = row.team_name
        workload: ExecutorWorkload = make(
            connection_test_id=row.id,
            connection_id=row.connection_id,
            timeout=conf.getint("connection_test", "timeout", fallback=60),
            queue=row.queue,
            generator=self._generator(),
            **team,
        )
        return workload


def queued_event() -> Any:
    """Return the state whose event makes the scheduler store its `info` as the external id."""
    return TaskInstanceState.QUEUED


def running_event(kind: str) -> Any:
    """Return the state that tells the scheduler of a start; None where Airflow knows it already."""
    return CallbackState.RUNNING if kind == Kind.CALLBACK else None


def ended_event(succeeded: bool) -> Any:
    """Return the state that tells the scheduler of a callback's end."""
    return CallbackState.SUCCESS if succeeded else CallbackState.FAILED


def is_waiting(ti: TaskInstance) -> bool:
    """Whether nothing of a task instance has started yet, so that it may be queued again."""
    return ti.state == TaskInstanceState.QUEUED
