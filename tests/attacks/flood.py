"""An attacker with the login of a worker of queue `a` writes all that it may, as large as it may.

    python -m tests.attacks.flood

prints what that does to queue `b`, on streams without sizes, as they were once, and with them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats_executor.topology.wanted import stream_configs
from nats_executor.wire.log_parts import CHUNK_BYTES
from nats_executor.wire.sizes import HEADERS_BYTES, REPORT_BYTES
from tests.support.user_stage import KINDS, NAMES, ROOT_USER, UserStage, open_user_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.broker.port import Config
    from tests.support.raw_nats import Message, RawClient

__all__ = ["JETSTREAM", "MAX_PAYLOAD", "OPTIONS", "Harm", "flood", "harm_to_b", "unbound"]

MIB = 1024 * 1024
# As the shipped servers have it.
MAX_PAYLOAD = "max_payload: 8MB\nmax_pending: 64MB\n"
# A small deployment, so that it is filled within seconds: sizes of 64 MiB on a server with 96.
JETSTREAM = "  max_file_store: 96MB\n"
OPTIONS: dict[str, Any] = {
    "max_stream_bytes": 16 * MIB,
    "max_results_bytes": 8 * MIB,
    "max_dead_letters_bytes": 16 * MIB,
    "max_log_bucket_bytes": 8 * MIB,
}
# What is written under each subject: as large as a server takes it, and as streams take it.
SIZES = ((7 * 1000 * 1000, 15), (CHUNK_BYTES, 100), (REPORT_BYTES - HEADERS_BYTES, 300), (0, 500))
WRITTEN = (f"{NAMES.prefix}.results.", f"{NAMES.prefix}.dead.", "$KV.", "$O.")

Harm = Counter[str]
STORED = "stored"


def writable(user_stage: UserStage, user: str) -> list[str]:
    """Return the subjects with wildcards under which a user may store something."""
    granted = user_stage.grants(user).publish
    return [
        subject
        for subject in granted
        if any(part in subject for part in WRITTEN) and ".DIRECT." not in subject
    ]


def bodies() -> Iterator[bytes]:
    for size, number in SIZES:
        for _ in range(number):
            yield bytes(size)


def flood(user_stage: UserStage, user: str = "worker_a") -> Harm:
    """Write it all, each message under a subject of its own, and count the server's answers."""
    inbox = f"_INBOX_{user}"
    answers: Counter[str] = Counter()
    with user_stage.raw(user) as client:
        client.subscribe(f"{inbox}.>")
        for pattern in writable(user_stage, user):
            for number, body in enumerate(bodies()):
                subject = pattern.replace("*", f"x{number}").replace(">", f"x{number}")
                answers[asked(client, subject, body)] += 1
    return answers


def asked(client: RawClient, subject: str, body: bytes) -> str:
    """Publish and return what is said to it; a cluster that is full may say nothing at all."""
    try:
        return said(client.ask(subject, body, f"_INBOX_{client.user}.x"))
    except OSError:  # a time-out, and from then on nothing can be read
        return "no answer"


def said(answer: Message) -> str:
    """Return what a stream says to a message, a word of the server's where there is none."""
    if not answer.body:
        return answer.headers.partition("\r\n")[0]
    return str(answer.answer.get("error", {}).get("description", STORED))


def harm_to_b(user_stage: UserStage, dispatch_id: str = "after") -> Harm:
    """Have queue b send, claim, bury, tell of a worker and end; count what is refused."""
    task, result = NAMES.task("b", dispatch_id), NAMES.result("b", dispatch_id)
    harm: Counter[str] = Counter()
    with user_stage.raw("scheduler") as scheduler, user_stage.raw("worker_b") as worker:
        scheduler.subscribe("_INBOX_scheduler.>")
        worker.subscribe("_INBOX_worker_b.>")
        sent = asked(scheduler, task, b"a task")
        (presence,) = (s for s in writable(user_stage, "worker_b") if "$KV." in s)
        subjects = [result, NAMES.dead_letter("b", dispatch_id)]
        subjects.append(presence.replace("*", "b1").replace(">", "b1"))
        told = [asked(worker, subject, b"told") for subject in subjects]
        harm.update(answer for answer in (sent, *told) if answer != STORED)
        if sent == STORED:
            pull = f"{user_stage.api('worker_b')}.CONSUMER.MSG.NEXT.{NAMES.tasks_stream}.b"
            delivery = worker.ask(pull, b'{"batch": 1, "no_wait": true}', "_INBOX_worker_b.x")
            if delivery.body == b"a task":
                worker.ask(delivery.reply, b"+ACK", "_INBOX_worker_b.x")
            else:
                harm["the task is not offered"] += 1
    return harm


def unbound(user_stage: UserStage) -> None:
    """Take the sizes off all streams: so they were made before there were sizes."""

    async def change(broker: Any) -> None:
        for wanted in stream_configs(user_stage.settings(ROOT_USER, **OPTIONS)):
            config: Config = await broker.stream_config(wanted["name"])
            await broker.update_stream(config | {"max_bytes": -1, "max_msg_size": -1})

    user_stage.ask(ROOT_USER, change)


def tell(kind: str, *, is_bounded: bool) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        open_user_stage(
            Path(directory), kind, config=MAX_PAYLOAD, jetstream=JETSTREAM
        ) as user_stage,
    ):
        user_stage.set_up(**OPTIONS)
        if not is_bounded:
            unbound(user_stage)
        began = time.monotonic()
        answers = flood(user_stage)
        seconds = time.monotonic() - began
        stored = max(server.monitor("/jsz")["storage"] for server in user_stage.servers)
        harm = harm_to_b(user_stage)
        refused = answers.total() - answers[STORED]
        sys.stdout.write(
            f"{kind}, {'with' if is_bounded else 'without'} sizes: {answers.total()} messages in "
            f"{seconds:.1f} s, {refused} refused, {stored / 1e6:.0f} MB stored; "
            f"queue b: {dict(harm) or 'all well'}\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    for bounded in (False, True):
        for each in KINDS:
            tell(each, is_bounded=bounded)
