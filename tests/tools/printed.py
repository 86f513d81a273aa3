"""Collects the texts that the two packages can print, from their source.

A text is a string of a few words that is neither a docstring nor one of what `IGNORED` names. A
value in it is shown as `…`. What prints a text says how bad it is: a call of the log, an error that
is raised, a row of `check`, a reason of `why`. A text with none of these is a part of another one.
"""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from nats_executor import errors
from tests.tools.boundaries import modules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.tools.boundaries import Module

__all__ = [
    "FORMATTED",
    "PACKAGES",
    "RANKS",
    "TELLING_WORDS",
    "VALUE",
    "Kind",
    "Printed",
    "pattern_of",
    "printed",
    "printed_by",
    "words_in",
]

VALUE = "…"
# Less is a name or a title. What a log call begins with is always a text.
FEWEST_PIECES, FEWEST_WORDS = 3, 2
# With fewer words a text fits many lines: "…: …; next: …".
TELLING_WORDS = 3
# These define options, help texts, labels, metrics, server configuration and patterns. Pages and
# `--help` show them. Where such a module also raises or logs, that counts.
IGNORED = re.compile(
    r"nats_executor\.(options|provider|access\..*|ui\.actions|cli\..*(definitions|defining)"
    r"|local\.(telling_line|view|expected)|operations\.(board|probing)|topology\.wanted"
    r"|scheduler\.(telemetry|compat))|nats_worker\.health\.metrics"
)
PACKAGES = ("nats_executor", "nats_worker")
FORMATTED = re.compile(r"%(?:\.\d+)?[sdrgf]|\{\w*\}")


class Kind(StrEnum):
    """What prints a text, the worst first."""

    FAULT = "log: fault"
    ERROR = "log: error"
    WARNING = "log: warning"
    INFO = "log: info"
    RAISED = "error"
    FINDING = "`check`"
    REASON = "`why`"
    PART = "part"


RANKS = {kind: rank for rank, kind in enumerate(Kind)}
# `log.log` is given its level, a warning at least in one case.
LEVELS = {
    "info": Kind.INFO, "log": Kind.WARNING, "warning": Kind.WARNING,
    "error": Kind.ERROR, "exception": Kind.FAULT,
}  # fmt: skip
ASSIGNING = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MAKERS = {"check_row": Kind.FINDING, "Reason": Kind.REASON} | dict.fromkeys(
    (*errors.__all__, "HTTPException", "Refused"), Kind.RAISED
)


@dataclass(frozen=True, slots=True, order=True)
class Printed:
    """A text, the module that has it, and what prints it."""

    module: str
    text: str
    kind: Kind


@functools.cache
def printed() -> tuple[Printed, ...]:
    """Return all texts of the two packages, each once in a module."""
    found = {text for module in modules() for text in printed_by(module)}
    return tuple(sorted(text for text in found if text.module.startswith(PACKAGES)))


def printed_by(module: Module) -> list[Printed]:
    """Return the texts of a module."""
    return list(Reader(module).texts())


class Reader:
    """Reads one module."""

    def __init__(self, module: Module) -> None:
        self._name = module.name
        self._tree = module.tree
        self._parents = {
            child: node for node in ast.walk(self._tree) for child in ast.iter_child_nodes(node)
        }
        self._named: dict[tuple[ast.AST, str], Kind] = {}
        for place, kind in sorted(self._printed_names(), key=lambda found: RANKS[found[1]]):
            self._named.setdefault(place, kind)

    def texts(self) -> Iterator[Printed]:
        """Yield each text."""
        is_ignored = IGNORED.fullmatch(self._name) is not None
        for node in ast.walk(self._tree):
            text = text_of(node)
            if text is None or self._is_no_text(node):
                continue
            kind = self._kind(node)
            if (is_ignored and kind is Kind.PART) or not (self._is_line(node) or is_text(text)):
                continue
            yield Printed(self._name, " ".join(text.split()), kind)

    def _is_no_text(self, node: ast.AST) -> bool:
        """Whether it is a docstring, a piece of a longer text, a pattern or for developers."""
        parent = self._parents[node]
        if isinstance(parent, ast.Expr | ast.JoinedStr | ast.Subscript):
            return True
        calls = (name_of(outer) for outer in self._around(node) if isinstance(outer, ast.Call))
        return not {"compile", "debug"}.isdisjoint(calls)

    def _is_line(self, node: ast.AST) -> bool:
        """Whether a log call begins with it, in words of its own."""
        parent = self._parents[node]
        is_first = isinstance(parent, ast.Call) and node is next(iter(parent.args), None)
        return is_first and kind_of_log(parent) is not None and bool(words_in(text_of(node) or ""))

    def _kind(self, node: ast.AST) -> Kind:
        for outer in self._around(node):
            if kind := kind_of_step(outer):
                return kind
            if isinstance(outer, ASSIGNING):
                targets = outer.targets if isinstance(outer, ast.Assign) else [outer.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                found = [self._named.get((self._scope(outer), name)) for name in names]
                return next(filter(None, found), Kind.PART)
        return Kind.PART

    def _printed_names(self) -> Iterator[tuple[tuple[ast.AST, str], Kind]]:
        """Yield the names in what is printed, each with its function; a constant has none."""
        for node in ast.walk(self._tree):
            if kind := kind_of_step(node):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Name):
                        yield (self._scope(node), inner.id), kind
                        yield (self._tree, inner.id), kind

    def _around(self, node: ast.AST) -> Iterator[ast.AST]:
        while (node := self._parents.get(node, self._tree)) is not self._tree:
            yield node

    def _scope(self, node: ast.AST) -> ast.AST:
        return next((o for o in self._around(node) if isinstance(o, FUNCTIONS)), self._tree)


def kind_of_step(node: ast.AST) -> Kind | None:
    """Return how a call or a `raise` prints what is in it; None if it prints nothing."""
    if isinstance(node, ast.Raise):
        return Kind.RAISED
    return kind_of_log(node) or MAKERS.get(name_of(node))


def kind_of_log(node: ast.AST) -> Kind | None:
    """Return the level of a call of a module's log; None for any other step."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level)):
            return LEVELS.get(level)
    return None


def name_of(node: ast.AST) -> str:
    """Return the name of what a call calls, '' for any other step."""
    match node:
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return name
    return ""


def text_of(node: ast.AST) -> str | None:
    """Return a string literal with a sign for each value; None for any other node."""
    match node:
        case ast.Constant(value=str() as text):
            return FORMATTED.sub(VALUE, text)
        case ast.JoinedStr(values=values):
            return "".join(text_of(value) or VALUE for value in values)
    return None


def is_text(text: str) -> bool:
    return len(text.split()) >= FEWEST_PIECES and len(words_in(text)) >= FEWEST_WORDS


def words_in(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text)


@functools.cache
def pattern_of(text: str) -> re.Pattern[str]:
    """Return what matches each line that has this text."""
    return re.compile(".*".join(map(re.escape, text.split(VALUE))), re.DOTALL)
