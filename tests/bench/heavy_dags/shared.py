"""Imports of about two seconds of CPU time: pandas, and a stand-in for the SDKs that a team uses.

Which ones differs from team to team, and none of them belongs into this project's environment. The
stand-in does what their imports do: it compiles text, and makes functions and classes that stay.
Its work is fixed, so another machine takes another time for it.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["MODULES"]

MODULES_OF_SDK = 1000
CLASSES_OF_MODULE = 20
TEXT = "\n".join(
    f"class Client{n}:\n"
    f"    '''Calls the operations of service {n}.'''\n"
    "    def __init__(self, session, region=None):\n"
    "        self.session, self.region = session, region\n"
    "    def list(self, *, token=None, limit=100):\n"
    "        return [item for item in self.session.pages(token, limit) if item]\n"
    "    def get(self, name):\n"
    "        return self.session.get(f'/{name}', headers={'region': self.region})\n"
    for n in range(CLASSES_OF_MODULE)
)


def made(name: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(TEXT, name, "exec"), module.__dict__)  # noqa: S102
    return module


import_module("pandas")
MODULES = [made(f"sdk_{n}") for n in range(MODULES_OF_SDK)]
