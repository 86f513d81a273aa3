"""Write docs/reference/lines.md, the index of all that this product prints: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.tools.printed import RANKS, VALUE, Printed, printed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["PAGES", "document"]

TROUBLE = "../how-to/troubleshooting.md"
SECURITY = "../explanation/security.md"
HEAD = f"""# Lines

This page lists the lines that a worker, a scheduler, an API server or a command can print. Use it
to find out where a line comes from, and what to do.

1. Take a few words of your line that are neither a name nor a number.
2. Search for them on this page. `{VALUE}` stands for a name, a number, a reason or another line.
3. Follow the link in the column "what to do". Without a link, the line itself says it, or there is
   nothing to do. [Troubleshooting]({TROUBLE}) begins with what you see instead.

| kind | where you see it |
|---|---|
| log: fault | in the log of that part, with a traceback: [report it]({TROUBLE}#report-a-fault) |
| log: error, log: warning, log: info | in the log of that part. Level `info` needs no action |
| error | behind `error:` of a command that ends with exit code 1 or 2, or as a log's reason |
| `check` | in the column `details` of `airflow nats check` or `airflow nats doctor` |
| `why` | in the sentence of `airflow nats why` and of the audit log's event `nats executor waits` |
| part | in one of the lines above, in what a command prints, in the UI, or in the audit log |

`make docs` writes this page from the source of both packages.
"""
# By the module: what a reader calls it. The first that fits counts.
PARTS = (
    ("Workers", r"nats_worker\..*"),
    ("Schedulers", r"nats_executor\.scheduler\..*"),
    ("The connection to NATS, in every part", r"nats_executor\.(broker|access|retrying|errors).*"),
    ("Streams and queues in NATS", r"nats_executor\.(topology|fleet)\..*"),
    ("Options", r"nats_executor\.settings"),
    ("Task logs", r"nats_executor\.(logs\..*|remote_logs|logging_config)"),
    ("Commands", r"nats_executor\.(cli|operations)\..*"),
    ("The page in Airflow's UI", r"nats_executor\.ui\..*"),
    ("Messages that cannot be read", r"nats_executor\.(wire|text).*"),
    ("Standalone and demo", r"nats_executor\.local\..*"),
    ("Other", r"nats_executor.*"),
)
SAYS = "as the line says"
HOW = "../how-to"
# What to do: the first pattern that "KIND MODULE TEXT" fits says where. No other fits: SAYS.
PAGES: tuple[tuple[str, str, str], ...] = (
    ("report a fault", f"{TROUBLE}#report-a-fault", "log: fault"),
    ("a token is refused", f"{TROUBLE}#a-token-is-refused", r".*(jwt_secret|refuses? .*token)"),
    ("names of queues", f"{HOW}/queues.md#names", r".*\.queue_names "),
    ("names of workers", f"{TROUBLE}#names-of-workers", r".*(--hostname|--serving)"),
    ("who writes there", f"{SECURITY}#what-readers-take-in", r".*(see who|[Uu]nreadable)"),
    (
        "who writes there",
        f"{SECURITY}#what-readers-take-in",
        r".*executor\.wire\..*(more than|nest)",
    ),
    ("dead letters", f"{HOW}/rescue-dead-letters.md", r".*(dead letter|dead-letters)"),
    ("dead letters", f"{HOW}/rescue-dead-letters.md", r".*(wire\.messages|delivery\.arrival) "),
    ("tested versions", "tested-versions.md", r".*this Airflow (has|cannot|forks)"),
    ("logs", f"{HOW}/logs.md", r".*executor\.(logs|remote_logs|logging_config)\b"),
    ("logs", f"{HOW}/logs.md", r".*(worker\.uploads|upload_requests|control\.logs|log_server)"),
    ("metrics", f"{HOW}/observability.md", r".*(metrics?[ .]|statsd|otel)"),
    ("memory", "../explanation/queues.md#memory", r".*memory_guard "),
    ("drain", f"{HOW}/drain-a-host.md", r".*(drain|[Ii]dleness)"),
    ("pause", f"{HOW}/pause-for-maintenance.md", r".*(is paused|queues resume)"),
    ("a lost server", f"{HOW}/recover-a-nats-server.md", r".*(quorum|offline|servers have)"),
    ("certificates", f"{HOW}/rotate-credentials.md#tls-certificates", r".*(certificate|renew it)"),
    (
        "logins",
        f"{HOW}/rotate-credentials.md#nats-users",
        r".*(nkey|credentials|NATS at .* refuses)",
    ),
    ("grants", "permissions.md", r".*NATS does not allow"),
    ("a full stream", f"{TROUBLE}#lines-about-nats", r".*(max_|full,|set a smaller|NATS error)"),
    (
        "what setup does",
        f"{HOW}/upgrading.md#what-setup-does-to-what-is-there",
        r".*(topology|nats setup)",
    ),
    ("why a task waits", f"{TROUBLE}#why-is-a-task-still-queued", r".*operations\.reasons "),
    (
        "why a task waits",
        f"{TROUBLE}#why-is-a-task-still-queued",
        r".*(no worker serves|taken back|\.stuck )",
    ),
    (
        "probes",
        f"{TROUBLE}#does-a-queue-work",
        r".*(probing|probe_silence|delivery\.probes|a probe)",
    ),
    (
        "`check` is red",
        f"{TROUBLE}#check-is-red",
        r".*operations\.(diagnoses|doctoring|survey|demands)",
    ),
    ("options", "configuration.md", r".*executor\.settings "),
    ("who may do what", f"{HOW}/ui.md#who-may-do-what", r".*executor\.ui\.access"),
    (
        "a task failed at once",
        f"{TROUBLE}#a-task-failed-at-once",
        r".*(verdict|processes\.memory|inspector) ",
    ),
    (
        "a task failed at once",
        f"{TROUBLE}#a-task-failed-at-once",
        r".*(whereabouts|scheduler\.executor .*NATS)",
    ),
    (
        "self-test",
        f"{TROUBLE}#a-worker-that-takes-no-workloads",
        r".*(fitness|proof|self_test|linux) ",
    ),
    (
        "given back",
        f"{TROUBLE}#tasks-that-a-worker-gives-back",
        r".*(worker\.(delivery|crew|api)|fork|gave it back)",
    ),
    ("`/readyz`", f"{HOW}/observability.md", r".*worker\.health"),
    (
        "NATS does not answer",
        f"{TROUBLE}#nats-does-not-answer",
        r".*(executor\.(broker|retrying)|intake)",
    ),
    (
        "NATS does not answer",
        f"{TROUBLE}#nats-does-not-answer",
        r".*scheduler\.(streams|dispatcher|upkeep) ",
    ),
    (
        "NATS does not answer",
        f"{TROUBLE}#nats-does-not-answer",
        r".*(waiting for NATS|workloads stay queued)",
    ),
)


def document() -> str:
    """Return the whole page."""
    found = list(printed())
    lines = [HEAD]
    for title, modules in PARTS:
        its = [text for text in found if re.fullmatch(modules, text.module)]
        found = [text for text in found if text not in its]
        lines += section(title, its)
    return "\n".join(lines)


def section(title: str, texts: Sequence[Printed]) -> Iterator[str]:
    """Yield a part of the page, what needs a person first."""
    yield f"## {title}\n"
    yield "| line | kind | module | what to do |\n|---|---|---|---|"
    for text in sorted(texts, key=lambda text: (RANKS[text.kind], text)):
        yield f"| {code(text.text)} | {text.kind} | `{text.module}` | {remedy(text)} |"
    yield ""


def remedy(text: Printed) -> str:
    """Return the place that says what to do about a text, as a link if it is not the text."""
    whole = f"{text.kind} {text.module} {text.text}"
    links = (f"[{label}]({to})" for label, to, pattern in PAGES if re.match(pattern, whole))
    return next(links, SAYS)


def code(text: str) -> str:
    """Return a text as code in a cell of a table."""
    text = text.replace("|", r"\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())
