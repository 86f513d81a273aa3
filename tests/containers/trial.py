"""The expected end of the Dag `trial`, and the marks that its tasks wrote. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["ENDS", "FINAL", "TOTAL", "End", "rows", "violations"]

FINAL = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


class End(NamedTuple):
    """How the tasks of a kind end.

    Attributes:
        tries: how many it takes when nothing is killed.
    """

    tasks: int
    state: str
    tries: int


ENDS = {
    "steady": End(110, "success", 1),
    "heavy": End(40, "success", 1),
    "failing": End(20, "failed", 2),
    "flaky": End(20, "success", 2),
    "skipping": End(10, "skipped", 1),
}
TOTAL = sum(end.tasks for end in ENDS.values())


def rows(instances: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One record for each kind of task."""
    found = []
    for kind, end in ENDS.items():
        ones = [ti for ti in instances if ti["task_id"] == kind]
        found.append(
            {
                "task": kind,
                "tasks": len(ones),
                "right_state": end.state,
                "ended_so": sum(ti["state"] == end.state for ti in ones),
                "tries_needed": end.tasks * end.tries,
                "tries_spent": sum(ti["try_number"] for ti in ones),
            }
        )
    return found


def violations(instances: Sequence[Mapping[str, Any]], marks: Iterable[str]) -> list[str]:
    """What is not as it has to be: a wrong state, or a try that began twice or not at all."""
    found = []
    begun = Counter(line.removesuffix(" begin") for line in marks if line.endswith(" begin"))
    found += [f"try {what} began {count} times" for what, count in begun.items() if count > 1]
    for ti in instances:
        end = ENDS[ti["task_id"]]
        name = f"{ti['task_id']} {ti['map_index']}"
        if ti["state"] != end.state:
            found.append(f"{name} is {ti['state']}, not {end.state}")
        if not begun[f"{name} {ti['try_number']}"]:
            found.append(f"{name} never began its last try, {ti['try_number']}")
    for kind, end in ENDS.items():
        count = sum(ti["task_id"] == kind for ti in instances)
        if count != end.tasks:
            found.append(f"{count} of {kind}, not {end.tasks}")
    return found
