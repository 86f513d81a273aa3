"""Imports that take two seconds of CPU time: pandas, matplotlib, and a stand-in for SDKs.

Which SDKs a team uses differs, and each takes as long on another machine. So the stand-in makes up
for what the two real packages leave of the two seconds.
"""

from __future__ import annotations

import time
from importlib import import_module

__all__ = ["imported_seconds"]

SECONDS = 2.0

began = time.process_time()
for name in ("pandas", "matplotlib.pyplot"):
    import_module(name)
while time.process_time() - began < SECONDS:
    # What an import does: it compiles text and makes functions and classes.
    exec(compile("class Client:\n    def call(self):\n        pass\n" * 20, "sdk", "exec"), {})  # noqa: S102
imported_seconds = time.process_time() - began
