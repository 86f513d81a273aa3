"""Write what each user of a deployment may do into a page, in words: `make docs`.

A subject that is granted and has no words here is an error, so that nothing is granted unsaid.
`tests/attacks/test_permission_table.py` holds real servers to what the page says.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from nats_executor.access.accounts import HUB
from nats_executor.access.permissions import Permissions, Role, permissions
from nats_executor.wire.names import Lane, Names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["LANES", "NAMES", "document", "documented", "grouped", "is_match", "words"]

NAMES = Names()
QUEUE = "gpu"
LANES = [Lane(QUEUE, band) for band in range(3)]
API = r"\$JS(\.hub)?\.API"
# In the order of the page. The first pattern that a subject fits says what it is for.
PUBLISHED: tuple[tuple[str, str], ...] = (
    (r"airflow\.tasks\..*", "send workloads"),
    (r"airflow\.results\.>", "report, for any queue"),
    (r"airflow\.results\..*", "report what became of workloads of its queues"),
    (r"airflow\.dead\.>", "bury workloads of any queue as dead letters"),
    (r"airflow\.dead\..*", "bury workloads of its queues as dead letters"),
    (rf"{API}\.CONSUMER\.MSG\.NEXT\.AIRFLOW_TASKS\..*", "pull workloads of its queues"),
    (r"\$JS\.ACK\..*", "ack, renew and hand back what it has pulled"),
    (rf"{API}\.DIRECT\.GET\.AIRFLOW_TASKS(\.airflow\.tasks\.>)?", "look up any workload"),
    (rf"{API}\.DIRECT\.GET\.AIRFLOW_TASKS\..*", "look up a workload of its queues"),
    (rf"{API}\.DIRECT\.GET\.AIRFLOW_RESULTS(\.airflow\.results\.>)?", "look up any report"),
    (rf"{API}\.DIRECT\.GET\.AIRFLOW_RESULTS\..*", "look up a report of its queues"),
    (rf"{API}\.DIRECT\.GET\.AIRFLOW_DEAD_LETTERS.*", "read dead letters"),
    (rf"{API}\.DIRECT\.GET\.KV_airflow_workers", "look up workers' presence records"),
    (
        rf"{API}\.DIRECT\.GET\.KV_airflow_holds",
        "look up who paused a queue or drained a worker, and the last hour of queues",
    ),
    (rf"{API}\.DIRECT\.GET\.KV_airflow_holds\..*", "look up who drained workers of its queues"),
    (rf"{API}\.DIRECT\.GET\.KV_.*", "look up presence records of its queues, and older ones"),
    (rf"{API}\.DIRECT\.GET\.OBJ_airflow_logs.*", "read stored logs"),
    (rf"{API}\.STREAM\.MSG\.GET\..*", "read any message of a stream"),
    (rf"{API}\.STREAM\.MSG\.DELETE\..*", "take workloads back"),
    (rf"{API}\.CONSUMER\.CREATE\.AIRFLOW_RESULTS.*", "follow all reports"),
    (rf"{API}\.CONSUMER\.MSG\.NEXT\.AIRFLOW_RESULTS\..*", "follow all reports"),
    (rf"{API}\.STREAM\.INFO\..*", "see a stream's settings, counters and subjects"),
    (rf"{API}\.INFO", "see how full the account is"),
    (rf"{API}\.CONSUMER\.(LIST|INFO|NAMES)\..*", "see the queues' settings and counters"),
    (rf"{API}\.CONSUMER\.CREATE\.AIRFLOW_TASKS\..*", "make and change the consumers of queues"),
    (rf"{API}\.CONSUMER\.(PAUSE|RESUME|DELETE)\..*", "pause and resume the consumers of queues"),
    (rf"{API}\.STREAM\.(CREATE|UPDATE)\..*", "make and change the streams"),
    (rf"{API}\.STREAM\.PURGE\..*", "purge a stream"),
    (rf"{API}\.STREAM\.(DELETE|RESTORE)\..*", "delete a stream"),
    (rf"({API}\.)?\$KV\.airflow_workers\.>", "write presence records, for any queue"),
    (rf"({API}\.)?\$KV\.airflow_workers\..*", "write presence records of its queues"),
    (
        rf"({API}\.)?\$KV\.airflow_holds\.history\.\*",
        "write down what queues were like in the last hour",
    ),
    (rf"({API}\.)?\$KV\.airflow_holds\.>", "write down who pauses a queue or drains a worker"),
    (r"airflow\.peers\.\*", "ask other workers whether they live"),
    (r"airflow\.ctl\.\*\.ping", "ask workers whether they live"),
    (r"airflow\.ctl\.\*\.stop", "stop what a worker runs"),
    (r"airflow\.ctl\.\*\.describe", "ask workers what they run"),
    (r"airflow\.ctl\.\*\.log", "ask a worker for the log of what it runs"),
    (r"airflow\.ctl\.\*\.[a-z-]+", "give orders to workers"),
    (r"airflow\.schedulers\.\*\.state", "ask schedulers how it stands with them"),
    (r"airflow\.schedulers\.\*\.probe", "have schedulers send probes through queues"),
    (r"\$O\.airflow_logs\.C\.>", "store logs, for any queue"),
    (r"\$O\.airflow_logs\.C\..*", "store logs of its queues"),
    (r"\$O\.airflow_logs\.M\..*", "name stored logs for NATS's own tools"),
    (r"_INBOX_.*", "answer those who ask its workers"),
)
SUBSCRIBED: tuple[tuple[str, str], ...] = (
    (r"_INBOX_.*", "hear the answers to what it has asked"),
    (r"airflow\.ctl\.\*\.\*", "hear what workers are asked"),
    (r"airflow\.peers\.\*", "hear what workers ask each other"),
    (r"airflow\.schedulers\.\*\.\*", "hear what schedulers are asked"),
)
ANSWERS = "answer each question once, within a minute, to wherever the asker wants the answer"
HEAD = """# Permissions

`make docs` writes this page from `nats_executor/access/permissions.py`: what each NATS user may do,
as `airflow nats auth` prints it, a part for each role. Everything else is denied.
[security.md](../explanation/security.md) says why, and what this does not cover.

`tests/attacks/test_permission_table.py` tries every user on real servers (`make test-matrix`). It
has more than a thousand subjects of streams, buckets, JetStream's API, control verbs, acks and
inboxes. It publishes, subscribes and answers, in one account, in accounts and in a cluster of
three. It fails if a server allows more or less than this page says.

The names are those of `subject_prefix = airflow`; the worker and the site serve the queue `gpu`,
with three priority bands. A user's inbox is named after it. Where workers have accounts of their
own, `$JS.API` is `$JS.lent.API` for them, and presence is written below that.
"""


def documented(role: Role, inbox: str = "") -> Permissions:
    """Return what the page says that a role may do."""
    serves = role in {Role.WORKER, Role.SITE}
    domain = HUB if role is Role.SITE else None
    lanes: Sequence[Lane] = LANES if serves else ()
    return permissions(role, NAMES, inbox or f"_INBOX_{role}", lanes=lanes, domain=domain)


def is_match(pattern: str, subject: str) -> bool:
    """Whether a server takes a subject for one of a pattern's.

    Where the subject is itself a pattern, as in a subscription, its wildcards are tokens like any
    other.
    """
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(given) >= len(wanted) and is_same(wanted[:-1], given)
    return len(given) == len(wanted) and is_same(wanted, given)


def is_same(wanted: Sequence[str], given: Sequence[str]) -> bool:
    return all(one in {"*", other} for one, other in zip(wanted, given, strict=False))


def words(table: Sequence[tuple[str, str]], subject: str) -> str:
    """Return what a granted subject is for.

    Raises:
        LookupError: the table does not say so.
    """
    for pattern, text in table:
        if re.fullmatch(pattern, subject):
            return text
    raise LookupError(f"{subject} is granted: say what for, in {__name__}")


def grouped(table: Sequence[tuple[str, str]], subjects: Sequence[str]) -> dict[str, list[str]]:
    """Return subjects by what they are for, in the order of the table."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for subject in subjects:
        found[words(table, subject)].append(subject)
    order = list(dict.fromkeys(text for _, text in table))
    return {text: found[text] for text in order if text in found}


def document() -> str:
    return "\n".join([HEAD, *overview(), *(line for role in Role for line in section(role))])


def overview() -> Iterator[str]:
    """Who may do what, without the subjects."""
    granted = {role: documented(role) for role in Role}
    yield "| may | " + " | ".join(f"`{role}`" for role in Role) + " |"
    yield "|---" * (len(granted) + 1) + "|"
    for table, kind in ((PUBLISHED, "publish"), (SUBSCRIBED, "subscribe")):
        said = {role: grouped(table, getattr(found, kind)) for role, found in granted.items()}
        for text in dict.fromkeys(text for _, text in table):
            marks = ["yes" if text in said[role] else "" for role in Role]
            if any(marks):
                yield f"| {text} | {' | '.join(marks)} |"
    marks = ["yes" if granted[role].answers else "" for role in Role]
    yield f"| {ANSWERS} | {' | '.join(marks)} |"
    yield ""


def section(role: Role) -> Iterator[str]:
    found = documented(role)
    yield f"## `{role}`\n"
    yield "| may | | subjects |\n|---|---|---|"
    for table, kind in ((PUBLISHED, "publish"), (SUBSCRIBED, "subscribe")):
        for text, subjects in grouped(table, getattr(found, kind)).items():
            yield f"| {text} | {kind} | {'<br>'.join(f'`{subject}`' for subject in subjects)} |"
    if found.answers:
        yield f"| {ANSWERS} | publish | the reply subject of a message that it got |"
    yield ""


def main() -> None:
    Path(sys.argv[1]).write_text(document())


if __name__ == "__main__":
    main()
