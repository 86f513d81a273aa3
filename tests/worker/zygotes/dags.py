"""Dag files whose parse does more than make Dags, each with what stands against a zygote of it."""

from __future__ import annotations

from nats_worker.processes.zygote_book import Obstacle

__all__ = ["HEAVY", "NASTY", "TELL"]

# A task that tells all by which it could tell how it was started.
TELL = """
import airflow.sdk

with airflow.sdk.DAG("{name}"):

    @airflow.sdk.task
    def tell():
        import atexit, gc, locale, logging, os, random, signal, socket, sys, threading, warnings

        atexit.register(print, "the end")
        volatile = ("_AIRFLOW", "__AIRFLOW", "AIRFLOW_CTX", "TRACEPARENT", "PYTEST")
        return {{
            "path": sys.path,
            "main": [sys.modules["__main__"].__spec__.name, sys.argv[0]],
            "environment": {{k: v for k, v in os.environ.items() if not k.startswith(volatile)}},
            "handlers": {{int(s): repr(signal.getsignal(s)).split(" at ")[0].split("<locals>")[-1]
                         for s in signal.valid_signals()}},
            "directory": os.getcwd(),
            "locale": locale.setlocale(locale.LC_ALL),
            "loggers": [logging.root.level, len(logging.root.handlers)],
            "threads": [t.name for t in threading.enumerate()],
            "timeout": socket.getdefaulttimeout(),
            "streams": [sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.line_buffering],
            "descriptors": len(os.listdir("/proc/self/fd")),
            "warnings": len(warnings.filters),
            "collects": [gc.isenabled(), *gc.get_threshold()],
            "ends": atexit._ncallbacks(),
            "oom": open("/proc/self/oom_score_adj").read(),
            "score": list(globals().get("SCORE", ())),
            "importer": importer(),
        }}

    def importer():
        from airflow.dag_processing.importers import PythonDagImporter

        return [PythonDagImporter.import_file.__qualname__,
                PythonDagImporter.import_file.__code__.co_filename.rpartition("/")[2]]

    tell()
"""
HEAVY = (
    "import atexit, decimal, sqlite3, xml.dom.minidom\natexit.register(print, 'parsed')\n" + TELL
)

R = Obstacle
NASTY: dict[str, tuple[str, Obstacle | None]] = {
    "plain": (TELL, None),
    "heavy": (HEAVY, None),
    "by_globals": (
        "import airflow.sdk\nfor i in range(3):\n"
        "    globals()[f'dag_{{i}}'] = airflow.sdk.DAG(f'more_{{i}}')\n" + TELL,
        None,
    ),
    "own_path": ("import os, sys\nsys.path.insert(0, os.path.dirname(__file__))\n" + TELL, None),
    "warns": ("import warnings\nwarnings.warn('old')\n" + TELL, None),
    "by_file": (
        "import pathlib\nSCORE = pathlib.Path(__file__).with_name('scores.txt').read_text()\n"
        + TELL,
        None,
    ),
    "variable": (
        "import airflow.sdk\ntry:\n    airflow.sdk.Variable.get('a', default=None)\n"
        "except Exception:\n    pass\n" + TELL,
        R.REQUEST,
    ),
    "connection": (
        "import airflow.sdk\ntry:\n    airflow.sdk.Connection.get('a')\nexcept Exception:\n"
        "    pass\n" + TELL,
        R.REQUEST,
    ),
    "context": (
        "import airflow.sdk\nSCORE = [airflow.sdk.get_parsing_context().task_id]\n" + TELL,
        R.CONTEXT,
    ),
    "whole_environment": ("import os\nSCORE = [len(dict(os.environ)) > 3]\n" + TELL, R.CONTEXT),
    "thread": (
        "import threading\nEND = threading.Event()\n"
        "threading.Thread(target=END.wait, daemon=True).start()\n" + TELL,
        R.THREAD,
    ),
    "short_thread": (
        "import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()\n" + TELL,
        R.THREAD,
    ),
    "engine": (
        "import sqlalchemy\nENGINE = sqlalchemy.create_engine('sqlite://')\n"
        "CONNECTION = ENGINE.connect()\n" + TELL,
        R.NETWORK,
    ),
    "socket": ("import socket\nPAIR = socket.socketpair()\n" + TELL, R.DESCRIPTOR),
    "shared_lock": (
        "import mmap\nSHARED = mmap.mmap(-1, 4096)\n" + TELL,
        R.DESCRIPTOR,
    ),
    "process": (
        "import subprocess\nSCORE = [subprocess.run(['true']).returncode]\n" + TELL,
        R.PROCESS,
    ),
    "environment": ("import os\nos.environ['SET_BY_DAG'] = '1'\n" + TELL, R.ENVIRONMENT),
    "environment_for_a_moment": (
        "import os\nos.environ['SET_BY_DAG'] = '1'\ndel os.environ['SET_BY_DAG']\n" + TELL,
        None,
    ),
    "environment_of_c": ("import os\nos.putenv('SET_BY_DAG', '1')\n" + TELL, R.ENVIRONMENT),
    "signal": ("import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\n" + TELL, R.SIGNAL),
    "chance": ("import random\nSCORE = [random.random() < 2]\n" + TELL, R.RANDOM),
    "seeded": ("import random\nrandom.seed(1)\n" + TELL, R.RANDOM),
    "identifier": ("import uuid\nSCORE = [len(str(uuid.uuid4()))]\n" + TELL, R.RANDOM),
    "clock": ("import datetime\nSCORE = [datetime.datetime.now().year > 1]\n" + TELL, R.CLOCK),
    "pendulum_clock": (
        "import pendulum\nSCORE = [pendulum.today('UTC').year > 1]\n" + TELL,
        R.CLOCK,
    ),
    "prints": ("print('parsed')\n" + TELL, R.LOG),
    "logs": ("import logging\nlogging.getLogger(__name__).warning('parsed')\n" + TELL, R.LOG),
    "log_level": ("import logging\nlogging.getLogger('other').setLevel(10)\n" + TELL, R.LOG),
    "patch": (
        "import json\nold = json.dumps\njson.dumps = lambda *a, **k: old(*a, **k)\n" + TELL,
        R.PATCH,
    ),
    "hook": ("import sys\nsys.meta_path.append(object())\nsys.meta_path.pop()\n" + TELL, None),
    "hook_stays": (
        "import sys\nclass Finder:\n    def find_spec(self, *a): return None\n"
        "sys.meta_path.append(Finder())\n" + TELL,
        R.HOOK,
    ),
    "recursion": ("import sys\nsys.setrecursionlimit(2000)\n" + TELL, R.SETTING),
    "writes": (
        "import pathlib\npathlib.Path(__file__).with_name('made.txt').write_text('1')\n" + TELL,
        R.WRITE,
    ),
    "broken": ("import no_such_module\n" + TELL, R.BROKEN),
    "without_dag": ("x = 1\n", R.BROKEN),
}
