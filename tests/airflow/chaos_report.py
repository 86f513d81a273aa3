"""The outcome of a chaos run with a real Airflow, as tables for people. Pure."""

from __future__ import annotations

import dataclasses
import json
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.chaos.report import table

if TYPE_CHECKING:
    from tests.airflow.chaos import AirflowChaosResult

__all__ = ["as_json", "as_text", "fault_rows"]

LEGEND = """\
recovered, in seconds:
  worker, supervisor and task: from it until no row is running as what ran there
  scheduler: from it until no unfinished task belongs to the dead scheduler
  API server: from its restart until it answers
  broker: from its end until all who were connected is connected again"""


def fault_rows(result: AirflowChaosResult) -> list[dict[str, Any]]:
    """One record for each kind of fault that was planned."""
    rows = []
    for kind in sorted({fault.kind for fault in result.faults} | set(result.missed)):
        ones = [fault.recovery_seconds for fault in result.faults if fault.kind == kind]
        times = [seconds for seconds in ones if seconds is not None]
        rows.append(
            {
                "fault": str(kind),
                "planned": len(ones) + list(result.missed).count(kind),
                "injected": len(ones),
                "recovered": len(times),
                "median_seconds": round(median(times), 2) if times else None,
                "maximum_seconds": round(max(times), 2) if times else None,
            }
        )
    return rows


def as_json(result: AirflowChaosResult) -> str:
    return json.dumps(dataclasses.asdict(result), default=str, indent=1) + "\n"


def as_text(result: AirflowChaosResult) -> str:
    """Return the tables with their legend and the verdict."""
    rows: dict[str, Any] = {"task_instances": sum(result.rows.values()), **result.rows}
    rows |= {"processes": result.executions, "tries_spent": result.tries_spent}
    parts = [table(fault_rows(result)), table([rows])]
    if result.violations:
        parts.append(table([{"violated": text} for text in result.violations]))
    count = len(result.violations)
    verdict = f"{count} violations" if count else "no violation"
    parts += [
        LEGEND,
        f"{len(result.faults)} faults: {verdict}; repeat with --airflow --seed {result.seed}",
    ]
    return "\n\n".join(parts) + "\n"
