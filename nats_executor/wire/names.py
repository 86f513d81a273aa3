"""Builds the name of every stream, subject, consumer and bucket. Pure.

Airflow's queue names are free text, NATS's tokens are not (no dots, spaces or wildcards), so names
pass through `token()`, which keeps what is valid and marks what it had to change.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple, get_args

__all__ = [
    "BAND",
    "ORDERS",
    "QUEUE",
    "Lane",
    "Names",
    "Order",
    "SchedulerVerb",
    "Verb",
    "in_domain",
    "is_probe",
    "probe_id",
    "token",
    "without_domain",
]

# A queue's name in the metadata of its consumer; the consumer's own name may be a hash of it.
QUEUE = "airflow_queue"
BAND = "airflow_band"

# 64 characters leave room for prefix and dispatch id in a subject; NATS allows 255 for a consumer.
PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
PLAIN_LOWER = re.compile(r"[a-z0-9_-]{1,64}")
# How the dispatch ids of probes begin; those of Airflow's workloads are UUIDs.
PROBE_MARK = "probe-"
# The form that `token` and `lane` give to a name that they have to change or to tell apart.
MARKED = re.compile(r".*--([0-9a-f]{32}|b[0-9]+)")


class Verb(StrEnum):
    """A question or an order to a running worker: the last token of its control subjects."""

    PING = "ping"  # the body asks about dispatches; the answer is its presence record
    # The body names dispatches as that of a ping does, or none to ask about all that are there; the
    # answer is a `descriptions.Description`.
    DESCRIBE = "describe"
    STOP = "stop"  # the body is the id of a dispatch
    LOG = "log"  # see `log_pages.py`
    SET_CONCURRENCY = "set-concurrency"  # the body is the number as text
    ADD_QUEUE = "add-queue"  # the body is the queue's name
    REMOVE_QUEUE = "remove-queue"  # the body is the queue's name
    DRAIN = "drain"  # the body is a `messages.Drain`
    UNDRAIN = "undrain"  # the body is the name of the person who orders it
    SHUT_DOWN = "shut-down"  # the body is a `messages.ShutDown`


# The verbs that change a worker; it answers each of them with `messages.Obeyed`.
Order = Literal[
    Verb.SET_CONCURRENCY,
    Verb.ADD_QUEUE,
    Verb.REMOVE_QUEUE,
    Verb.DRAIN,
    Verb.UNDRAIN,
    Verb.SHUT_DOWN,
]
ORDERS: tuple[Order, ...] = get_args(Order)


class SchedulerVerb(StrEnum):
    """A question to a running executor: the last token of its scheduler's subjects."""

    # The body may name a dispatch; the answer is a `scheduler_answers.ExecutorState`.
    STATE = "state"
    PROBE = "probe"  # the body is a `ProbeOrder`, the answer a `ProbeResult`


def token(text: str, *, plain: re.Pattern[str] = PLAIN) -> str:
    """Return a valid NATS token for any text; two different texts never share one.

    A plain name stays as it is. Anything else becomes a readable slug and 128 bits of its hash;
    a plain name that looks like such a result is hashed too, so the two kinds never meet.
    """
    if plain.fullmatch(text) and not MARKED.fullmatch(text):
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    slug = re.sub(r"[^a-z0-9_]+", "-", text.lower())[:24].strip("-")
    return f"{slug or 'x'}--{digest}"


def probe_id(unique: str) -> str:
    """Return the dispatch id of a probe; readers tell it from others without the message."""
    return f"{PROBE_MARK}{unique}"


def is_probe(dispatch_id: str) -> bool:
    """Whether a dispatch is a probe's."""
    return dispatch_id.startswith(PROBE_MARK)


def in_domain(subject: str, domain: str | None) -> str:
    """Return the address of a key-value subject of another JetStream domain; others stay.

    A leaf node lets no `$KV` subject through. The domain's servers map this one to it.
    """
    return f"$JS.{domain}.API.{subject}" if domain and subject.startswith("$KV.") else subject


def without_domain(subject: str, domain: str) -> str:
    """Return what a subject of another JetStream domain is called there; others stay."""
    local = subject.removeprefix(f"$JS.{domain}.API.")
    return local if local == subject or local.startswith("$KV.") else f"$JS.API.{local}"


class Lane(NamedTuple):
    """One priority band of a queue; band 0 is the lowest, and a queue may have no other."""

    queue: str
    band: int = 0

    @property
    def token(self) -> str:
        """The lane's token in subjects, and the name of its consumer."""
        return f"{token(self.queue)}--b{self.band}" if self.band else token(self.queue)

    def __str__(self) -> str:
        """The lane in a sentence."""
        band = f"priority band {self.band} of " if self.band else ""
        return f"{band}queue {self.queue!r}"


@dataclass(frozen=True, slots=True)
class Place:
    """The lane or queue token and the dispatch id that a subject ends with."""

    queue: str
    dispatch_id: str


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one deployment; `prefix` is `[nats_executor] subject_prefix`, one token."""

    prefix: str = "airflow"

    @property
    def tasks_stream(self) -> str:
        return f"{self.prefix.upper()}_TASKS"

    @property
    def results_stream(self) -> str:
        return f"{self.prefix.upper()}_RESULTS"

    @property
    def dead_letters_stream(self) -> str:
        return f"{self.prefix.upper()}_DEAD_LETTERS"

    @property
    def workers_bucket(self) -> str:
        return f"{self.prefix}_workers"

    @property
    def workers_stream(self) -> str:
        """The stream under the bucket, by the naming rule of NATS key-value stores."""
        return f"KV_{self.workers_bucket}"

    @property
    def holds_bucket(self) -> str:
        return f"{self.prefix}_holds"

    @property
    def holds_stream(self) -> str:
        """The stream under the bucket, by the naming rule of NATS key-value stores."""
        return f"KV_{self.holds_bucket}"

    @property
    def logs_bucket(self) -> str:
        return f"{self.prefix}_logs"

    @property
    def logs_stream(self) -> str:
        """The stream under the bucket, by the naming rule of NATS object stores."""
        return f"OBJ_{self.logs_bucket}"

    def consumer(self, queue: str, band: int = 0) -> str:
        """Name the durable consumer of a queue's band."""
        return Lane(queue, band).token

    def task(self, queue: str, dispatch_id: str, band: int = 0) -> str:
        return f"{self.prefix}.tasks.{Lane(queue, band).token}.{token(dispatch_id)}"

    def tasks(self, lane: Lane | None = None) -> str:
        """All task subjects, of one lane or of every queue."""
        return f"{self.prefix}.tasks.>" if lane is None else f"{self.prefix}.tasks.{lane.token}.*"

    def task_anywhere(self, dispatch_id: str) -> str:
        """The subjects that a dispatch may have in any lane."""
        return f"{self.prefix}.tasks.*.{token(dispatch_id)}"

    def result(self, queue: str, dispatch_id: str) -> str:
        """The subject of a workload's reports.

        It holds the queue, so that a user may be allowed to report for its own queues only.
        """
        return f"{self.prefix}.results.{token(queue)}.{token(dispatch_id)}"

    def results(self, queue: str | None = None) -> str:
        """All subjects of reports, of one queue or of every one."""
        return f"{self.prefix}.results.{'>' if queue is None else f'{token(queue)}.*'}"

    def dead_letter(self, queue: str, dispatch_id: str) -> str:
        return f"{self.prefix}.dead.{token(queue)}.{token(dispatch_id)}"

    def dead_letters(self, queue: str | None = None) -> str:
        """All subjects of dead letters, of one queue or of every one."""
        return f"{self.prefix}.dead.{'>' if queue is None else f'{token(queue)}.*'}"

    def control(self, worker_id: str, verb: Verb) -> str:
        """The subject on which one worker answers one verb."""
        return f"{self.prefix}.ctl.{token(worker_id)}.{verb}"

    def controls(self, verb: Verb | None = None) -> str:
        """The subjects on which all workers answer one verb, or every one."""
        return f"{self.prefix}.ctl.*.{'*' if verb is None else verb}"

    def peer(self, worker_id: str) -> str:
        """The subject on which one worker answers the pings of others.

        Not the scheduler's: where workers have accounts of their own, a ping goes a longer way,
        and NATS takes a way that ends at the subject where it began for a cycle.
        """
        return f"{self.prefix}.peers.{token(worker_id)}"

    def peers(self) -> str:
        return f"{self.prefix}.peers.*"

    def scheduler(self, job: str, verb: SchedulerVerb) -> str:
        """The subject on which the executor of one scheduler answers one question.

        Not below `ctl`: there a worker's user may listen, and could answer in its place.
        """
        return f"{self.prefix}.schedulers.{token(job)}.{verb}"

    def schedulers(self, verb: SchedulerVerb | None = None) -> str:
        """The subjects on which all executors answer one question, or every one."""
        return f"{self.prefix}.schedulers.*.{'*' if verb is None else verb}"

    def presence(self, queue: str, worker: str) -> str:
        """The key-value subject of a worker's presence record in one of its queues.

        It holds the queue, so that a user may be allowed to write records of its own queues only.
        """
        return f"$KV.{self.workers_bucket}.{token(queue)}.{token(worker)}"

    def presences(self, queue: str | None = None) -> str:
        """All subjects of presence records, of one queue or of every one."""
        return f"$KV.{self.workers_bucket}.{'>' if queue is None else f'{token(queue)}.*'}"

    def older_presence(self, worker: str) -> str:
        """The subject of the record of a worker of the release before, whatever its queues."""
        return f"$KV.{self.workers_bucket}.{token(worker)}"

    def older_presences(self) -> str:
        return f"$KV.{self.workers_bucket}.*"

    def queue_hold(self, queue: str) -> str:
        """The key-value subject of what an operator said about the pause of a queue."""
        return f"$KV.{self.holds_bucket}.queue.{token(queue)}"

    def queue_holds(self) -> str:
        return f"$KV.{self.holds_bucket}.queue.*"

    def queue_history(self, queue: str) -> str:
        """The key of what a queue was like in the last hour; schedulers write it."""
        return f"$KV.{self.holds_bucket}.history.{token(queue)}"

    def queue_histories(self) -> str:
        return f"$KV.{self.holds_bucket}.history.*"

    def worker_hold(self, queue: str, worker: str) -> str:
        """The key-value subject of the note that a worker of a queue is drained.

        It holds the queue, so that a user may be allowed to read those of its own queues only.
        """
        return f"$KV.{self.holds_bucket}.worker.{token(queue)}.{token(worker)}"

    def worker_holds(self, queue: str | None = None) -> str:
        """All subjects of such notes, of one queue or of every one."""
        return f"$KV.{self.holds_bucket}.worker.{'>' if queue is None else f'{token(queue)}.*'}"

    def holds(self) -> str:
        return f"$KV.{self.holds_bucket}.>"

    def log_part(self, queue: str, path: str, part: str) -> str:
        """The subject of what is known of a part of a task's log.

        It holds the queue, so that a user may be allowed to store logs of its own queues only.
        """
        return f"$O.{self.logs_bucket}.C.{token(queue)}.{token(path)}.{part}"

    def log_parts(self, queue: str, path: str) -> str:
        """The subjects of all parts of a log, without their chunks."""
        return self.log_part(queue, path, "*")

    def log_chunk(self, queue: str, path: str, part: str, number: int) -> str:
        return f"{self.log_part(queue, path, part)}.{number}"

    @staticmethod
    def log_object(queue: str, path: str, part: str) -> str:
        """The `nuid` of a part: what follows in the subjects of its chunks."""
        return f"{token(queue)}.{token(path)}.{part}.*"

    def log_chunks(self, queue: str | None = None) -> str:
        """All subjects of logs, of one queue or of every one."""
        return f"$O.{self.logs_bucket}.C.{'' if queue is None else f'{token(queue)}.'}>"

    def log_name(self, name: str) -> str:
        """The subject by which the tools of NATS's object stores find an object of any name."""
        encoded = base64.urlsafe_b64encode(name.encode("utf-8", "surrogatepass")).decode()
        return f"$O.{self.logs_bucket}.M.{encoded}"

    def log_names(self) -> str:
        return f"$O.{self.logs_bucket}.M.>"

    @staticmethod
    def place(subject: str) -> Place:
        """Read the last two tokens back from a task, result or dead-letter subject."""
        queue, dispatch_id = subject.rsplit(".", 2)[-2:]
        return Place(queue, dispatch_id)

    def for_team(self, team: str) -> Names:
        """The names of a team that sets no subject prefix of its own; distinct for every team."""
        return Names(f"{self.prefix}-{token(team, plain=PLAIN_LOWER)}")
