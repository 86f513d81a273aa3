"""Write docs/reference/subjects.md from names and topology: `make docs`."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats_executor.topology.wanted import SECOND, consumer_config, stream_configs
from nats_executor.wire.names import Lane, Names, SchedulerVerb, Verb
from tests.support.fixtures import settings_for
from tests.tools.tables import cell, table

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DESCRIBED", "document", "subjects"]

# What stands for a part of a name in the page.
PARTS: dict[str, Any] = {
    "queue": "QUEUE",
    "dispatch_id": "DISPATCH",
    "worker_id": "WORKER_ID",
    "worker": "WORKER",
    "job": "JOB",
    "path": "LOG",
    "part": "PART",
    "number": 0,
    "name": "x",
}
# Each subject that a message has, by the method of `Names` that builds it.
DESCRIBED: dict[str, str] = {
    "task": "a workload that waits or runs: `Workload`",
    "result": "the last report about a dispatch: `Report`",
    "dead_letter": "a message that no worker could handle, with the reason in its headers",
    "control": "a question or an order to one worker",
    "peer": "the ping of another worker",
    "scheduler": "a question to the executor of one scheduler",
    "presence": "the presence record of a worker in one of its queues: `Presence`",
    "older_presence": "the presence record of a worker of the release before: `Presence`",
    "queue_hold": "the note on the pause of a queue: `Hold`",
    "queue_history": "the last hour of a queue: `History`",
    "worker_hold": "the note that a worker is drained: `Drain`",
    "log_part": "the entry of a part of a stored log",
    "log_chunk": "a piece of 128 KiB of a stored log; it ends with its number",
    "log_name": "the same entry by its name, in base64, for the tools of NATS's object stores",
}
HEAD = """\
# Subjects, streams, buckets and consumers

The names of everything that this project has in NATS. `make docs` writes this page from
`nats_executor/wire/names.py` and `nats_executor/topology/wanted.py`.
[Messages](messages.md) has the fields, [Permissions](permissions.md) who may use which subject.

The names are those of `subject_prefix = airflow`. Streams begin with the prefix in capitals. A
queue, a worker or a dispatch is one token of a subject. A name of letters, digits, `_` and `-` with
at most 64 characters stays as it is. Any other name becomes a short form of it, `--`, and 32
hexadecimal digits. A higher priority band of a queue has its number behind the queue: `gpu--b1`.

"""


def document() -> str:
    """Return the whole page."""
    return "\n".join([HEAD + "## Subjects\n", subjects_table(), "", verbs(), "", topology(), ""])


def subjects() -> dict[str, str]:
    """Return the subject that each method of `DESCRIBED` builds."""
    names = Names()
    return {method: built(getattr(names, method)) for method in DESCRIBED}


def built(method: Callable[..., str]) -> str:
    wanted = inspect.signature(method).parameters
    given = {name: PARTS[name] for name in wanted if name in PARTS}
    if "verb" in wanted:
        return method(**given, verb="VERB")
    return method(**given)


def subjects_table() -> str:
    rows = [(f"`{subjects()[method]}`", text) for method, text in DESCRIBED.items()]
    return table(("subject", "message"), rows)


def verbs() -> str:
    workers = ", ".join(f"`{verb}`" for verb in Verb)
    schedulers = ", ".join(f"`{verb}`" for verb in SchedulerVerb)
    return f"A worker answers the verbs {workers}. A scheduler answers {schedulers}."


def topology() -> str:
    settings = replace(settings_for("nats://nats:4222"), stores_logs=True)
    streams = stream_configs(settings)
    rows = [
        (
            f"`{stream['name']}`",
            ", ".join(f"`{subject}`" for subject in stream["subjects"]),
            stream["retention"],
            stream["discard"],
            cell(stream["description"].removeprefix("Airflow: ")),
        )
        for stream in streams
    ]
    limits = [
        (f"`{stream['name']}`", number(stream, "max_bytes"), number(stream, "max_msg_size"),
         number(stream, "max_msgs"), age(stream))
        for stream in streams
    ]  # fmt: skip
    consumer = consumer_config(settings, Lane("QUEUE"))
    return f"""\
## Streams

`airflow nats setup` makes them. A key-value bucket is a stream whose name begins with `KV_`, an
object store one with `OBJ_`. The store of logs is there only where logs are stored in NATS.

{table(("stream", "subjects", "retention", "when full, discards", "what it holds"), rows)}

Limits with the default options; [Configuration](configuration.md) has the options that change them:

{table(("stream", "bytes", "bytes a message", "messages", "age"), limits)}

## Consumers

Each priority band of a queue has one durable pull consumer on the tasks stream. Its name is the
token of the queue, with `--b1` for the second band. All workers of the queue share it.

{table(("setting", "value"), [(f"`{key}`", f"`{value}`") for key, value in settings_of(consumer)])}
"""


def settings_of(consumer: dict[str, Any]) -> list[tuple[str, str]]:
    shown = consumer | {"ack_wait": f"{consumer['ack_wait'] // SECOND} s"}
    return [(key, str(value)) for key, value in shown.items() if key != "name"]


def number(stream: dict[str, Any], key: str) -> str:
    return f"{stream[key]:,}" if key in stream else "no limit"


def age(stream: dict[str, Any]) -> str:
    return f"{stream['max_age'] // SECOND:,} s" if "max_age" in stream else "no limit"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())
