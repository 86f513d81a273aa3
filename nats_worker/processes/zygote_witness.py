"""Watches a parse in a process of its own: what it reads, asks and does beside making Dags.

Some of this cannot be taken back, as Python keeps an audit hook for good. So it only happens in a
process that ends after its one parse.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from nats_worker.processes.zygote_book import Obstacle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, FrameType

__all__ = ["Witness", "fingerprints", "reads_clock"]

# What a task's own environment may hold.
PREFIXES = ("_AIRFLOW", "__AIRFLOW", "AIRFLOW_CTX_")
# Not those that only measure how long something takes.
CLOCKS = frozenset(
    {
        "clock_gettime", "clock_gettime_ns", "ctime", "gmtime", "localtime", "now", "strftime",
        "time", "time_ns", "today", "utcnow",
    }
)  # fmt: skip
# What differs from process to process.
CHANCES = frozenset({"getpid", "getppid", "getrandbits", "getrandom", "random", "seed", "urandom"})
THREADS = frozenset({"start_joinable_thread", "start_new_thread"})
# Clocks of compiled libraries tell Python nothing when they are asked.
CLOCK_NAMES = frozenset({"now", "today", "utcnow"})
EVENTS = {
    "fcntl.flock": Obstacle.DESCRIPTOR,
    "fcntl.lockf": Obstacle.DESCRIPTOR,
    "ftplib.connect": Obstacle.NETWORK,
    "http.client.connect": Obstacle.NETWORK,
    "os.chdir": Obstacle.SETTING,
    "os.exec": Obstacle.PROCESS,
    "os.fork": Obstacle.PROCESS,
    "os.forkpty": Obstacle.PROCESS,
    "os.posix_spawn": Obstacle.PROCESS,
    "os.putenv": Obstacle.ENVIRONMENT,
    "os.system": Obstacle.PROCESS,
    "os.unsetenv": Obstacle.ENVIRONMENT,
    "pty.spawn": Obstacle.PROCESS,
    "resource.setrlimit": Obstacle.SETTING,
    "smtplib.connect": Obstacle.NETWORK,
    "socket.bind": Obstacle.NETWORK,
    "socket.connect": Obstacle.NETWORK,
    "socket.getaddrinfo": Obstacle.NETWORK,
    "socket.gethostbyaddr": Obstacle.NETWORK,
    "socket.gethostbyname": Obstacle.NETWORK,
    "socket.sendto": Obstacle.NETWORK,
    "sqlite3.connect": Obstacle.NETWORK,
    "subprocess.Popen": Obstacle.PROCESS,
    "sys.addaudithook": Obstacle.HOOK,
    "sys.setprofile": Obstacle.HOOK,
    "sys.settrace": Obstacle.HOOK,
    "urllib.Request": Obstacle.NETWORK,
}
# `os.environ` makes them, too, and is compared as a whole: numpy sets a variable for a moment.
OF_ENVIRON = frozenset({"os.putenv", "os.unsetenv"})
# Libraries try an address of this machine while they are imported, and forget it.
OF_IMPORTS = frozenset({"socket.bind"})
WRITES = frozenset(
    {
        "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
        "os.symlink", "os.truncate", "os.utime", "shutil.rmtree", "tempfile.mkdtemp",
        "tempfile.mkstemp",
    }
)  # fmt: skip
LISTINGS = frozenset({"os.listdir", "os.scandir"})
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LOOKED_BY = ("access", "lstat", "readlink", "stat")
# A call from here is none of the user's, and what is below it is not either.
OWN_FOLDER = str(Path(__file__).parent)
IMPORTLIB = "<frozen importlib"
CACHE = "__pycache__"
FUNCTIONS = (BuiltinFunctionType, FunctionType, MethodType, type, staticmethod, classmethod)
# The kernel's own files, which say something else at each look.
KERNEL = ("/dev/", "/proc/", "/sys/")


class Witness:
    """Collects reasons against a zygote, and the files on which the parse depends.

    Args:
        folders: whose code is the user's, wherever they are.

    Attributes:
        inputs: every path that was opened, listed or looked for, outside of Python's own folders.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self.folders = tuple(f"{folder}/" for folder in folders)
        self.own = tuple(f"{folder}/" for folder in installed_folders())
        self.reasons: set[Obstacle] = set()
        self.inputs: set[str] = set()
        self.is_watching = False
        self.known: dict[str, bool] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is done meanwhile, and restore what can be restored."""
        before = functions()
        sys.addaudithook(self.hear)
        with self.looking():
            sys.setprofile(self.profile)
            self.is_watching = True
            try:
                yield
            finally:
                self.is_watching = False
                sys.setprofile(None)
        if is_replaced(before):
            self.reasons.add(Obstacle.PATCH)

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Note which variables of the environment and which files are looked for."""
        kind: Any = type(os.environ)
        get_variable = kind.__getitem__
        looks: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in LOOKED_BY}

        def getitem(environment: Any, name: str) -> str:
            if self.is_watching and str(name).startswith(PREFIXES):
                self.reasons.add(Obstacle.CONTEXT)
            text: str = get_variable(environment, name)
            return text

        def noting(look: Callable[..., Any]) -> Callable[..., Any]:
            def noted(path: Any, *args: Any, **options: Any) -> Any:
                self.note(path)
                return look(path, *args, **options)

            return noted

        kind.__getitem__ = getitem
        for name, look in looks.items():
            setattr(os, name, noting(look))
        try:
            yield
        finally:
            kind.__getitem__ = get_variable
            for name, look in looks.items():
                setattr(os, name, look)

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """Judge an audit event of Python."""
        if not self.is_watching:
            return
        if event == "open":
            self.hear_open(*args)
        elif event in LISTINGS:
            self.note("." if args[0] is None else args[0])
        elif event in WRITES:
            if not any(CACHE in str(arg) for arg in args):
                self.reasons.add(Obstacle.WRITE)
        elif reason := EVENTS.get(event):
            caller = sys._getframe(1)  # noqa: SLF001 - there is no other way to it
            is_known = event in OF_ENVIRON and caller.f_globals is vars(os)
            if not is_known and (event not in OF_IMPORTS or self.is_of_user(caller)):
                self.reasons.add(reason)

    def hear_open(self, path: Any, mode: Any, flags: Any) -> None:
        is_writing = set(mode or "") & set("wax+") or int(flags or 0) & WRITING
        if not is_writing:
            self.note(path)
        elif CACHE not in str(path) and path != os.devnull:
            self.reasons.add(Obstacle.WRITE)

    def note(self, path: Any) -> None:
        """Remember a file on which the Dags may depend."""
        if not self.is_watching or isinstance(path, int):
            return
        try:
            name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - as Python's own modules
        except (TypeError, ValueError):
            return
        if not (CACHE in name or name.startswith(KERNEL) or self.is_installed(name)):
            self.inputs.add(name)

    def profile(self, frame: FrameType, event: str, function: Any) -> None:
        """Judge a call of a compiled function."""
        if event != "c_call":
            return
        name = getattr(function, "__name__", "")
        if name in THREADS:
            self.reasons.add(Obstacle.THREAD)
        elif name in CLOCKS and self.is_of_user(frame):
            self.reasons.add(Obstacle.CLOCK)
        elif name in CHANCES and self.is_of_user(frame):
            self.reasons.add(Obstacle.RANDOM)

    def is_of_user(self, frame: FrameType | None) -> bool:
        """Return whether the user's code calls, not a library for its own import."""
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith((IMPORTLIB, OWN_FOLDER)):
                return False
            if name not in self.known:
                self.known[name] = not (name.startswith("<") or self.is_installed(name))
            if self.known[name]:
                return True
            frame = frame.f_back
        return False

    def is_installed(self, name: str) -> bool:
        return name.startswith(self.own) and not name.startswith(self.folders)


def installed_folders() -> set[str]:
    """Return the folders of Python and of what is installed_folders for it."""
    names = ("purelib", "platlib", "stdlib", "platstdlib")
    return {sysconfig.get_path(name) for name in names} | {
        str(Path(sysconfig.get_path(name)).resolve()) for name in names
    }


def functions() -> list[tuple[str, Any, str, Any]]:
    """Return every function and class that a module, or a class of it, has now."""
    found: list[tuple[str, Any, str, Any]] = []
    for module_name, module in list(sys.modules.items()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if isinstance(value, FUNCTIONS):
                found.append((module_name, module, name, value))
            if isinstance(value, type) and getattr(value, "__module__", "") == module_name:
                found += [
                    (module_name, value, inner, function)
                    for inner, function in list(vars(value).items())
                    if isinstance(function, FUNCTIONS)
                ]
    return found


def is_replaced(before: list[tuple[str, Any, str, Any]]) -> bool:
    """Return whether a function or class has another one in its place, or is gone."""
    return any(
        vars(owner).get(name) is not value
        for module, owner, name, value in before
        if not (owner is os or owner is type(os.environ)) and module in sys.modules
    )


def reads_clock(code: CodeType) -> bool:
    """Return whether the code of a module names a clock outside of its functions."""
    return bool(CLOCK_NAMES & set(code.co_names))


def fingerprints(paths: Iterable[str]) -> dict[str, tuple[int, ...] | None]:
    """Return what tells one state of each file or folder from the next; None where none is."""
    found: dict[str, tuple[int, ...] | None] = {}
    for path in paths:
        try:
            facts = os.stat(path)  # noqa: PTH116 - one call, for each task
        except (OSError, ValueError):
            found[path] = None
        else:
            found[path] = (
                facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
            )  # fmt: skip
    return found
