"""Is a zygote: parses a Dag file, once another process has shown that this is safe, and forks.

A zygote is a fork server for the tasks of one Dag file. The fork server that forked it passes
requests on to it, one in each packet; what becomes of them it tells the main process itself, as
that one does. Code of the Dag file is in the memory of its supervisors, so a file has one only if
its parse does nothing but make Dags: the trial watches it, and `zygote_book.Obstacle` lists what
stands against it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats_worker.processes import zygote_facts
from nats_worker.processes.interpreter import is_wanted
from nats_worker.processes.linux import die_with, kill_tree
from nats_worker.processes.protocol import Op, pack, unpack
from nats_worker.processes.zygote_book import PARDONED, DagZygotes, Obstacle
from nats_worker.processes.zygote_parse import (
    Parse,
    as_task,
    bundle_path,
    missing_names,
    parse_dag_file,
)
from nats_worker.processes.zygote_witness import Witness, fingerprints, reads_clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from nats_worker.processes.zygote_book import DagFile

__all__ = ["become_zygote"]

# Of a request; a larger one goes the plain way.
MAX_PACKET_BYTES = 131_072
# Airflow's own limit for an import is below, unless it was raised; watching takes longer.
PARSE_TRIAL_SECONDS = 180.0
# Each is looked at before each task.
MOST_INPUTS = 2000
# Clocks of file systems may be this coarse, in nanoseconds.
COARSE_NS = 2_000_000_000


class NoZygote(Exception):
    """The file gets no zygote."""

    def __init__(self, reasons: set[Obstacle]) -> None:
        super().__init__(*sorted(reasons))
        self.reasons = reasons


@dataclass
class ParseTrial:
    """The findings of a trial.

    Attributes:
        inputs: the files and folders on which the Dags depend, as they were after it.
        chance: the state of numpy's generator; the same one twice was seeded by the file.
    """

    root: str = ""
    reasons: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    chance: str = ""


def become_zygote(
    file: DagFile, wish: DagZygotes, channel: socket, *, server: Any, private: list[socket]
) -> int:
    """Build a zygote in this child of a fork server, and serve until the channel ends.

    Args:
        channel: to the fork server; it gets `size`, or `reasons`, in one packet.
        server: the fork server's object, of whose class this process makes another one.
        private: the worker's sockets, which the trial has no business with.
    """
    for sig in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, signal.SIG_IGN)
    try:
        trial, parsed = build(file, wish, [channel, *private])
    except NoZygote as exc:
        channel.send(pack({"reasons": sorted(exc.reasons)}))
        return 0
    parsed.offer()
    gc.collect()
    gc.freeze()
    channel.send(pack({"size": zygote_facts.private_bytes()}))
    is_stale: Callable[[], bool] = (
        (lambda: False) if file.version else lambda: fingerprints(trial.inputs) != trial.inputs
    )
    zygote_server(type(server))(channel, server.events, server.uploads, is_stale).serve()
    return 0


def build(file: DagFile, wish: DagZygotes, private: list[socket]) -> tuple[ParseTrial, Parse]:
    """Parse the file if a trial allows it; raises `NoZygote`."""
    if missing_names() or is_wanted():  # a new interpreter has nothing of its parent's memory
        raise NoZygote({Obstacle.UNSUPPORTED})
    began = time.time_ns()
    trial = try_out(file, private)
    pardoned = PARDONED if wish is DagZygotes.ON else frozenset()
    if reasons := {Obstacle(reason) for reason in trial.reasons} - pardoned:
        raise NoZygote(reasons)
    parsed, reasons = watched_parse(file, Path(trial.root))
    if reasons := reasons - pardoned:
        raise NoZygote(reasons)
    if trial.chance and trial.chance == chance():
        raise NoZygote({Obstacle.RANDOM})
    if has_changed(trial.inputs, began) and not file.version:
        raise NoZygote({Obstacle.CHANGED})
    return trial, parsed


def has_changed(inputs: dict[str, Any], began: int) -> bool:
    """Return whether a file changed, or may have, since its parse began."""
    latest = max((facts[3] for facts in inputs.values() if facts), default=0)
    return latest > began - COARSE_NS or fingerprints(inputs) != inputs


def watched_parse(
    file: DagFile, root: Path, around: contextlib.AbstractContextManager[None] | None = None
) -> tuple[Parse, set[Obstacle]]:
    """Parse, and compare the process before and after.

    Args:
        around: a context for the parse alone.
    """
    reasons: set[Obstacle] = set()
    with as_task(lambda: reasons.add(Obstacle.REQUEST)):
        before = zygote_facts.take()
        with around or contextlib.nullcontext():
            parsed = parse_dag_file(file, root)
        after = zygote_facts.take()
    if parsed.reason:
        reasons.add(parsed.reason)
    return parsed, reasons | zygote_facts.changes(before, after, ends=len(parsed.ends))


def chance() -> str:
    """Return the state of numpy's own generator, '' without numpy."""
    generators = sys.modules.get("numpy.random")
    return repr(generators.get_state()) if generators else ""


# The trial


def try_out(file: DagFile, private: list[socket]) -> ParseTrial:
    """Parse the file in a process that ends then, and return what it saw; raises `NoZygote`."""
    reader, writer = os.pipe()
    errors = os.dup(2)  # a trial writes all else to where it counts
    zygote = os.getpid()
    pid = os.fork()
    if pid == 0:
        exit_code = 1
        try:
            die_with(zygote)
            os.close(reader)
            for inherited in private:
                inherited.close()
            with os.fdopen(writer, "wb") as report:
                report.write(pack(vars(watch_trial(file))))
            exit_code = 0
        except BaseException:  # noqa: BLE001 - it is a process's last
            os.write(errors, traceback.format_exc().encode())
        finally:
            os._exit(exit_code)
    os.close(errors)
    os.close(writer)
    try:
        packed = read_until(reader, time.monotonic() + PARSE_TRIAL_SECONDS)
    finally:
        kill_tree(pid)
        os.waitpid(pid, 0)
        os.close(reader)
    if not packed:
        raise NoZygote({Obstacle.DIED})
    fields = unpack(packed)
    inputs = {path: facts and tuple(facts) for path, facts in fields.pop("inputs").items()}
    return ParseTrial(**fields, inputs=inputs)


def read_until(reader: int, deadline: float) -> bytes:
    """Return all that comes until the other end closes, or nothing at the deadline."""
    parts: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            part = os.read(reader, 65_536)
            if not part:
                return b"".join(parts)
            parts.append(part)
    return b""


def watch_trial(file: DagFile) -> ParseTrial:
    """Parse in this process, which ends after it, and look at everything."""
    from airflow import settings
    from airflow.sdk.execution_time import supervisor

    reasons: set[Obstacle] = set()
    written = os.memfd_create("written")
    supervisor._reset_signals()  # noqa: SLF001 - as Airflow begins each task
    supervisor._configure_logs_over_json_channel(os.dup(written))  # noqa: SLF001
    with as_task(lambda: reasons.add(Obstacle.REQUEST)), contextlib.suppress(Exception):
        root = bundle_path(file)
    if reasons or root is None:
        return ParseTrial(reasons=[Obstacle.BUNDLE])
    for stream in (1, 2):
        os.dup2(written, stream)
    witness = Witness(filter(None, (str(root), settings.PLUGINS_FOLDER)))
    for name in ("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "_AIRFLOW_PARSING_CONTEXT_TASK_ID"):
        os.environ[name] = ""  # so that reading the whole environment reads them
    # Watching takes time, and the limit is Airflow's for a parse that is not watched.
    vars(settings)["get_dagbag_import_timeout"] = lambda _: 0.0
    size = os.fstat(written).st_size
    _, reasons = watched_parse(file, root, witness.watching())
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fstat(written).st_size > size:
        reasons.add(Obstacle.LOG)
    reasons |= witness.reasons | judged(witness.inputs)
    inputs = fingerprints(witness.inputs)
    return ParseTrial(root=str(root), reasons=sorted(reasons), inputs=inputs, chance=chance())


def judged(inputs: set[str]) -> set[Obstacle]:
    """Return what the files themselves say against a zygote."""
    found = set()
    sources = [name for name in inputs if name.endswith(".py")]
    for name in sources:
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            if reads_clock(compile(Path(name).read_bytes(), name, "exec")):
                found.add(Obstacle.CLOCK)
    if any(is_hidden(name) for name in sources):
        found.add(Obstacle.HOOK)
    if len(inputs) > MOST_INPUTS:
        found.add(Obstacle.FILES)
    return found


def is_hidden(path: str) -> bool:
    """Return whether a file is in the place of a module of Python's own."""
    module = sys.modules.get(Path(path).stem)
    return Path(path).stem in sys.stdlib_module_names and getattr(module, "__file__", "") == path


# The fork server that a zygote is


def zygote_server(base: Any) -> Any:
    """Return a subclass of the fork server's class for the tasks of one Dag file."""

    class ZygoteServer(base):  # type: ignore[misc]
        def __init__(
            self, channel: socket, events: socket, uploads: Any, is_stale: Callable[[], bool]
        ) -> None:
            super().__init__(channel, events, uploads)
            self.is_stale = is_stale
            self.is_retired = False

        def serve(self) -> None:
            """Fork and reap until the channel ends, or until the last task of a retired one."""
            self.watch_children()
            self.selector.register(self.requests, selectors.EVENT_READ, self.answer)
            while self.is_open or (self.is_retired and self.supervisors):
                self.wait(self.dismiss_free(time.monotonic()))
            self.selector.unregister(self.requests)
            self.end_all()

        def answer(self) -> None:
            packet = self.requests.recv(MAX_PACKET_BYTES)
            if not packet or os.getppid() != self.main:
                self.is_open = self.is_retired = False
                return
            request = unpack(packet)
            if request["op"] == Op.RETIRE_ZYGOTES:
                self.is_open, self.is_retired = False, True
                for pid in list(self.free):
                    self.drop(pid)
            elif self.is_stale():
                self.requests.send(packet)  # back: its task has to parse
            else:
                self.run(request)

    return ZygoteServer
