"""Measure what much of each thing costs: `python -m tests.limits`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.environment import environment
from tests.limits.measures import MEASURES, run
from tests.tools.boundaries import ROOT
from tests.tools.document_limits import RECORD

EPILOG = """\
examples:
  python -m tests.limits                              everything: build/limits.json
  python -m tests.limits --only queues --scale 0.1    a trial
  python -m tests.limits --record                     and tests/limits.json; then run `make docs`

Figures are processor seconds, bytes and counts, which a busy machine changes little. The record
says how busy it was.
"""


def main() -> int:
    options = parse()
    logging.getLogger("nats_executor").setLevel(logging.WARNING)
    document: dict[str, Any] = {"machine": environment(rounds=1, scale=options.scale), "steps": {}}
    for name in options.only or MEASURES:
        document["steps"][name] = list(steps_of(name, options.scale))
        write(options.output, document)
    if options.record:
        known = json.loads((ROOT / RECORD).read_text()) if (ROOT / RECORD).exists() else {}
        steps = known.get("steps", {}) | document["steps"]
        machine = {
            name: document["machine"][name]
            for name in ("at", "commit", "cpus", "cpu", "memory_gb", "python", "nats-server")
        }
        write(ROOT / RECORD, {"machine": machine, "steps": steps})
    return 0


def steps_of(name: str, scale: float) -> Any:
    measure = MEASURES[name]
    for full in measure.sizes:
        size = full if "payload" in name else max(1, int(full * scale))
        directory = Path(tempfile.mkdtemp(prefix="airflow-nats-limits-"))
        began, load = time.monotonic(), os.getloadavg()[0]
        sys.stderr.write(f"{name}: {size} {measure.what} ...\n")
        try:
            found: dict[str, Any] = {"size": size, "load": round(load, 1)}
            try:
                found["figures"] = run(measure, size, directory / "nats")
            except Exception as exc:  # noqa: BLE001 - the other steps go on
                found["failed"] = f"{type(exc).__name__}: {exc}"
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        found["seconds"] = round(time.monotonic() - began, 1)
        sys.stderr.write(f"  {json.dumps(found)}\n")
        yield found


def write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.limits",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", default=[], choices=tuple(MEASURES))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--output", type=Path, default=ROOT / "build/limits.json", metavar="FILE")
    parser.add_argument("--record", action="store_true", help=f"also replace these in {RECORD}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
