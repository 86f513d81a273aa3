"""This project reads these private names of nats-py, and turns nats-py's errors into its own."""

from __future__ import annotations

import ast
import asyncio
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nats.errors  # noqa: TID251 - what is to be translated
import pytest
from nats.aio.client import Client as PlainClient  # noqa: TID251 - what `Client` is made of
from nats.aio.transport import TcpTransport, WebSocketTransport  # noqa: TID251 - likewise

from nats_executor.broker import client as client_module
from nats_executor.broker.client import RELIED_ON, Translated
from nats_executor.errors import BrokerUnavailable, NotFound

pytestmark = pytest.mark.anyio

SOURCE = Path(client_module.__file__)
TREE = ast.parse(SOURCE.read_text())
NAMES = {name for names in RELIED_ON.values() for name in names}


def made_of(name: str) -> Any:
    """Return an object of a class as it is after its `__init__`, before there is a connection."""
    match name.rpartition(".")[2]:
        case "Client":
            return PlainClient()
        case "TcpTransport":
            return TcpTransport()  # type: ignore[no-untyped-call]
        case "WebSocketTransport":
            return WebSocketTransport()
        case "StreamReaderProtocol":
            return asyncio.StreamReaderProtocol(asyncio.StreamReader())
        case "ClientWebSocketResponse":
            none: Any = None
            response: Any = SimpleNamespace(connection=None)
            loop = asyncio.get_running_loop()
            return class_of(name)(none, none, "", response, none, True, True, loop)
        case _:
            return class_of(name)  # methods and properties


def class_of(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", RELIED_ON)
async def test_the_installed_releases_have_each_name(name: str) -> None:
    if name.startswith("aiohttp") or "WebSocket" in name:
        pytest.importorskip("aiohttp", reason="the extra `websocket` is not installed")
    made = made_of(name)

    assert [attribute for attribute in RELIED_ON[name] if not hasattr(made, attribute)] == []
    if isinstance(made, WebSocketTransport):
        await made._client.close()


def test_each_private_name_that_is_read_is_listed() -> None:
    """And none is listed that is read no more."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    own = {node.name for node in ast.walk(TREE) if isinstance(node, functions)}
    own |= {
        node.attr
        for node in ast.walk(TREE)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and ast.unparse(node.value) == "self"
    }
    read = {
        node.attr
        for node in ast.walk(TREE)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_")
    }
    looked_up = looked_up_in(TREE, "inside")

    assert read - own - NAMES == set()
    assert looked_up <= NAMES
    assert NAMES - read - looked_up == set()


def looked_up_in(tree: ast.AST, function: str) -> set[str]:
    """Return the names that a function is asked for, those of a loop over names included."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple):
            found |= {str(e.value) for e in node.iter.elts if isinstance(e, ast.Constant)}
        if isinstance(node, ast.Call) and ast.unparse(node.func) == function:
            found |= {str(a.value) for a in node.args[1:2] if isinstance(a, ast.Constant)}
    return found


def test_no_other_module_of_the_broker_looks_inside_of_an_object() -> None:
    """The linter (SLF001) sees each private name; this sees that it is turned off nowhere else."""
    found = []
    for path in sorted(SOURCE.parent.glob("*.py")):
        text = path.read_text()
        if path != SOURCE and (
            "SLF001" in text or looked_up_in(ast.parse(text), "getattr") & NAMES
        ):
            found.append(path.name)

    assert found == []


@pytest.mark.parametrize(
    "error", [nats.errors.ConnectionClosedError(), OSError("reset"), TimeoutError("late")]
)
def test_errors_of_nats_py_and_of_the_network_become_ours(error: Exception) -> None:
    with pytest.raises(BrokerUnavailable) as caught, Translated("cannot send"):
        raise error

    assert str(caught.value) == f"cannot send: {error}"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [NotFound("no message"), LookupError("a defect")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, Translated("cannot send"):
        raise error

    assert caught.value is error
