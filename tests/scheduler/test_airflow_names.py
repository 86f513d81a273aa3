"""Each name of Airflow's insides that the scheduler's wing uses is there in the installed release.

Airflow documents a class to derive executors from and promises nothing about the rest. So all that
the wing touches is listed here, and a search in its source proves that nothing is missing. What is
documented for anyone is left out: options, states, the coordinates of a task.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.executor_utils import ExecutorName

from nats_executor import scheduler
from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BASE = "airflow.executors.base_executor.BaseExecutor"
CALLBACK = "airflow.models.callback.ExecutorCallback"
CONNECTION_TEST = "airflow.models.connection_test.ConnectionTestRequest"
NAME = "airflow.executors.executor_utils.ExecutorName"
ROW = "airflow.models.taskinstance.TaskInstance"
WORKLOADS = "airflow.executors.workloads"
# fmt: off
RELIED_ON: dict[str, tuple[str, ...]] = {
    BASE: (
        "__init__", "_get_workloads_to_schedule", "_process_workloads", "_task_event_logs",
        "callback_sink", "change_state", "conf", "debug_dump", "fail", "fail_connection_test",
        "get_event_buffer", "job_id", "jwt_generator", "log_task_event", "name", "parallelism",
        "is_local", "pre_assigns_external_executor_id", "queue_workload", "running",
        "send_callback", "sentry_integration", "serve_logs", "success", "supports_multi_team",
        "team_name",
    ),
    CALLBACK: ("data", "get_dag_id", "get_executor_name", "id", "state"),
    CONNECTION_TEST: (
        "connection_id", "get_dag_id", "get_executor_name", "id", "queue", "state", "team_name",
    ),
    ROW: (
        "__table__", "dag_id", "dag_model", "dag_run", "external_executor_id", "id", "map_index",
        "priority_weight", "queue", "queued_by_job_id", "queued_dttm", "run_id", "state",
        "task_id", "try_number",
    ),
    WORKLOADS: ("ExecuteCallback", "ExecuteTask", "TestConnection"),
    f"{WORKLOADS}.ExecuteCallback": (
        "callback", "generate_token", "key", "make", "model_dump", "type",
    ),
    f"{WORKLOADS}.ExecuteTask": ("generate_token", "key", "make", "model_dump", "ti", "type"),
    f"{WORKLOADS}.TestConnection": (
        "connection_test_id", "generate_token", "key", "make", "model_dump", "queue", "type",
    ),
    f"{WORKLOADS}.callback.CallbackDTO": ("id",),
    f"{WORKLOADS}.task.TaskInstanceDTO": (
        "external_executor_id", "id", "priority_weight", "queue",
    ),
    "airflow.callbacks.database_callback_sink.DatabaseCallbackSink": ("send",),
    "airflow.executors.executor_loader.ExecutorLoader": ("get_default_executor_name",),
    NAME: ("alias", "module_path"),
    "airflow.jobs.scheduler_job_runner.SchedulerJobRunner": ("_maybe_requeue_stuck_ti",),
    "airflow.models.callback.CallbackKey": ("id",),
    "airflow.models.connection_test.ConnectionTestKey": ("id",),
    "airflow.models.dag.DagModel": ("get_team_name",),
    "airflow.observability.stats": ("gauge", "normalize_name_for_stats", "timing"),
    "airflow.settings": ("Session",),
    "airflow.utils.state.CallbackState": ("FAILED", "QUEUED", "RUNNING", "SUCCESS"),
}
ONLY_IN_3_3: dict[str, tuple[str, ...]] = {
    BASE: (
        "queued_callbacks", "queued_connection_tests", "queued_tasks", "supports_callbacks",
        "supports_connection_test",
    ),
}
SINCE_3_4: dict[str, tuple[str, ...]] = {
    BASE: (
        "_task_coordinates", "executor_queues", "get_task_key", "get_workload_key",
        "supported_workload_types", "supports_task_instance_uuid",
    ),
    ROW: ("working_set",),
    WORKLOADS: ("WorkloadType", "types"),
    f"{WORKLOADS}.WorkloadType": ("EXECUTE_CALLBACK", "EXECUTE_TASK", "TEST_CONNECTION"),
    f"{WORKLOADS}.types": ("TaskInstanceUuid",),
    f"{WORKLOADS}.types.TaskInstanceUuid": ("id",),
    "airflow.models.dagrun.DagRun": ("created_dag_version",),
    "airflow.utils.log.task_log_address": ("prepare_task_log_contexts",),
}
# fmt: on
LISTED = (RELIED_ON, ONLY_IN_3_3, SINCE_3_4)
HERE = (RELIED_ON, SINCE_3_4 if AIRFLOW_V_3_4_PLUS else ONLY_IN_3_3)

KEYS = ("airflow.models.callback.CallbackKey", "airflow.models.connection_test.ConnectionTestKey")
KINDS = tuple(
    f"{WORKLOADS}.{kind}" for kind in ("ExecuteCallback", "ExecuteTask", "TestConnection")
)
# By the words that the wing has for objects of Airflow. They have one meaning in all of its code.
WORDS = {
    "columns": (ROW,),
    "compat.stats": ("airflow.observability.stats",),
    "executor": (BASE,),
    "name": (NAME,),
    "newer": (WORKLOADS,),
    "newer.WorkloadType": (f"{WORKLOADS}.WorkloadType",),
    "newer.types": (f"{WORKLOADS}.types",),
    "newer_executor": (BASE,),
    "key": (*KEYS, f"{WORKLOADS}.types.TaskInstanceUuid"),
    "row": (CALLBACK, CONNECTION_TEST, ROW),
    "runner": ("airflow.jobs.scheduler_job_runner.SchedulerJobRunner",),
    "self._executor": (BASE,),
    "self.callback_sink": ("airflow.callbacks.database_callback_sink.DatabaseCallbackSink",),
    "super()": (BASE,),
    "ti": (ROW,),
    "workload": KINDS,
    "workload.callback": (f"{WORKLOADS}.callback.CallbackDTO",),
    "workload.ti": (f"{WORKLOADS}.task.TaskInstanceDTO",),
}
DOCUMENTED = {
    "airflow.configuration.conf",
    "airflow.models.taskinstancekey.TaskInstanceKey",
    "airflow.sdk.timezone",
    "airflow.utils.state.TaskInstanceState",
}
TABLES = (CALLBACK, CONNECTION_TEST, ROW)
COORDINATES = {"dag_id", "map_index", "run_id", "task_id", "try_number"}  # of a `TaskInstanceKey`
# What these have is set when they are made.
MADE = {BASE: BaseExecutor(), NAME: ExecutorName("a.path")}
EXECUTORS = ("VersionedExecutor", "NatsExecutor")
TREES = {
    path.name: ast.parse(path.read_text())
    for path in sorted(Path(next(iter(scheduler.__path__))).glob("*.py"))
}


def imported(tree: ast.AST) -> dict[str, str]:
    """Return what a module imports from Airflow: name and path. Not what only names a type."""
    found: dict[str, str] = {}
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                continue
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] == "airflow":
                found |= {a.asname or a.name: f"{module}.{a.name}" for a in node.names}
        found |= imported(node)
    return found


def looked_up(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield each look into an object, as the object's expression and the name that is wanted.

    It may be written as an attribute, with `getattr`, or as an item of `vars`.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=value, attr=name):
                yield ast.unparse(value), name
            case ast.Call(
                func=ast.Name("getattr"), args=[value, ast.Constant(value=str(name)), *_]
            ):
                yield ast.unparse(value), name
            case ast.Subscript(
                value=ast.Call(func=ast.Name("vars"), args=[value]),
                slice=ast.Constant(value=str(name)),
            ):
                yield ast.unparse(value), name
            case ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name("vars"), args=[value])),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield ast.unparse(value), name


def uses() -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the owners, of which one has it, and the name of each thing of Airflow's in use."""
    for tree in TREES.values():
        paths = imported(tree)
        for expression, name in looked_up(tree):
            root, dot, rest = expression.partition(".")
            if root in paths:
                yield (paths[root] + dot + rest,), name
            elif expression in WORDS:
                yield WORDS[expression], name
        yield from (((BASE,), name) for name in inherited(tree))


def inherited(tree: ast.AST) -> Iterator[str]:
    """Yield what our executors have of Airflow's, and what they define for Airflow to find."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in EXECUTORS:
            methods = {name for name in defined(node) if not name.endswith("__")}
            wanted = {name for value, name in looked_up(node) if value == "self"}
            yield from wanted - methods
            # Airflow calls what no method of ours calls.
            yield from {name for name in methods - wanted if name.startswith("_")}
            yield from switches(node.body)


def defined(node: ast.ClassDef) -> Iterator[str]:
    """Yield what a class has of its own: methods, and what they set."""
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name=name):
                yield name
            case ast.Attribute(value=ast.Name("self"), attr=name, ctx=ast.Store()):
                yield name


def switches(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield the names that a class sets in its body."""
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name
            case ast.If(body=then, orelse=otherwise):
                yield from switches([*then, *otherwise])


def named(listed: Iterable[dict[str, tuple[str, ...]]]) -> list[tuple[str, str]]:
    return [(owner, name) for names in listed for owner in names for name in names[owner]]


def resolve(path: str) -> Any:
    """Return a module, or a thing in it."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(resolve(module), name)


def has(path: str, name: str) -> bool:
    """Whether a module, or the objects of a class, have a name."""
    owner = MADE.get(path) or resolve(path)
    fields = getattr(owner, "__annotations__", {}), getattr(owner, "model_fields", {})
    return hasattr(owner, name) or any(name in names for names in fields)


@pytest.mark.parametrize(("owner", "name"), named(HERE))
def test_the_installed_release_has_each_name(owner: str, name: str) -> None:
    assert has(owner, name)


def test_what_is_imported_is_there() -> None:
    """Also what is imported at the first use alone."""
    paths = {path for tree in TREES.values() for path in imported(tree).values()}
    for path in paths if AIRFLOW_V_3_4_PLUS else paths - SINCE_3_4.keys():
        assert resolve(path) is not None


def test_each_name_that_is_used_is_listed() -> None:
    listed = set(named(LISTED))

    missing = {
        (owners, name)
        for owners, name in uses()
        if not listed.intersection((owner, name) for owner in owners)
        and not DOCUMENTED.intersection(owners)
        and not is_of_a_column(owners)
        and not (set(KEYS) <= set(owners) and name in COORDINATES)
    }

    assert missing == set()


def is_of_a_column(owners: Iterable[str]) -> bool:
    """Whether something is SQLAlchemy's: `TaskInstance.id.in_` is a look into a column."""
    return any(owner.rpartition(".")[0] in TABLES for owner in owners)


def test_each_name_that_is_listed_is_used() -> None:
    used = {(owner, name) for owners, name in uses() for owner in owners}

    assert set(named(LISTED)) - used == set()


def test_no_private_name_is_used_by_another_word() -> None:
    private = {
        name
        for tree in TREES.values()
        for expression, name in looked_up(tree)
        if name.startswith("_") and not name.endswith("__") and expression != "self"
    }

    # A named tuple's `_replace` is documented.
    assert private - {name for _, name in named(LISTED)} == {"_replace"}


def test_one_class_alone_has_the_executor() -> None:
    """The others get what they need of it, so that a reader sees how much that is."""
    holders = {
        file
        for file, tree in TREES.items()
        if any(expression in {"executor", "self._executor"} for expression, _ in looked_up(tree))
    }

    assert holders == {"compat.py", "events.py"}
