"""A later `BaseExecutor` finds no name of ours in its way, and each module says what it offers."""

from __future__ import annotations

import ast
from collections import defaultdict

from airflow.executors.base_executor import BaseExecutor

from nats_executor import NatsExecutor
from tests.tools.boundaries import Module, modules

WING = "nats_executor.scheduler."
# Airflow 3.4's, which 3.3 never asks for.
NEWER = {"get_streaming_task_log"}


def test_the_executor_has_only_airflows_public_names() -> None:
    theirs = {*dir(BaseExecutor), *vars(BaseExecutor()), *NEWER}
    ours = {*dir(NatsExecutor), *vars(NatsExecutor())}

    assert {name for name in ours - theirs if not name.startswith("_")} == set()


def test_each_module_of_the_wing_offers_what_others_use() -> None:
    """By `from a_module import a_name`, or by `a_module.a_name`."""
    every = list(modules())
    wing = {module.name: module for module in every if module.name.startswith(WING)}
    used: dict[str, set[str]] = defaultdict(set)
    for module in every:
        for owner, name in names_used(module):
            if owner != module.name:
                used[owner].add(name)

    offered = {name: set(module_all(module)) for name, module in wing.items()}

    assert offered == {name: used[name] for name in wing}


def names_used(module: Module) -> list[tuple[str, str]]:
    """Return what a module uses of others, as the other one and the name."""
    imported = [
        (node.module or "", alias.name)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    whole = {name: f"{owner}.{name}" for owner, name in imported}
    inside = [
        (whole[node.value.id], node.attr)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in whole
    ]
    return [*imported, *inside]


def module_all(module: Module) -> list[str]:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []
