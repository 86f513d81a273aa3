"""Parses a Dag file for the tasks to come, and gives each of them what it would have parsed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import logging
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nats_worker.processes.zygote_book import Obstacle
from nats_worker.processes.zygote_facts import IMPORTER_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nats_worker.processes.zygote_book import DagFile

__all__ = ["Parse", "as_task", "bundle_path", "missing_names", "parse_dag_file"]

# Where Airflow lacks one of these, no file has a zygote.
RELIED_ON_FOR_ZYGOTES = {
    "airflow.dag_processing.bundles.manager": ("DagBundlesManager",),
    "airflow.dag_processing.bundles.local": ("LocalDagBundle",),
    "airflow.dag_processing.importers": ("PythonDagImporter", "get_importer_registry"),
    "airflow.sdk.execution_time.supervisor": (
        "_configure_logs_over_json_channel",
        "_reset_signals",
        "block_orm_access",
    ),
    "airflow.sdk.execution_time.task_runner": ("main", "parse"),
    "airflow.settings": ("PLUGINS_FOLDER", "get_dagbag_import_timeout"),
}
COMMS = "SUPERVISOR_COMMS"


@functools.cache
def missing_names() -> list[str]:
    """Return what this Airflow has not of what zygotes rely on."""
    missing = []
    for module, names in RELIED_ON_FOR_ZYGOTES.items():
        try:
            found: object = importlib.import_module(module)
        except ImportError:
            found = None
        missing += [f"{module}.{name}" for name in names if not hasattr(found, name)]
    return missing


class NoSupervisor(Exception):
    """Code of a Dag file asked for what only a task's supervisor can answer."""


class Deaf:
    """In the place of the way to a supervisor, while there is no task.

    Args:
        on_request: told when something is asked.
    """

    def __init__(self, on_request: Callable[[], None]) -> None:
        self._on_request = on_request

    def __getattr__(self, name: str) -> Any:
        """Refuse everything."""
        self._on_request()
        raise NoSupervisor(name)


@contextlib.contextmanager
def as_task(on_request: Callable[[], None]) -> Iterator[None]:
    """Have code find what it finds in a task, but no supervisor and no database.

    The database stays closed: neither a supervisor nor a task uses it.
    """
    from airflow.sdk.execution_time import supervisor, task_runner

    supervisor.block_orm_access()
    setattr(task_runner, COMMS, Deaf(on_request))
    try:
        yield
    finally:
        delattr(task_runner, COMMS)


def bundle_path(file: DagFile) -> Path | None:
    """Make the file's bundle ready, as a task does, and return its path.

    None is for one that may change when a task makes it ready: it has no version and is not just a
    directory.
    """
    from airflow.dag_processing.bundles.local import LocalDagBundle
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    bundle = DagBundlesManager().get_bundle(name=file.bundle, version=file.version)
    if file.version is None and type(bundle) is not LocalDagBundle:
        return None
    bundle.initialize()
    path: Path = bundle.path
    return path


@dataclass
class Parse:
    """The traces of a parse.

    Attributes:
        result: what Airflow's importer returned.
        path: `sys.path` after it.
        handlers: of the two signals that the importer handles.
        ends: the functions that were registered for the end of the process.
    """

    file: str
    bundle: tuple[str, str]
    result: Any = None
    path: list[str] = field(default_factory=list)
    handlers: dict[int, Any] = field(default_factory=dict)
    ends: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    @property
    def reason(self) -> Obstacle | None:
        """Why the result is of no use."""
        if self.result is None:
            return Obstacle.UNSUPPORTED
        return Obstacle.BROKEN if self.result.errors or not self.result.dags else None

    def offer(self) -> None:
        """Have the first import of this file in a process forked from here give the result."""
        from airflow.dag_processing.importers import PythonDagImporter

        original = PythonDagImporter.import_file

        @functools.wraps(original)
        def import_file(importer: Any, file_path: Any, **options: Any) -> Any:
            bundle = (str(options.get("bundle_name")), str(options.get("bundle_path")))
            if (str(file_path), bundle) != (self.file, self.bundle) or options.get("safe_mode"):
                return original(importer, file_path, **options)
            PythonDagImporter.import_file = original  # type: ignore[method-assign]
            self.enter()
            return self.result

        PythonDagImporter.import_file = import_file  # type: ignore[method-assign, assignment]

    def enter(self) -> None:
        """Give this process what the parse would have changed in it."""
        sys.path[:] = self.path
        for sig, handler in self.handlers.items():
            signal.signal(sig, handler)
        for function, args, options in self.ends:
            atexit.register(function, *args, **options)
        if generators := sys.modules.get("numpy.random"):
            generators.seed()


def parse_dag_file(file: DagFile, root: Path) -> Parse:
    """Import a Dag file as a task does, and undo what only tasks should see of that."""
    from airflow.dag_processing.importers import PythonDagImporter, get_importer_registry

    name = os.fspath(root / file.path)
    found = Parse(name, (file.bundle, str(root)))
    importer = get_importer_registry().get_importer(name)
    loud = logging.getLogger("airflow").isEnabledFor(logging.DEBUG)
    if type(importer) is not PythonDagImporter or loud:
        return found  # another importer may keep something; Airflow tells of each import
    before = list(sys.path)
    handlers = {sig: signal.getsignal(sig) for sig in IMPORTER_SIGNALS}
    if str(root) not in sys.path:
        sys.path.append(str(root))
    with recorded_ends(found):
        found.result = importer.import_file(
            file_path=name, bundle_path=root, bundle_name=file.bundle, safe_mode=False
        )
    found.path = list(sys.path)
    found.handlers = {sig: signal.getsignal(sig) for sig in IMPORTER_SIGNALS}
    sys.path[:] = before
    for sig, handler in handlers.items():
        signal.signal(sig, handler)
    return found


@contextlib.contextmanager
def recorded_ends(found: Parse) -> Iterator[None]:
    """Record what is registered for the end of the process: Airflow drops that in each task."""
    register = atexit.register

    def recorded(function: Any, /, *args: Any, **options: Any) -> Any:
        found.ends.append((function, args, options))
        return register(function, *args, **options)

    atexit.register = recorded
    try:
        yield
    finally:
        atexit.register = register
