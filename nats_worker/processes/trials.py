"""Imports modules in processes of their own first, to see what they do to a fork server."""

from __future__ import annotations

import importlib
import os
import resource
import selectors
import signal
import time
from pathlib import Path
from typing import NoReturn

from nats_executor.errors import DecodeError
from nats_executor.preloads import Trial, decode_trial, encode_trial
from nats_worker.processes.linux import children_of, die_with, kill_tree

__all__ = ["try_module"]

# The worker starts nothing before its modules are tried.
TRIAL_SECONDS = 60.0
# Far more than a trial's line takes.
MOST_BYTES = 65_536
MOST_CHARACTERS = 500
SELF = Path("/proc/self")


def try_module(module: str, *, is_forced: bool, seconds: float = TRIAL_SECONDS) -> Trial:
    """Import a module in a child, and return what that did; the child is gone then.

    Call it in a process without threads.

    Raises:
        OSError: there can be no child.
    """
    server = os.getpid()
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb", buffering=0) as answers:
        try:
            pid = os.fork()
            if pid == 0:
                become_trial(server, writes, module, is_forced=is_forced)
        finally:
            os.close(writes)
        try:
            line = read_line(answers.fileno(), time.monotonic() + seconds)
        finally:
            kill_tree(pid)
            _, status = os.waitpid(pid, 0)
    if line is None:
        return Trial(module, is_forced, f"its import takes longer than {seconds:g} s")
    try:
        return decode_trial(line)
    except DecodeError:
        code = os.waitstatus_to_exitcode(status)
        end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Trial(module, is_forced, f"its import ends the process with {end}")


def become_trial(server: int, writes: int, module: str, *, is_forced: bool) -> NoReturn:
    """Import the module, say what that did and exit."""
    code = 1
    try:
        os.setsid()
        die_with(server)
        with os.fdopen(writes, "w") as answer:
            answer.write(f"{encode_trial(observed(module, is_forced=is_forced))}\n")
        code = 0
    finally:
        os._exit(code)


def observed(module: str, *, is_forced: bool) -> Trial:
    threads, descriptors, pages = entries("task"), entries("fd"), resident_pages()
    began = time.monotonic()
    try:
        importlib.import_module(module)
    except BaseException as exc:  # noqa: BLE001 - of a module that exits, too
        text = f"{type(exc).__name__}: {exc}"[:MOST_CHARACTERS]
        return Trial(module, is_forced, text)
    return Trial(
        module,
        is_forced,
        seconds=time.monotonic() - began,
        threads=len(entries("task") - threads),
        processes=len(children_of(os.getpid())),
        descriptors=len(entries("fd") - descriptors),
        bytes=max(0, resident_pages() - pages) * resource.getpagesize(),
    )


def entries(directory: str) -> set[str]:
    return set(os.listdir(SELF / directory))  # noqa: PTH208 - names alone


def resident_pages() -> int:
    return int((SELF / "statm").read_text().split()[1])


def read_line(answers: int, deadline: float) -> str | None:
    """Return a child's line, or what it wrote before its end; None if neither comes in time.

    What the module has started may hold the other end open for longer.
    """
    found = b""
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            part = os.read(answers, MOST_BYTES)
            found += part
            if not part or found.endswith(b"\n") or len(found) > MOST_BYTES:
                return found.decode(errors="replace")
    return None
