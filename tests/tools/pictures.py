"""Draws the pictures of README and docs from the code's own names, and the badges.

Run as `python -m tests.tools.pictures`; `make pictures` takes the screenshots as well.
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from nats_executor.scheduler.executor import NatsExecutor
from nats_executor.wire.messages import State
from nats_executor.wire.names import Names
from tests.tools.boundaries import ROOT
from tests.tools.drawing import Drawing
from tests.tools.installing import is_released

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["IMAGES", "pictures"]

IMAGES = ROOT / "docs/images"
RECORD = ROOT / "tests/tested.json"
NAMES = Names()
# Tokens that stay as they are, and what the pictures show in their place.
SHOWN = {"QUEUE": "<queue>", "DISPATCH": "<dispatch id>"}
WORKER = "airflow nats worker"


def shown(subject: str) -> str:
    for name, text in SHOWN.items():
        subject = subject.replace(name, text)
    return subject


TASKS = shown(NAMES.task("QUEUE", "DISPATCH"))
RESULTS = shown(NAMES.result("QUEUE", "DISPATCH"))
DEAD_LETTERS = shown(NAMES.dead_letter("QUEUE", "DISPATCH"))


def architecture() -> Drawing:
    """Draw the processes, and what goes between them."""
    drawing = Drawing(960, 430, "Scheduler, NATS, workers, API server, and what goes between them")
    draw_broker(drawing)
    draw_scheduler(drawing)
    draw_worker(drawing)
    drawing.rect(300, 345, 370, 66)
    drawing.text(316, 368, "airflow api-server", "title")
    drawing.lines(316, 389, ("Execution API, the page Admin > NATS, logs", "faint"))
    drawing.arrow((485, 309), (485, 343), both=True)
    drawing.text(495, 331, "logs, orders, tables", "faint")
    drawing.arrow((846, 309), (846, 378), (672, 378))
    drawing.text(836, 370, "start, state, XCom: HTTP", "faint", "end")
    return drawing


def draw_scheduler(drawing: Drawing) -> None:
    drawing.rect(20, 20, 190, 170)
    drawing.text(36, 44, "airflow scheduler", "title")
    drawing.rect(36, 60, 158, 112, "part")
    drawing.lines(
        48, 84, (NatsExecutor.__name__, "title"), ("sends workloads,", "faint"),
        ("reads reports;", "faint"), ("one thread for NATS", "faint"),
    )  # fmt: skip
    drawing.rect(20, 345, 190, 66)
    drawing.lines(36, 368, ("PostgreSQL", "title"), ("Airflow's database", "faint"))
    drawing.arrow((115, 192), (115, 343), both=True)
    drawing.arrow((298, 378), (212, 378), both=True)
    drawing.arrow((196, 92), (314, 92))
    drawing.text(255, 84, "workloads", "faint", "middle")
    drawing.arrow((314, 164), (196, 164))
    drawing.text(255, 156, "reports", "faint", "middle")


def draw_broker(drawing: Drawing) -> None:
    drawing.rect(300, 20, 370, 287)
    drawing.text(316, 44, "nats-server, or a cluster: JetStream", "title")
    streams = (
        (NAMES.tasks_stream, TASKS, "until the ack; a durable consumer for each queue"),
        (NAMES.results_stream, RESULTS, "the last report of each dispatch; claims"),
        (NAMES.dead_letters_stream, DEAD_LETTERS, "what no worker could read, with its reason"),
    )
    for number, (name, subject, what) in enumerate(streams):
        top = 56 + 72 * number
        drawing.rect(316, top, 338, 66, "part")
        drawing.lines(328, top + 20, (name, "title"), (subject, "name"), (what, "faint"))
    drawing.text(316, 292, "workers, pauses:", "faint")
    drawing.text(656, 292, f"{NAMES.workers_bucket}, {NAMES.holds_bucket}", "name", "end")


def draw_worker(drawing: Drawing) -> None:
    drawing.rect(752, 20, 188, 287)
    drawing.text(766, 44, WORKER, "title")
    parts = (
        ("main process", "pulls, claims, acks"), ("fork server", "has imported Airflow"),
        ("supervisor", "Airflow's own"), ("task", "your code"),
    )  # fmt: skip
    for number, (name, what) in enumerate(parts):
        top = 56 + 63 * number
        drawing.rect(766, top, 160, 48, "part")
        drawing.lines(778, top + 20, (name, "title"), (what, "faint"))
        if number:
            drawing.arrow((846, top - 15), (846, top - 2))
    drawing.arrow((656, 74), (764, 74))
    drawing.text(710, 66, "pull", "faint", "middle")
    drawing.arrow((764, 96), (700, 96), (700, 164), (656, 164))
    drawing.text(706, 128, "reports", "faint")


# Each step: from lane to lane (the same: it happens there), and what happens.
LANES = ("scheduler", "NATS", "worker", "API server")
STEPS: tuple[tuple[int, int, str, str], ...] = (
    (0, 0, "stores the id with the state queued", ""),
    (0, 1, "sends the workload", TASKS),
    (1, 2, "pulled by a free slot", NAMES.tasks_stream),
    (2, 1, State.CLAIMED, "only one claim wins"),
    (2, 2, "a process forks for it", ""),
    (2, 3, "asks for the start", "PATCH .../run, with the token"),
    (2, 1, State.RUNNING, RESULTS),
    (1, 0, "reads the report", ""),
    (2, 3, "heartbeats, XCom, variables", ""),
    (2, 1, "keeps the message", "three times in ack_wait_seconds"),
    (2, 3, "stores the end", "PATCH .../state"),
    (2, 1, f"{State.SUCCESS} or {State.FAILED}", RESULTS),
    (2, 1, "ack", "the message leaves the queue"),
    (1, 0, "an event; the slot is free", ""),
)


def life_of_a_task() -> Drawing:
    """Draw the steps of a task from `queued` to its end."""
    height = 84 + 46 * len(STEPS)
    drawing = Drawing(960, height, "The steps of a task, from the scheduler to its end")
    columns = (90, 380, 670, 890)
    for x, name in zip(columns, LANES, strict=True):
        drawing.life(x, 56, height - 14)
        drawing.rect(x - 60, 18, 120, 36)
        drawing.text(x, 41, name, "title", "middle")
    for number, (start, end, what, detail) in enumerate(STEPS, start=1):
        draw_step(drawing, (number, columns[start], columns[end]), what, detail)
    return drawing


def draw_step(drawing: Drawing, step: tuple[int, int, int], what: str, detail: str) -> None:
    number, start, end = step
    y = 52 + 46 * number
    if start == end:
        drawing.mark(start, y - 4, number)
        drawing.text(start + 16, y, what)
        return
    side = 1 if end > start else -1
    drawing.arrow((start + 9 * side, y), (end - 2 * side, y))
    drawing.mark(start, y, number)
    drawing.text((start + end) // 2, y - 6, what, "", "middle")
    if detail:
        drawing.text((start + end) // 2, y + 15, detail, kind_of(detail), "middle")


def kind_of(detail: str) -> str:
    return "name" if detail.startswith((f"{NAMES.prefix}.", NAMES.prefix.upper())) else "faint"


def badge(label: str, value: str) -> str:
    """Draw a label and its value, readable on light and on dark."""
    left, right = 14 + 7 * len(label), 14 + 7 * len(value)
    sizes = f'width="{left + right}" height="20"'
    grey, font = 'fill="#444c56"', "font-family=\"Verdana, 'DejaVu Sans', sans-serif\""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {sizes} role="img">',
        f"<title>{escape(label)}: {escape(value)}</title>",
        f'<rect {sizes} rx="3" fill="#0550ae"/>',
        f'<path d="M3 0h{left - 3}v20h-{left - 3}a3 3 0 0 1 -3 -3v-14a3 3 0 0 1 3 -3z" {grey}/>',
        f'<g fill="#fff" {font} font-size="11" text-anchor="middle">',
        f'<text x="{left / 2:g}" y="14">{escape(label)}</text>',
        f'<text x="{left + right / 2:g}" y="14">{escape(value)}</text>',
        "</g>",
        "</svg>\n",
    ])  # fmt: skip


def minors(versions: Iterable[str]) -> list[str]:
    """Return versions without their last parts, in order."""
    found = {tuple(int(part) for part in version.split(".")[:2]) for version in versions}
    return [f"{major}.{minor}" for major, minor in sorted(found)]


def badges() -> dict[str, str]:
    """Return what pyproject says of this release, and what has passed by the record."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = [row for row in json.loads(RECORD.read_text()) if row["passed"] and not row["failed"]]
    return {
        "version": project["version"] if is_released() else f"{project['version']}, unreleased",
        "airflow": " | ".join(minors(row["airflow"] for row in rows)),
        "python": " | ".join(minors(row["python"] for row in rows)),
        "license": project["license"],
    }


def pictures() -> dict[str, str]:
    """Return each picture by the name of its file in `docs/images`."""
    whole = architecture()
    return {
        "architecture-light.svg": whole.svg("light"),
        "architecture-dark.svg": whole.svg("dark"),
        "life-of-a-task.svg": life_of_a_task().svg("auto"),
    } | {f"badge-{label}.svg": badge(label, value) for label, value in badges().items()}


def main() -> None:
    for name, text in pictures().items():
        (IMAGES / name).write_text(text)


if __name__ == "__main__":
    main()
