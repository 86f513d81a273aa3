"""The outcome of a rolling restart, as tables for people or as JSON. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.chaos.report import table

if TYPE_CHECKING:
    from tests.rolling.course import Course, Result

__all__ = ["as_json", "as_text"]

MOST_SHOWN = 20


def figures(result: Result) -> dict[str, Any]:
    return {
        "tasks": result.tasks,
        "lost": result.lost,
        "tries_spent": result.tries_spent,
        "wait_p50_seconds": round(result.wait(50), 2),
        "wait_p99_seconds": round(result.wait(99), 2),
        "wait_max_seconds": round(max(result.waits, default=0.0), 2),
        "longest_wait_cause": result.longest_wait_cause,
    }


def as_json(course: Course, result: Result) -> str:
    answer = {
        "seed": course.seed,
        "seconds": course.seconds,
        **figures(result),
        "restarts": list(result.restarts),
        "violations": list(result.violations),
    }
    return json.dumps(answer, indent=2) + "\n"


def as_text(course: Course, result: Result) -> str:
    """Return the tables and the verdict."""
    parts = [table(list(result.restarts)), table([figures(result)])]
    found = result.violations
    if found:
        parts.append(table([{"violated": text} for text in found[:MOST_SHOWN]]))
    verdict = f"{len(found)} violations" if found else "no violation"
    times = sum(int(row["times"]) for row in result.restarts)
    repeat = f"repeat with --seconds {course.seconds:g} --seed {course.seed}"
    parts.append(f"{times} restarts in {course.seconds:g} s: {verdict}; {repeat}")
    return "\n\n".join(part for part in parts if part) + "\n"
