"""Checks how the modules stand on each other: floors, circles, and names that mean two things."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.tools.boundaries import Module

__all__ = [
    "FLOORS",
    "PUBLIC",
    "STARTS_A_WORKER",
    "circles",
    "climbs",
    "imports",
    "misses",
    "room",
    "surplus",
    "twice",
]

# From the top down. A room imports what stands below it, or itself; rooms of one floor do not know
# each other.
FLOORS = (
    {"nats_worker.__main__"},
    {"nats_worker.cli"},
    {"nats_worker.main"},
    {"nats_worker.worker"},
    {"nats_worker.control", "nats_worker.health"},
    {"nats_worker.crew", "nats_worker.state"},
    {"nats_worker.delivery", "nats_worker.intake", "nats_worker.uploads"},
    {"nats_worker.processes"},
    {"nats_worker", "nats_worker.api", "nats_worker.healthcheck", "nats_worker.log_lines"},
    {"nats_executor.executor", "nats_executor"},
    {"nats_executor.scheduler"},
    {
        "nats_executor.cli",
        "nats_executor.logging_config",
        "nats_executor.remote_logs",
        "nats_executor.ui",
    },
    {"nats_executor.migration"},
    {"nats_executor.operations"},
    {"nats_executor.local", "nats_executor.logs"},
    {"nats_executor.fleet", "nats_executor.topology"},
    {"nats_executor.broker"},
    {"nats_executor.access"},
    {
        "nats_executor.installation",
        "nats_executor.metrics_package",
        "nats_executor.provider",
        "nats_executor.settings",
    },
    {"nats_executor.options"},
    {"nats_executor.option"},
    {"nats_executor.preloads", "nats_executor.retrying", "nats_executor.wire"},
    {
        "nats_executor.audit_events",
        "nats_executor.batches",
        "nats_executor.errors",
        "nats_executor.pacing",
        "nats_executor.text",
    },
)
# The one way up: a command starts a worker. It loads that half only then.
STARTS_A_WORKER = ("nats_executor.cli.commands", "nats_worker.cli")
# Airflow finds what these offer, by a name in text: of a configuration, an entry point, a command.
PUBLIC = frozenset(
    {
        "nats_executor",
        "nats_executor.cli.commands",
        "nats_executor.executor",
        "nats_executor.logging_config",
        "nats_executor.provider",
        "nats_executor.remote_logs",
        "nats_executor.ui.plugin",
    }
)


def room(name: str) -> str:
    """Return the wing of a module, or the module itself where it stands alone."""
    return ".".join(name.split(".")[:2])


def imports(modules: Iterable[Module]) -> dict[str, set[str]]:
    """Return which of these modules each one imports, for the type checker alone, too."""
    trees = {module.name: module.tree for module in modules}
    found: dict[str, set[str]] = {name: set() for name in trees}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & trees.keys()
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                is_whole = inner <= trees.keys()
                found[name] |= (inner if is_whole else inner | {node.module}) & trees.keys()
        found[name].discard(name)
    return found


def climbs(modules: Iterable[Module]) -> list[str]:
    """Return the imports that go up or sideways, and the rooms that have no floor."""
    floor_of = {name: floor for floor, rooms in enumerate(FLOORS) for name in rooms}
    found = []
    for name, imported in sorted(imports(modules).items()):
        if room(name) not in floor_of:
            found.append(f"{room(name)} has no floor")
            continue
        for other in sorted(imported):
            is_same = room(other) == room(name)
            is_below = floor_of.get(room(other), -1) > floor_of[room(name)]
            if not is_same and not is_below and (name, other) != STARTS_A_WORKER:
                found.append(f"{name} imports {other}, which is not below it")
    return found


def circles(modules: Iterable[Module]) -> list[str]:
    """Return a circle of imports, if there is one; the one way up is left out."""
    graph = imports(modules)
    start, worker = STARTS_A_WORKER
    graph.get(start, set()).discard(worker)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return [" -> ".join(exc.args[1])]
    return []


def definitions(tree: ast.Module) -> Iterator[str]:
    """Yield the names of functions, classes and values at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def twice(modules: Iterable[Module]) -> dict[str, list[str]]:
    """Return the top-level names that are defined in more than one module, and where.

    A module that is called as something in another one counts, too, because it may be imported
    under that name. What `PUBLIC` modules define may be called as the module that does the work.
    """
    modules = list(modules)
    found = defaultdict(set)
    for module in modules:
        for name in set(definitions(module.tree)) - {"__all__", "__getattr__", "log"}:
            found[name].add(module.name)
    for module in modules:
        name = module.name.rpartition(".")[2]
        if found.get(name, set()) - PUBLIC:
            found[name].add(module.name)
    return {name: sorted(places) for name, places in found.items() if len(places) > 1}


def misses(modules: Iterable[Module]) -> list[str]:
    """Return what others use of a module that is missing in its `__all__`."""
    modules = list(modules)
    offered = {module.name: set(_listed(module.tree)) for module in modules}
    found = {
        f"{module}.{name}, which {user} uses"
        for user, module, name in uses(modules)
        if name not in offered[module]
    }
    return sorted(found)


def surplus(modules: Iterable[Module]) -> list[str]:
    """Return what an `__all__` lists although no other module uses it."""
    modules = list(modules)
    used = {(module, name) for _, module, name in uses(modules)}
    return sorted(
        f"{module.name}.{name}"
        for module in modules
        for name in _listed(module.tree)
        if module.name not in PUBLIC and (module.name, name) not in used
    )


def uses(modules: Iterable[Module]) -> Iterator[tuple[str, str, str]]:
    """Yield which module uses which other one's which name, as `NAME` or as `module.NAME`."""
    trees = {module.name: module.tree for module in modules}
    for user, tree in trees.items():
        imported = list(_imported(tree))
        called = dict(imported)
        found = {whole for _, whole in imported} | {
            f"{called[of]}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and (of := ast.unparse(node.value)) in called
        }
        for whole in found - trees.keys():
            module, _, name = whole.rpartition(".")
            if module in trees and module != user:
                yield user, module, name


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield what a module imports: its name there, and its dotted one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _listed(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if is_all and isinstance(node, ast.Assign):
            yield from ast.literal_eval(node.value)
