"""Pictures of a run, for docs/explanation/performance.md."""

from __future__ import annotations

import importlib
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.bench.goals import KEYS
from tests.bench.needs import Missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["draw", "draw_faults"]

# Told apart by people who see no red or green, too.
COLOURS = {
    "nats": "#0072b2", "celery": "#e69f00", "edge": "#009e73", "local": "#999999",
    "bare": "#cccccc",
}  # fmt: skip
OTHER = "#56b4e9"
# The largest bar at this many times the smallest hides the smallest.
LOGARITHMIC = 50
DPI = 110


def draw(document: Mapping[str, Any], directory: Path) -> Iterator[Path]:
    """Draw one picture for each key that compares anything; yields their paths."""
    pyplot = plotter()
    directory.mkdir(parents=True, exist_ok=True)
    for name, entry in document["keys"].items():
        for kind, bars in pictures(name, entry):
            path = directory / f"{kind}.png"
            better = "less" if kind != name or entry["better"] == "lower" else "more"
            draw_bars(pyplot, path, f"{kind}: {entry['what']}", better, bars)
            yield path
    if rows := judged(document):
        path = directory / "goals.png"
        draw_goals(pyplot, path, rows)
        yield path


def plotter() -> Any:
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError as exc:
        raise Missing("matplotlib is not installed: run this as `make bench`") from exc
    matplotlib.use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def pictures(name: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is comparable: the key's own contenders, then those of each other kind.

    The contenders of another kind, such as `start-nats`, lose the kind's name in their picture.
    """
    contenders = entry["contenders"].items()
    found = {name: {c: figures for c, figures in contenders if figures["unit"] == entry["unit"]}}
    for kind in KEYS[name].units:
        begin = f"{kind}-"
        own = {c.removeprefix(begin): f for c, f in contenders if c.startswith(begin)}
        found[f"{name}-{kind}"] = own
    yield from ((kind, bars) for kind, bars in found.items() if len(bars) > 1)


def draw_bars(pyplot: Any, path: Path, title: str, better: str, bars: Mapping[str, Any]) -> None:
    """Medians as bars, from minimum to maximum as whiskers."""
    figure, axes = pyplot.subplots(figsize=(7, 0.9 + 0.5 * len(bars)))
    labels = list(bars)[::-1]
    medians = [bars[label]["median"] for label in labels]
    # With many samples the slowest one is a matter of the p99 in the table.
    highest = [bars[label].get("p99", bars[label]["max"]) for label in labels]
    below = [m - bars[label]["min"] for m, label in zip(medians, labels, strict=True)]
    above = [max(0.0, h - m) for m, h in zip(medians, highest, strict=True)]
    colours = [COLOURS.get(label.partition("-")[0], OTHER) for label in labels]
    axes.barh(labels, medians, xerr=[below, above], color=colours, ecolor="#333333", capsize=3)
    positive = [m for m in medians if m > 0]
    if positive and max(positive) > LOGARITHMIC * min(positive):
        axes.set_xscale("log")
    for row, m in enumerate(medians):
        axes.annotate(f" {m:,.3g}" if m < 1000 else f" {m:,.0f}", (m, row), va="bottom")
    axes.margins(x=0.12)  # room for the longest bar's number
    [unit] = {figures["unit"] for figures in bars.values()}
    axes.set_xlabel(f"{unit} ({better} is better)")
    axes.set_title(title, fontsize=9)
    save(pyplot, figure, path)


def judged(document: Mapping[str, Any]) -> list[tuple[str, float, bool]]:
    """Every measured goal, with how many times over it is reached."""
    rows = []
    for name, entry in document["keys"].items():
        for goal in entry["goals"]:
            if goal["value"]:
                share = goal["value"] / goal["limit"]
                better = share if goal["bound"] == ">=" else 1 / share
                rows.append((f"{name}\n{goal['of']}", better, goal["is_met"]))
    return rows


def draw_goals(pyplot: Any, path: Path, rows: list[tuple[str, float, bool]]) -> None:
    """How far each figure is on the good side of its limit."""
    figure, axes = pyplot.subplots(figsize=(7, 0.9 + 0.42 * len(rows)))
    labels, shares, met = zip(*rows[::-1], strict=True)
    colours = [COLOURS["nats"] if is_met else COLOURS["celery"] for is_met in met]
    axes.barh(range(len(labels)), shares, color=colours)
    axes.set_yticks(range(len(labels)), labels, fontsize=6)
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times better than the goal (the line)")
    save(pyplot, figure, path)


def draw_faults(document: Mapping[str, Any], directory: Path) -> Path:
    """Draw how long each fault was felt, and what failed or was lost; return the picture's path."""
    pyplot = plotter()
    directory.mkdir(parents=True, exist_ok=True)
    bars = [bar for name, entry in document["faults"].items() for bar in fault_bars(name, entry)]
    figure, axes = pyplot.subplots(figsize=(7, 0.9 + 0.24 * len(bars)))
    labels, seconds, executors, words = zip(*bars[::-1], strict=True)
    axes.barh(range(len(bars)), seconds, color=[COLOURS[name] for name in executors])
    axes.set_yticks(range(len(bars)), labels, fontsize=6)
    for row, (length, text) in enumerate(zip(seconds, words, strict=True)):
        axes.annotate(f" {text}", (length, row), va="center", fontsize=6)
    axes.margins(x=0.2)  # room for the longest bar's words
    axes.set_xlabel("seconds from the fault until all is well (less is better)")
    axes.set_title("faults: medians; what failed or was lost in the worst round", fontsize=9)
    path = directory / "faults.png"
    save(pyplot, figure, path)
    return path


def fault_bars(name: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, float, str, str]]:
    """Yield label, seconds, executor and words of each bar; a run without an end has no length."""
    by_executor: dict[str, list[Mapping[str, Any]]] = {}
    for outcome in entry["outcomes"]:
        by_executor.setdefault(outcome["executor"], []).append(outcome)
    for executor, outcomes in by_executor.items():
        seconds = [o["seconds"] for o in outcomes]
        is_over = None not in seconds
        failed, lost = (max(o[word] for o in outcomes) for word in ("failed", "lost"))
        told = [f"{failed} failed"] * bool(failed) + [f"{lost} lost"] * bool(lost)
        words = ["no end"] * (not is_over) + told
        length = median(seconds) if is_over else 0.0
        yield f"{name}  {executor}", length, executor, ", ".join(words)


def save(pyplot: Any, figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)
