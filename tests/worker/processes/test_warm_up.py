"""The preparations are made once before the forks, so that no task repeats them."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nats_worker.processes import linux

if TYPE_CHECKING:
    from tests.support.execution_api import ExecutionApi

MEGABYTE = 1024 * 1024

# Each in an interpreter of its own, because what is warmed up stays so.
DECODERS = """
from nats_worker.processes import warm_up
from airflow.sdk.execution_time import comms, task_runner
from pydantic import JsonValue, TypeAdapter
task_runner.TypeAdapter = other = object()

warm_up.warm_up()

one, two = (comms.CommsDecoder(log=None, socket=None) for _ in range(2))
assert one.body_decoder is two.body_decoder is two.err_decoder
assert type(one.body_decoder) is TypeAdapter
assert comms.TypeAdapter(JsonValue) is comms.TypeAdapter(JsonValue)
assert comms.TypeAdapter(list[int]).validate_python(["1"]) == [1]
assert comms.TypeAdapter(list[int]) is not comms.TypeAdapter(list[int])
assert comms.TypeAdapter(JsonValue, config={"strict": True}) is not comms.TypeAdapter(JsonValue)
# Airflow's own name for it is not ours to touch where it means something else.
assert task_runner.TypeAdapter is other
print("good")
"""
LOG_SET_UP = """
import logging, logging.config, os
from nats_worker.processes import warm_up
plain, clears = logging.Manager._clear_cache, []
logging.Manager._clear_cache = lambda manager: (clears.append(manager), plain(manager))
warm_up.warm_up()
below = logging.getLogger("sqlalchemy.engine.of_this_test")
below.setLevel(logging.DEBUG)
assert below.isEnabledFor(logging.DEBUG), "which Python notes"
clears.clear()

from airflow.sdk.log import configure_logging
configure_logging(json_output=True, output=os.fdopen(os.dup(2), "wb"))

assert len(clears) == 1, len(clears)
assert not below.isEnabledFor(logging.INFO), "Airflow gives its parent a level"
below.setLevel(logging.DEBUG)
assert below.isEnabledFor(logging.DEBUG) and len(clears) == 2, "all else is as ever"
try:
    logging.config.dictConfig({"version": 1, "loggers": {"a": {"handlers": ["of nowhere"]}}})
except ValueError:
    pass
assert len(clears) == 3, "after an error, too"
print("good")
"""
PLUGINS = """
from nats_worker.processes import warm_up
from airflow.sdk._shared.module_loading import entry_points_with_dist
from airflow.sdk._shared.plugins_manager.plugins_manager import EntryPointSource
told = [str(EntryPointSource(*found)) for found in entry_points_with_dist("airflow.plugins")]

warm_up.warm_up()

found = list(entry_points_with_dist("airflow.plugins"))
assert found and all(package.metadata is package.metadata for _, package in found)
assert [str(EntryPointSource(*each)) for each in found] == told
print("good")
"""
CHANGED = """
import logging
from nats_worker.processes import warm_up
from airflow.sdk.api import client
from airflow.sdk.execution_time import comms
del comms.ToTask
class Client(client.Client):
    def __init__(self, *, base_url, token):
        super().__init__(base_url=base_url, token=token)
client.Client = Client
logging.disable(logging.NOTSET)
warned = []
warm_up.log.warning = lambda text, name, **_: warned.append(name)

warm_up.warm_up()

assert warned == ["share_decoders", "rehearse_request"], warned
print("good")
"""
FAULTS = """
import faulthandler, logging, signal, sys
from nats_worker.processes import faults, warm_up
signal.signal(signal.SIGSEGV, print)
signal.signal(signal.SIGFPE, signal.SIG_IGN)
faulthandler.enable()

warm_up.warm_up()

assert [signal.getsignal(number) for number in faults.FAULTS] == [
    signal.SIG_DFL, signal.SIG_IGN, signal.SIG_DFL, signal.SIG_DFL
]
importer = next(sys.modules[name] for name in faults.IMPORTERS if name in sys.modules)
importer.signal.signal(importer.signal.SIGSEGV, print)
assert signal.getsignal(signal.SIGSEGV) == signal.SIG_DFL
importer.signal.signal(importer.signal.SIGALRM, print)
assert signal.getsignal(signal.SIGALRM) is print
# What has moved is told, once.
faults.IMPORTERS = ("airflow.nowhere", "airflow.configuration")
warned = []
faults.log.warning = lambda text, *names: warned.append(text % names)
faults.leave_to_kernel()
assert len(warned) == 1, warned
assert "airflow.nowhere.signal, airflow.configuration.signal" in warned[0]
print("good")
"""
LOG_LINES = """
from nats_worker.processes import warm_up
from airflow.sdk import log
asked = []
log.logging_processors = lambda **options: asked.append(options)

warm_up.conf.set("logging", "remote_logging", "True")
warm_up.prepare_log_lines()
warm_up.conf.set("logging", "remote_logging", "False")
warm_up.conf.set("logging", "logging_config_class", "mine.CONFIG")
warm_up.prepare_log_lines()
assert asked == [], asked

warm_up.conf.set("logging", "logging_config_class", "")
warm_up.warm_up()
assert asked == [{"json_output": True}], asked
print("good")
"""
QUIET = """
import os, sys
from pathlib import Path
from nats_worker.processes import warm_up
opened = []
sys.addaudithook(
    lambda event, args: opened.append(args) if event in {"socket.connect", "os.fork"} else None
)

warm_up.warm_up()

assert opened == [], opened
assert len(list(Path("/proc/self/task").iterdir())) == 1
print("good")
"""


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.usefixtures("airflow_home")
def test_a_decoder_is_built_once() -> None:
    assert run(DECODERS).endswith("good\n")


@pytest.mark.usefixtures("airflow_home")
def test_configuring_logging_goes_through_all_loggers_once() -> None:
    assert run(LOG_SET_UP).endswith("good\n")


@pytest.mark.usefixtures("airflow_home")
def test_the_package_of_a_plugin_is_read_once() -> None:
    assert run(PLUGINS).endswith("good\n")


def test_a_fault_is_left_to_the_kernel() -> None:
    assert run(FAULTS).endswith("good\n")


@pytest.mark.usefixtures("airflow_home")
def test_an_airflow_that_has_changed_is_left_to_itself() -> None:
    """Each step that fails is told, and the others are done."""
    assert run(CHANGED).endswith("good\n")


@pytest.mark.usefixtures("airflow_home")
def test_nothing_is_connected_or_started(api: ExecutionApi) -> None:
    asked = len(api.received)

    assert run(QUIET).endswith("good\n")

    assert len(api.received) == asked


@pytest.mark.usefixtures("airflow_home")
def test_a_handler_of_remote_logs_is_left_to_each_workload() -> None:
    assert run(LOG_LINES).endswith("good\n")


def spans() -> dict[tuple[int, int], str]:
    """Where each piece of this process's memory is, and what it is."""
    found = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(address, 16) for address in line.split()[0].split("-"))
        found[begin, end] = line
    return found


def test_gathered_memory_keeps_its_content() -> None:
    numbers = bytearray(b"airflow" * MEGABYTE)

    linux.gather_memory()

    assert numbers == b"airflow" * MEGABYTE


@pytest.mark.parametrize("answer", [0, -1])
def test_only_plain_memory_is_gathered(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    """No file, no shared memory, no code; a refusal changes nothing."""
    advised: list[tuple[int, int]] = []

    class Libc:
        def madvise(self, begin: int, size: int, advice: int) -> int:
            assert advice == linux.MADV_COLLAPSE
            advised.append((begin, begin + size))
            return answer

    block = (ctypes.c_char * (16 * MEGABYTE))()
    address = ctypes.addressof(block)
    before = spans()
    monkeypatch.setattr(linux, "LIBC", Libc())

    linux.gather_memory()

    assert any(begin <= address < end for begin, end in advised)
    for span in advised:
        if span in before:
            assert " rw-p " in before[span]
            assert before[span].split()[5:] in ([], ["[heap]"])
