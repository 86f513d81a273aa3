"""The rules of CONTRIBUTING.md, "Boundaries": who may import what, and how long things may get."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["PACKAGES", "ROOT", "Module", "is_pure", "long_modules", "modules", "violations"]

ROOT = Path(__file__).parents[2]
PACKAGES = ("airflow_nats_executor", "nats_executor", "nats_worker")
BROKER = "nats_executor.broker.client"
COMPAT = "nats_executor.scheduler.compat"
# The first decides by Airflow's version, the second shows it to people.
VERSION_READERS = frozenset({COMPAT, "nats_executor.installation"})
SETTINGS = "nats_executor.settings"
# They decide and do nothing, so that every decision is a table test. `topology` acts, but only
# through the port that it is given.
PURE_WINGS = ("nats_executor.access", "nats_executor.topology", "nats_executor.wire")
PURE_MODULES = frozenset(
    {
        "nats_executor.batches",
        "nats_executor.broker.link",
        "nats_executor.broker.port",
        "nats_executor.broker.pull_times",
        "nats_executor.broker.quorum",
        "nats_executor.broker.releases",
        "nats_executor.broker.replies",
        "nats_executor.broker.servers",
        "nats_executor.cli.durations",
        "nats_executor.errors",
        "nats_executor.fleet.letters",
        "nats_executor.fleet.presences",
        "nats_executor.fleet.rates",
        "nats_executor.local.expected",
        "nats_executor.local.telling_line",
        "nats_executor.migration.chart",
        "nats_executor.migration.command_lines",
        "nats_executor.migration.counterparts",
        "nats_executor.migration.dag_uses",
        "nats_executor.migration.translating",
        "nats_executor.migration.verbs",
        "nats_executor.operations.facts",
        "nats_executor.operations.reasons",
        "nats_executor.operations.board",
        "nats_executor.option",
        "nats_executor.options",
        "nats_executor.pacing",
        "nats_executor.scheduler.confirmations",
        "nats_executor.scheduler.evidence",
        "nats_executor.scheduler.ledger",
        "nats_executor.scheduler.strays",
        "nats_executor.scheduler.stuck",
        "nats_executor.scheduler.whereabouts",
        "nats_executor.settings",
        "nats_executor.text",
        "nats_worker.api.answers",
        "nats_worker.delivery.arrival",
        "nats_worker.delivery.claims",
        "nats_worker.delivery.observer",
        "nats_worker.delivery.verdict",
        "nats_worker.intake.bands",
        "nats_worker.processes.endings",
        "nats_worker.processes.exit_report",
        "nats_worker.processes.fitness",
    }
)
# fmt: off
IMPURE = frozenset(
    {
        "airflow", "asyncio", "http", "io", "logging", "multiprocessing", "nats", "os", "pathlib",
        "random", "requests", "select", "shutil", "signal", "socket", "sqlalchemy", "ssl",
        "subprocess", "tempfile", "threading", "time",
    }
)
# fmt: on
# Settings look whether a file can be read; an exit report names the signal that ended a process;
# the queues of a set-up take turns at the port, which does what input and output there is.
EXCEPTIONS = {
    SETTINGS: frozenset({"os"}),
    "nats_executor.topology.several": frozenset({"asyncio"}),
    "nats_worker.processes.exit_report": frozenset({"signal"}),
}
# They start workers, and load that half only when they do.
STARTERS = frozenset({"nats_executor.cli.commands"})
# Standalone asks whether anybody has configured a server at all, before there are settings.
READ_OPTIONS = frozenset({SETTINGS, "nats_executor.local.standalone"})
READERS = frozenset({"get", "getboolean", "getfloat", "getint", "getjson", "get_mandatory_value"})
# A class is not cut for a number: from the first on it is told, from the second on refused.
LONG_MODULE_LINES, MODULE_LINES = 400, 450
FUNCTION_LINES = 40


@dataclass(frozen=True)
class Module:
    """One module by its dotted name, as source."""

    name: str
    source: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def modules() -> list[Module]:
    """Return every module of the distribution."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [Module(dotted(path), path.read_text()) for path in sorted(paths)]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def long_modules(modules: Iterable[Module]) -> list[str]:
    """Return a line about each module that should be cut where it has a seam."""
    lengths = {module.name: len(module.source.splitlines()) for module in modules}
    return [
        f"{name}: {lines} lines; {MODULE_LINES + 1} are refused"
        for name, lines in lengths.items()
        if lines > LONG_MODULE_LINES
    ]


def violations(module: Module) -> list[str]:
    """Return what a module does against the rules, a line each."""
    return [f"{module.name}: {found}" for rule in RULES for found in rule(module)]


def imported_modules(tree: ast.AST) -> set[str]:
    """Return every module that is named in an import; relative ones are banned by the linter."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def imported(tree: ast.AST) -> set[str]:
    """Return every dotted name that is imported, `from a import b` as `a` and `a.b`."""
    return imported_modules(tree) | {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def nats_behind_one_door(module: Module) -> Iterator[str]:
    if module.name != BROKER and any(is_within(name, "nats") for name in imported(module.tree)):
        yield f"imports nats; only {BROKER} may"


def is_pure(name: str) -> bool:
    return name in PURE_MODULES or any(is_within(name, wing) for wing in PURE_WINGS)


def pure_modules_do_no_io(module: Module) -> Iterator[str]:
    if not is_pure(module.name):
        return
    forbidden = IMPURE - EXCEPTIONS.get(module.name, frozenset())
    for name in sorted(imported_modules(runtime(module.tree))):
        top = name.partition(".")[0]
        if top in forbidden or (top in PACKAGES and not is_pure(name)):
            yield f"imports {name}; it must stay pure"


def runtime(tree: ast.Module) -> ast.Module:
    """Leave out what only a type checker imports."""
    is_typing = "TYPE_CHECKING"
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == is_typing)
    ]
    return ast.Module(body, [])


def worker_knows_no_executor(module: Module) -> Iterator[str]:
    if module.package != "nats_worker":
        return
    names = imported(module.tree)
    is_executor = {"nats_executor.executor", "nats_executor.NatsExecutor"} & names
    if is_executor or any(is_within(name, "nats_executor.scheduler") for name in names):
        yield "imports the scheduler's side; the worker shares only the contract"


def executor_loads_no_worker(module: Module) -> Iterator[str]:
    if module.package != "nats_executor":
        return
    at_start = ast.Module([node for node in module.tree.body if is_import(node)], [])
    tree = at_start if module.name in STARTERS else runtime(module.tree)
    if any(is_within(name, "nats_worker") for name in imported(tree)):
        yield f"imports nats_worker; only {', '.join(sorted(STARTERS))} may, where it is used"


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def one_place_knows_versions(module: Module) -> Iterator[str]:
    if module.name in VERSION_READERS:
        return
    forbidden = {"airflow.__version__", "airflow.version"}
    by_import = forbidden & imported(module.tree)
    by_attribute = {ast.unparse(n) for n in ast.walk(module.tree) if isinstance(n, ast.Attribute)}
    by_metadata = any(
        isinstance(node, ast.Constant) and str(node.value).startswith("apache-airflow")
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call)
        for node in call.args
    )
    if by_import or forbidden & by_attribute or by_metadata:
        yield f"looks at Airflow's version; only {COMPAT} may"


def one_place_reads_options(module: Module) -> Iterator[str]:
    if module.name in READ_OPTIONS:
        return
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in READERS
            and node.args
            and ast.unparse(node.args[0]) in {"'nats_executor'", "SECTION"}
        ):
            yield f"line {node.lineno} reads [nats_executor]; only {SETTINGS} may"


def nothing_is_long(module: Module) -> Iterator[str]:
    if (lines := len(module.source.splitlines())) > MODULE_LINES:
        yield f"{lines} lines; at most {MODULE_LINES}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = code_lines(node)
            if lines > FUNCTION_LINES:
                yield f"{node.name} has {lines} lines; at most {FUNCTION_LINES}"


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its docstring, which should never be cut short."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def the_package_imports_nothing(module: Module) -> Iterator[str]:
    if module.name != "nats_executor":
        return
    names = imported(ast.Module([n for n in module.tree.body if is_import(n)], []))
    if heavy := {n for n in names if n.partition(".")[0] not in {"__future__", "typing"}}:
        yield f"imports {', '.join(sorted(heavy))}, and so does every start of Airflow's CLI"


RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    nats_behind_one_door,
    pure_modules_do_no_io,
    worker_knows_no_executor,
    executor_loads_no_worker,
    one_place_knows_versions,
    one_place_reads_options,
    nothing_is_long,
    the_package_imports_nothing,
)
