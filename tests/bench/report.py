"""From samples to figures, ratios and goals. Pure."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.bench.goals import KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tests.bench.goals import Goal, Key
    from tests.bench.sample import Sample

__all__ = [
    "INCOMPLETE",
    "MET",
    "Result",
    "as_json",
    "as_table",
    "columns",
    "dumped",
    "exit_code",
    "heading",
    "percentile",
    "results",
    "short",
]

# With fewer, a percentile says nothing that minimum and maximum do not.
MANY = 20
# What is written down of each contender at most; all of them count.
KEPT_SAMPLES = 1000

MET, MISSED, INCOMPLETE = 0, 1, 2


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "median": median,
    "min": min,
    "max": max,
    "p50": lambda values: percentile(values, 0.5),
    "p95": lambda values: percentile(values, 0.95),
    "p99": lambda values: percentile(values, 0.99),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal and what was measured; None where it could not be."""

    goal: Goal
    value: float | None

    @property
    def is_met(self) -> bool | None:
        return None if self.value is None else self.goal.is_met(self.value)


@dataclass(frozen=True)
class Result:
    """Everything about one key.

    Attributes:
        samples: by contender, in the order of measuring.
        missing: why a contender was not measured.
    """

    key: Key
    samples: Mapping[str, Sequence[float]]
    missing: Mapping[str, str] = field(default_factory=dict)

    def statistic(self, contender: str, name: str) -> float | None:
        values = self.samples.get(contender)
        return STATISTICS[name](values) if values else None

    def ratio(self, of: str) -> float | None:
        """Return the ratio of two medians, such as `nats/celery`."""
        above, below = (self.statistic(name, "median") for name in of.split("/"))
        return None if above is None or not below else above / below

    @property
    def ratios(self) -> dict[str, float]:
        """Return those of the goals, and of the first contender to each of its kind."""
        names = [goal.of for goal in self.key.goals if "/" in goal.of]
        first, *others = self.key.contenders or ("",)
        same = [o for o in others if self.key.unit_of(o) == self.key.unit_of(first)]
        names += [f"{first}/{other}" for other in same]
        found = {name: self.ratio(name) for name in names}
        return {name: ratio for name, ratio in found.items() if ratio is not None}

    @property
    def goals(self) -> list[Judged]:
        return [
            Judged(g, self.ratio(g.of) if "/" in g.of else self.statistic(g.of, g.statistic))
            for g in self.key.goals
        ]

    @property
    def is_complete(self) -> bool:
        return not self.missing and all(goal.value is not None for goal in self.goals)


def results(
    samples: Iterable[Sample], asked: Iterable[str], missing: Mapping[str, Mapping[str, str]]
) -> list[Result]:
    """Sort samples by key and contender.

    Args:
        asked: the keys, in the order of the report.
        missing: for each key the contenders that could not be measured, and why.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        found[sample.key][sample.contender].append(sample.value)
    whole = []
    for name in asked:
        key, reasons = KEYS[name], dict(missing.get(name, {}))
        measured = {c: values for c, values in found[name].items() if values}
        if not key.contenders and not measured:
            reasons.setdefault("nats", "not measured")
        for contender in key.contenders:
            if contender not in measured:
                reasons.setdefault(contender, "not measured")
        # What was measured in the first rounds and broke later is missing all the same.
        whole.append(Result(key, measured, reasons))
    return whole


def exit_code(whole: Sequence[Result]) -> int:
    """Return 1 for a missed goal, else 2 for something that was not measured, else 0."""
    if any(goal.is_met is False for result in whole for goal in result.goals):
        return MISSED
    return MET if all(result.is_complete for result in whole) else INCOMPLETE


# For scripts


def as_json(environment: Mapping[str, Any], whole: Sequence[Result]) -> dict[str, Any]:
    return {"environment": dict(environment), "keys": {r.key.name: entry(r) for r in whole}}


def entry(result: Result) -> dict[str, Any]:
    key = result.key
    return {
        "what": key.what,
        "unit": key.unit,
        "better": "higher" if key.is_more_better else "lower",
        "contenders": {
            name: figures(values, key.unit_of(name)) for name, values in result.samples.items()
        },
        "ratios": {name: rounded(ratio) for name, ratio in result.ratios.items()},
        "goals": [
            {
                "of": judged.goal.of,
                "statistic": judged.goal.statistic,
                "bound": ">=" if judged.goal.is_floor else "<=",
                "limit": judged.goal.limit,
                "value": None if judged.value is None else rounded(judged.value),
                "is_met": judged.is_met,
            }
            for judged in result.goals
        ],
        "missing": dict(result.missing),
    }


def figures(values: Sequence[float], unit: str) -> dict[str, Any]:
    names = ["median", "min", "max"] + (["p50", "p99"] if len(values) >= MANY else [])
    found: dict[str, Any] = {name: rounded(STATISTICS[name](values)) for name in names}
    step = math.ceil(len(values) / KEPT_SAMPLES)
    kept = [rounded(value) for value in values[::step]]
    return {"unit": unit, **found, "n": len(values), "samples": kept}


def rounded(value: float) -> float:
    return float(f"{value:.6g}")


# For people


def heading(where: dict[str, Any]) -> str:
    trial = "" if where["scale"] == 1 else f" A trial at {where['scale']:g} of the full size."
    versions = (
        "airflow", "celery", "edge provider", "nats-server", "redis-server", "postgresql", "python",
    )  # fmt: skip
    named = ", ".join(f"{name} {where.get(name) or 'missing'}" for name in versions)
    return f"{named}; {where['cpus']} CPUs, load before {where['load'][0]:g}.{trial}\n\n"


HEADER = ("key", "contender", "median", "spread", "n", "unit")


def as_table(whole: Sequence[Result]) -> str:
    """Return the figures, then the ratios and goals, then what is missing."""
    rows = [row for result in whole for row in rows_of(result)]
    parts = [columns([HEADER, *rows]) if rows else ""]
    judged = [row for result in whole for row in goal_rows(result)]
    parts.append(columns([("key", "goal", "measured", ""), *judged]) if judged else "")
    parts.append("\n".join(line for result in whole for line in lacks(result)))
    return "\n\n".join(part for part in parts if part) + "\n"


def lacks(result: Result) -> Iterable[str]:
    """Name contenders that lack the same thing together."""
    for reason in dict.fromkeys(result.missing.values()):
        names = ", ".join(name for name, why in result.missing.items() if why == reason)
        yield f"not measured: {result.key.name}, {names}: {reason}"


def rows_of(result: Result) -> Iterable[tuple[str, ...]]:
    name = result.key.name
    for contender, values in result.samples.items():
        spread = f"{short(min(values))} .. {short(max(values))}"
        if len(values) >= MANY:
            spread += f", p99 {short(percentile(values, 0.99))}"
        unit = result.key.unit_of(contender)
        yield name, contender, short(median(values)), spread, str(len(values)), unit
        name = ""


def goal_rows(result: Result) -> Iterable[tuple[str, ...]]:
    name = result.key.name
    for judged in result.goals:
        words = {True: "met", False: "MISSED", None: "not measured"}
        value = "-" if judged.value is None else short(judged.value)
        yield name, judged.goal.text, value, words[judged.is_met]
        name = ""
    of_goals = {judged.goal.of for judged in result.goals}
    for of, ratio in result.ratios.items():
        if of not in of_goals:
            yield name, of, short(ratio), ""
            name = ""


def short(value: float) -> str:
    """Return three digits that count, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else f"{value:.6f}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def dumped(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"
