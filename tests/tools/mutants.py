"""Put small faults into modules that only decide, and see whether their tests notice.

A mutant is a module with one small fault. Tests that fail kill it; a survivor shows a decision that
no test looks at, or is no fault at all: then tests/mutants.json says why. Each mutant runs in a
process that is forked from one that has loaded everything else, and no file is changed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import importlib.util
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import TYPE_CHECKING, Any, Self

from tests.tools.boundaries import PACKAGES, ROOT, dotted

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ["EXPLAINED", "TESTS", "Mutant", "explanations", "main"]

EXPLAINED = ROOT / "tests/mutants.json"
MAKER = ROOT / ".mutants/bin/python", ROOT / "tests/tools/mutations.py"
# Modules that are loaded before pytest starts are not rewritten, and these failures are not read.
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
# Each mutant is tried on the same examples; a failing one is not made smaller.
PROFILE = "--hypothesis-profile=mutants"
# A mutant may make a loop endless: it is killed after this many times the time of the real module.
# On a busy machine that may hit one that would have survived, so each of these is told.
PATIENCE, LEAST_SECONDS = 5, 10.0
LATE = {"code": "late"}

# What kills the mutants of each module, the fastest sufficient tests.
TESTS = {
    "nats_executor/scheduler/ledger.py": (
        "tests/scheduler/test_ledger.py",
        "tests/scheduler/test_ledger_claims.py",
    ),
    "nats_worker/delivery/arrival.py": ("tests/worker/delivery/test_arrival.py",),
    "nats_worker/delivery/claims.py": (
        "tests/worker/delivery/test_claims.py",
        "tests/worker/delivery/test_last_reports.py",
    ),
    "nats_worker/delivery/verdict.py": (
        "tests/worker/delivery/test_verdict.py",
        "tests/worker/delivery/test_verdict_bounds.py",
    ),
    "nats_executor/wire/names.py": (
        "tests/wire/test_names.py",
        "tests/wire/test_name_forms.py",
    ),
    "nats_executor/wire/messages.py": (
        "tests/wire/test_message_bounds.py",
        "tests/wire/test_messages.py",
        "tests/wire/test_descriptions.py",
        "tests/wire/test_history.py",
    ),
    "nats_executor/access/permissions.py": (
        "tests/access/test_permissions.py",
        "tests/access/test_grants.py",
    ),
    "nats_executor/access/accounts.py": ("tests/access/test_accounts.py",),
    "nats_executor/topology/drift.py": (
        "tests/topology/test_drift.py",
        "tests/topology/test_differences.py",
    ),
    "nats_executor/topology/wanted.py": ("tests/topology/test_wanted.py",),
    "nats_executor/topology/room.py": ("tests/topology/test_room.py",),
    "nats_executor/topology/storage.py": ("tests/topology/test_storage.py",),
    "nats_executor/topology/several.py": ("tests/topology/test_several.py",),
    "nats_executor/topology/setup.py": (
        "tests/topology/test_number_of_copies.py",
        "tests/contract/test_topology.py",
        "tests/contract/test_topology_changes.py",
    ),
    "nats_executor/scheduler/strays.py": ("tests/scheduler/test_strays.py",),
    "nats_executor/scheduler/stuck.py": ("tests/scheduler/test_why_stuck.py",),
    "nats_executor/scheduler/evidence.py": (
        "tests/scheduler/test_evidence.py",
        "tests/scheduler/test_evidence_properties.py",
    ),
    "nats_executor/scheduler/confirmations.py": ("tests/scheduler/test_confirmations.py",),
    "nats_executor/scheduler/whereabouts.py": ("tests/scheduler/test_whereabouts.py",),
    "nats_executor/pacing.py": ("tests/test_retrying.py",),
    "nats_executor/retrying.py": ("tests/test_retrying.py",),
    "nats_executor/broker/port.py": ("tests/broker/test_port.py",),
    "nats_executor/broker/pull_times.py": ("tests/broker/test_pull_times.py",),
    "nats_executor/broker/quorum.py": ("tests/broker/test_quorum_bounds.py",),
    "nats_executor/broker/replies.py": (
        "tests/broker/test_replies.py",
        "tests/broker/test_occupied.py",
    ),
    "nats_executor/broker/releases.py": ("tests/broker/test_releases.py",),
    "nats_executor/broker/servers.py": (
        "tests/broker/test_servers.py",
        "tests/broker/test_server_rounds.py",
    ),
    "nats_executor/broker/link.py": ("tests/broker/test_link.py",),
    "nats_executor/wire/bounds.py": ("tests/wire/test_edges.py", "tests/wire/test_bounds.py"),
    "nats_executor/wire/coordinates.py": ("tests/wire/test_coordinates.py",),
    "nats_executor/wire/descriptions.py": ("tests/wire/test_descriptions.py",),
    "nats_executor/wire/fitting.py": (
        "tests/wire/test_fitting.py",
        "tests/wire/test_edges.py",
        "tests/wire/test_descriptions.py",
    ),
    "nats_executor/wire/log_pages.py": ("tests/wire/test_log_bounds.py",),
    "nats_executor/wire/scheduler_answers.py": ("tests/wire/test_scheduler_answers.py",),
    "nats_executor/wire/log_parts.py": (
        "tests/wire/test_log_bounds.py",
        "tests/wire/test_log_parts.py",
    ),
    "nats_executor/wire/queue_names.py": (
        "tests/wire/test_queue_names.py",
        "tests/wire/test_queue_texts.py",
    ),
    "nats_executor/wire/history.py": ("tests/wire/test_history.py",),
    "nats_executor/wire/redaction.py": ("tests/wire/test_redaction.py",),
    "nats_executor/wire/sizes.py": ("tests/wire/test_sizes.py",),
    "nats_executor/fleet/letters.py": ("tests/fleet/test_letters.py",),
    "nats_executor/fleet/rates.py": ("tests/fleet/test_rates.py",),
    "nats_executor/fleet/presences.py": (
        "tests/fleet/test_presences.py",
        "tests/fleet/test_record_keys.py",
    ),
    "nats_worker/api/answers.py": ("tests/worker/api/test_answers.py",),
    "nats_worker/processes/endings.py": ("tests/worker/processes/test_endings.py",),
    "nats_worker/processes/fitness.py": ("tests/worker/processes/test_fitness.py",),
    "nats_worker/processes/exit_report.py": ("tests/worker/processes/test_exit_report.py",),
    "nats_worker/intake/bands.py": (
        "tests/worker/intake/test_bands.py",
        "tests/worker/intake/test_slot_bounds.py",
    ),
    "nats_worker/intake/slots.py": (
        "tests/worker/intake/test_slots.py",
        "tests/worker/intake/test_slot_bounds.py",
    ),
    "nats_executor/cli/durations.py": ("tests/cli/test_durations.py",),
    "nats_executor/local/expected.py": ("tests/local/test_outcome.py",),
    "nats_executor/local/telling_line.py": ("tests/local/test_telling_line.py",),
    "nats_executor/operations/board.py": ("tests/operations/test_board.py",),
    "nats_executor/operations/facts.py": ("tests/operations/test_reasons.py",),
    "nats_executor/migration/chart.py": (
        "tests/migration/test_chart.py",
        "tests/migration/test_translating.py",
    ),
    "nats_executor/migration/command_lines.py": ("tests/migration/test_command_lines.py",),
    "nats_executor/migration/counterparts.py": (
        "tests/migration/test_page.py",
        "tests/migration/test_translating.py",
    ),
    "nats_executor/migration/dag_uses.py": ("tests/migration/test_dag_uses.py",),
    "nats_executor/migration/translating.py": ("tests/migration/test_translating.py",),
    "nats_executor/migration/verbs.py": (
        "tests/migration/test_command_lines.py",
        "tests/migration/test_translating.py",
    ),
    "nats_executor/operations/reasons.py": ("tests/operations/test_reasons.py",),
    "nats_executor/text.py": ("tests/test_text.py",),
    "nats_executor/batches.py": ("tests/test_text.py",),
    "nats_executor/errors.py": ("tests/test_text.py",),
    "nats_executor/settings.py": ("tests/test_settings.py", "tests/test_setting_bounds.py"),
    "nats_executor/option.py": ("tests/test_settings.py", "tests/test_setting_bounds.py"),
    "nats_executor/options.py": ("tests/test_setting_bounds.py", "tests/test_settings.py"),
}

# Most of its tests are of the contract, and also run on real servers: the fake one is quick.
ON_THE_FAKE = {"nats_executor/topology/setup.py": ("-k", "fake or test_number_of_copies")}

EXAMPLES = """\
examples:
  make mutants ARGS=nats_executor/scheduler/ledger.py
      Try each mutant of one module; takes from some seconds to a few minutes.

  make mutants ARGS="nats_executor/wire/names.py nats_worker/delivery/claims.py"
      Two modules, and a line for both at the end.

  make mutants
      Every module of the table; half an hour on two idle cores.

  make mutants ARGS="--list"
      Show the modules, and which tests answer for each.

  make mutants ARGS="--only 'Ledger.renew' nats_executor/scheduler/ledger.py"
      Try only what lies in functions and classes of that name.

A survivor is printed like this:
  - Ledger.is_stale: `age > limit` -> `age >= limit`
Write a test that fails for it. If no test can tell the two apart, copy the line into
tests/mutants.json with a reason.

exit codes:
  0  every survivor is explained
  1  there is an unexplained survivor
  2  the module is not in the table, or its tests fail without a mutant
"""


@dataclass(frozen=True)
class Mutant:
    """One small fault in a module.

    Attributes:
        where: the function or class, dotted; empty at the level of the module.
        fault: `the line` -> `the mutated line`; with `where` it names the mutant in
            tests/mutants.json, so that lines may move.
    """

    code: str
    where: str
    fault: str

    @property
    def name(self) -> str:
        return f"{self.where}: {self.fault}" if self.where else self.fault


@dataclass
class Score:
    """How the mutants of one module ended."""

    path: str
    killed: int = 0
    explained: int = 0
    survivors: list[Mutant] = field(default_factory=list)

    @property
    def mutants(self) -> int:
        return self.killed + self.explained + len(self.survivors)

    def row(self) -> str:
        could_die = self.killed + len(self.survivors)
        share = 100 * self.killed / could_die if could_die else 100
        return (
            f"| `{self.path}` | {self.mutants} | {self.killed} | {self.explained} "
            f"| {len(self.survivors)} | {share:.0f} % |"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.list:
        for path, tests in TESTS.items():
            say(f"{path}: {' '.join(tests)}")
        return 0
    paths = options.modules or list(TESTS)
    if unknown := [path for path in paths if path not in TESTS]:
        say(f"{', '.join(unknown)}: not in the table; see --list")
        return 2
    scores = []
    for path in paths:
        # A process of its own for each module: it loads what the tests of this one need.
        with Child(partial(tried, path, options)) as child:
            score = child.result()
        if score is None:
            say(f"{path}: its tests fail without a mutant: {' '.join(TESTS[path])}")
            return 2
        scores.append(score)
    say("\n| module | mutants | killed | explained | survived | score |\n|-|-:|-:|-:|-:|-:|")
    say("\n".join(score.row() for score in scores))
    return int(any(score.survivors for score in scores))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "make mutants ARGS=...",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("modules", nargs="*", help="paths of modules; all of the table without one")
    made.add_argument("--list", action="store_true", help="show the modules and their tests")
    made.add_argument("--only", default="", help="a part of the name of a function or a class")
    made.add_argument("--processes", type=int, default=1, help="mutants at a time (default: 1)")
    return made


def tried(path: str, options: argparse.Namespace) -> Score | None:
    """Try every mutant of a module."""
    source = (ROOT / path).read_text()
    with Child(partial(tested, path, source)) as child:
        whole = child.result()
    if whole is None or whole["code"] != 0:
        return None
    preload(whole["modules"])
    start = time.monotonic()
    with Child(partial(tested, path, source)) as child:
        again = child.result()
    if again is None or again["code"] != 0:
        return None
    limit = max(LEAST_SECONDS, PATIENCE * (time.monotonic() - start))
    mutants = [mutant for mutant in mutants_of(path, source) if options.only in mutant.where]
    say(f"{path}: {len(mutants)} mutants")
    score, explained = Score(path), Counter(explanations().get(path, {}))
    for mutant, ended in outcomes(path, mutants, limit, options.processes):
        if ended is LATE:
            say(f"  (took longer than {limit:.0f} s: {mutant.name})")
        # A survivor has passed each test; whatever else happens to a mutant is noticed.
        if ended is None or ended["code"] != 0:
            score.killed += 1
        elif mutant.name in explained:
            score.explained += 1
        else:
            score.survivors.append(mutant)
            say(f"  - {mutant.name}")
    return score


def outcomes(
    path: str, mutants: Sequence[Mutant], limit: float, processes: int
) -> Iterator[tuple[Mutant, Any]]:
    for first in range(0, len(mutants), processes):
        with contextlib.ExitStack() as stack:
            some = [
                (one, stack.enter_context(Child(partial(tested, path, one.code))))
                for one in mutants[first : first + processes]
            ]
            for mutant, child in some:
                yield mutant, child.result(limit)


def mutants_of(path: str, source: str) -> list[Mutant]:
    made = subprocess.run([*MAKER, ROOT / path], check=True, capture_output=True, text=True)
    return [described(source, code) for code in json.loads(made.stdout)]


def described(source: str, code: str) -> Mutant:
    before, after = source.splitlines(), code.splitlines()
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    changes = [change for change in matcher.get_opcodes() if change[0] != "equal"]
    _, start, stop, first, last = changes[0]
    was, now = (joined(before[start:stop]), joined(after[first:last]))
    return Mutant(code, enclosing(source, max(stop, 1)), f"`{was}` -> `{now}`")


def joined(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).split())


def enclosing(source: str, line: int) -> str:
    """Return the dotted name of the innermost function or class around a line."""
    names: list[str] = []
    body: Sequence[ast.AST] = ast.parse(source).body
    while around := [node for node in body if is_around(node, line)]:
        names.append(around[0].name)  # type: ignore[attr-defined]
        body = around[0].body  # type: ignore[attr-defined]
    return ".".join(names)


def is_around(node: ast.AST, line: int) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return first <= line <= (node.end_lineno or 0)


def explanations() -> dict[str, dict[str, str]]:
    """Return why survivors are no faults: by module, by the name of the mutant."""
    loaded: dict[str, dict[str, str]] = json.loads(EXPLAINED.read_text())
    return loaded


# In a child


def tested(path: str, code: str) -> dict[str, Any]:
    """Run a module's tests with other code in its place, without a word."""
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.gettempdir()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    import pytest
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants",
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    sys.meta_path.insert(0, Replaced(dotted(ROOT / path), ROOT / path, code))
    chosen = ("-m", "not slow and not integration", *ON_THE_FAKE.get(path, ()))
    ended = pytest.main([*PYTEST, PROFILE, *chosen, *TESTS[path]])
    return {"code": int(ended), "modules": sorted(sys.modules)}


class Replaced(MetaPathFinder):
    """Finds one module with other code than its file's."""

    def __init__(self, name: str, path: Path, code: str) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname != self.name:
            return None
        loader = ReplacedLoader(fullname, str(self.path))
        loader.replacement = self.code
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


class ReplacedLoader(SourceFileLoader):
    """Loads what it is given."""

    replacement: str

    def get_code(self, fullname: str) -> types.CodeType:
        return compile(self.replacement, self.get_filename(fullname), "exec", dont_inherit=True)


def preload(names: Sequence[str]) -> None:
    """Load what the tests have loaded, but nothing that could hold on to a mutated module."""
    for name in names:
        top = name.partition(".")[0]
        # `_asyncio` and its like are loaded by what needs them, in an order that matters.
        if top not in {*PACKAGES, "tests", "conftest"} and not top.startswith("_"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


class Child:
    """A process that is forked to work out one thing, in a folder for its temporary files."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._folder = tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True)

    def __enter__(self) -> Self:
        sys.stdout.flush()
        self._reading, writing = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            self._become(writing)
        os.close(writing)
        return self

    def _become(self, writing: int) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            tempfile.tempdir = self._folder.name
            answer = self._work()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(pickle.dumps(answer))
            code = 0
        finally:
            os._exit(code)

    def result(self, limit: float | None = None) -> Any:
        """Return what was worked out; None when it was not, LATE after a limit in seconds."""
        end = None if limit is None else time.monotonic() + limit
        data = b""
        while select.select([self._reading], [], [], end and max(0, end - time.monotonic()))[0]:
            if not (piece := os.read(self._reading, 1 << 16)):
                return pickle.loads(data) if data else None  # noqa: S301 - it is our own child's
            data += piece
        return LATE

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._reading)
        self._folder.cleanup()


if __name__ == "__main__":
    sys.exit(main())
