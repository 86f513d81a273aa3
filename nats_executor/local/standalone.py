"""Runs `airflow nats standalone`: Airflow, NATS and workers on one machine, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nats_executor.errors import NatsExecutorError
from nats_executor.local.api import AirflowApi
from nats_executor.local.components import Components
from nats_executor.local.deployment import (
    MIGRATE_SECONDS,
    Deployment,
    python_environment,
    require_free_port,
)
from nats_executor.local.embedded import HOST, EmbeddedServer, write_private
from nats_executor.local.interrupts import Interrupted, interrupts_raised
from nats_executor.local.ports import KeptPorts
from nats_executor.local.prefixed import Prefixed
from nats_executor.local.process import LocalError
from nats_executor.options import OPTIONS, SECTION
from nats_executor.wire.queue_names import as_text

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

    from nats_executor.local.process import Process

__all__ = ["login_again", "run_standalone"]

OWNER_ONLY = 0o600

EXECUTOR = "nats_executor.NatsExecutor"
COMPONENT_SECONDS = 10.0
# A person who types Ctrl-C will not wait nine minutes, a worker's default, for running tasks.
WORKER_DRAIN_SECONDS = 5
WORKER_KILL_SECONDS = 5
SHOW_SECONDS = 0.2
READY_LOOK_SECONDS = 1.0
# What a worker logs before its first pull.
READY_TEXT = " is ready: queues "
WORKER_END_SECONDS = WORKER_DRAIN_SECONDS + WORKER_KILL_SECONDS + COMPONENT_SECONDS
# Workers stop before the rest, which they need until then.
END_SECONDS = WORKER_END_SECONDS + COMPONENT_SECONDS
LOOPBACK = "127.0.0.1"
# Of `[api] port` and `[api] host`.
AIRFLOWS_PORT = 8080
AIRFLOWS_DEFAULT = "0.0.0.0"  # noqa: S104 - compared with, not bound to
EVERYWHERE = {"0.0.0.0", "::", ""}  # noqa: S104 - compared with, not bound to


def run_standalone(args: Namespace) -> None:
    """Run everything until Ctrl-C or SIGTERM, then stop it; exit with 1 when a component dies.

    Args:
        args: `queues` of the workers, separated by commas (None for Airflow's default queue),
            `workers` (how many), `concurrency` (of each, None for the option) and `port` (None
            for `[api] port`).
    """
    out = Prefixed(Console(highlight=False))
    with interrupts_raised():
        try:
            run_everything(out, args)
        except Interrupted as exc:
            out.say(f"stopped by {exc}")
        except NatsExecutorError as exc:
            sys.stderr.write(f"airflow nats standalone: {exc}\n")
            raise SystemExit(1) from None


def run_everything(out: Prefixed, args: Namespace) -> None:
    """Start everything and watch it until it is interrupted."""
    from airflow.configuration import AIRFLOW_HOME, conf

    home, host = Path(AIRFLOW_HOME), host_of_ui()
    ports = KeptPorts(home / "standalone_ports.json", out.say)
    port = port_of_ui(args.port, ports, host)
    env = standalone_environment(out, home, host=host, port=port)
    if passwords := password_file():
        keep_to_owner(passwords)
    with ExitStack() as stack:
        server = None
        if is_alone():
            server = EmbeddedServer(home / "nats", port=ports.take("nats-server", host=HOST))
            stack.enter_context(server)
            env |= server.environment()
            out.say(f"nats-server with JetStream at {server.url}")
            out.say(f"to use it in other terminals: set -a; . {client_file(server)}; set +a")
        deployment = Deployment(
            env=env,
            logs=Path(conf.get("logging", "base_log_folder"), "standalone"),
            grace_seconds=COMPONENT_SECONDS,
            worker_grace_seconds=WORKER_END_SECONDS,
        )
        core = stack.enter_context(Components(needs=server or ()))
        workers = stack.enter_context(Components(needs=core))
        stack.enter_context(stop_told(out))
        queues = args.queues or as_text([conf.get_mandatory_value("operators", "default_queue")])
        first = [deployment.migration()]
        if server is not None:  # the users of another one may not be allowed to
            first.append(deployment.setup(queues=queues))
        out.say("bringing the database up to date")
        core.run(*first, seconds=MIGRATE_SECONDS)
        core.start(deployment.core(host=host, port=port))
        workers.start(
            deployment.worker(f"worker-{n}", queues=queues, concurrency=args.concurrency)
            for n in range(1, args.workers + 1)
        )
        look_after(out, workers, AirflowApi(port, host=LOOPBACK if host in EVERYWHERE else host))


@contextmanager
def stop_told(out: Prefixed) -> Iterator[None]:
    """Answer an interrupt at once, as stopping takes its time."""
    try:
        yield
    except Interrupted:
        out.say(f"stopping: waiting up to {END_SECONDS:g} s")
        raise


def host_of_ui() -> str:
    """Return where the UI listens: on loopback, unless another address is chosen.

    Airflow writes its default into the first `airflow.cfg`, so there it is no one's choice.
    """
    from airflow.configuration import conf

    host = str(conf.get("api", "host"))
    is_chosen = host != AIRFLOWS_DEFAULT or variable("api", "host") in os.environ
    return host if is_chosen else LOOPBACK


def port_of_ui(given: int | None, ports: KeptPorts, host: str) -> int:
    """Return the port of the UI: the one that is chosen, else that of the last start.

    Raises:
        LocalError: a chosen port cannot be used.
    """
    from airflow.configuration import conf

    configured = conf.getint("api", "port")
    is_chosen = configured != AIRFLOWS_PORT or variable("api", "port") in os.environ
    if given is None and not is_chosen:
        return ports.take("Airflow's UI", host=host, default=configured)
    port, setting = (configured, "[api] port") if given is None else (given, "--port")
    require_free_port(port, host=host, setting=setting)
    ports.keep("Airflow's UI", port)
    return port


def look_after(out: Prefixed, workers: Components, api: AirflowApi) -> None:
    """Watch everything, and print the login once all of it is ready."""
    watch(out, workers, lambda: api.is_healthy() and all(map(is_serving, workers.processes)))
    out.say(f"Airflow is ready at http://{api.host}:{api.port}")
    out.say(login_hint())
    watch(out, workers)


def watch(
    out: Prefixed, components: Components, is_done: Callable[[], bool] = lambda: False
) -> None:
    """Print the components' log lines until something is so, or one of them dies."""
    next_look = 0.0
    while True:
        out.show_logs(components)
        components.require_alive()
        if time.monotonic() > next_look:
            if is_done():
                out.show_logs(components)  # what it was seen by
                return
            next_look = time.monotonic() + READY_LOOK_SECONDS
        time.sleep(SHOW_SECONDS)


def is_serving(worker: Process) -> bool:
    """Whether a worker says in its log that it takes workloads."""
    return READY_TEXT in worker.log.read_text(errors="replace")


def is_alone() -> bool:
    """Whether no NATS server is configured.

    Airflow writes every default into the first `airflow.cfg`, so there the default means nothing;
    in the environment it does.
    """
    from airflow.configuration import conf

    if any(f"{variable(SECTION, 'servers')}{way}" in os.environ for way in ("", "_CMD", "_SECRET")):
        return False
    default = next(option.default for option in OPTIONS if option.name == "servers")
    return str(conf.get(SECTION, "servers", fallback=default)).strip() == default


def standalone_environment(out: Prefixed, home: Path, *, host: str, port: int) -> dict[str, str]:
    """Return the user's environment with what this command decides for the components."""
    from airflow.configuration import conf

    env = dict(os.environ) | python_environment(home)
    decided = {
        ("api", "host"): host,
        ("api", "port"): str(port),
        (SECTION, "drain_seconds"): str(WORKER_DRAIN_SECONDS),
        (SECTION, "kill_seconds"): str(WORKER_KILL_SECONDS),
    }
    if EXECUTOR.rpartition(".")[2] not in conf.get("core", "executor"):
        out.say(f"[core] executor = {conf.get('core', 'executor')}: using {EXECUTOR} instead")
        decided["core", "executor"] = EXECUTOR
    if not conf.get("core", "execution_api_server_url", fallback=None):
        # Airflow's own default does not know of another port than 8080.
        decided["core", "execution_api_server_url"] = f"http://localhost:{port}/execution/"
    if not conf.get("api_auth", "jwt_private_key_path", fallback=None):
        # Without one, each process would make up a secret of its own.
        decided["api_auth", "jwt_secret"] = conf.get("api_auth", "jwt_secret")
    return env | {variable(*option): value for option, value in decided.items()}


def variable(section: str, key: str) -> str:
    return f"AIRFLOW__{section}__{key}".upper()


def client_file(server: EmbeddedServer) -> str:
    """Write the server's address and token for a shell to read; return the quoted path."""
    path = server.directory / "client.env"
    variables = server.environment().items()
    write_private(path, "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables))
    return shlex.quote(str(path))


def password_file() -> Path | None:
    """Return where Airflow keeps the passwords that it makes up, None if it makes up none."""
    from airflow.configuration import conf

    is_simple = conf.get("core", "auth_manager").endswith(".SimpleAuthManager")
    if not is_simple or conf.getboolean("core", "simple_auth_manager_all_admins"):
        return None
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    return Path(SimpleAuthManager.get_generated_password_file())


def keep_to_owner(path: Path) -> None:
    """Let its owner alone read a file, there or not yet; Airflow would let all read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=OWNER_ONLY)
    path.chmod(OWNER_ONLY)


def login_again() -> str:
    """Return the login of the UI, without starting anything.

    Raises:
        LocalError: there is none yet.
    """
    passwords = password_file()
    if passwords and not (passwords.exists() and passwords.stat().st_size):
        raise LocalError(f"no login yet in {passwords}: start `airflow nats standalone` first")
    return login_hint()


def login_hint() -> str:
    """Return how to log in, as far as this command can know."""
    from airflow.configuration import conf

    manager = conf.get("core", "auth_manager")
    if not manager.endswith(".SimpleAuthManager"):
        return f"log in as {manager} wants it"
    if conf.getboolean("core", "simple_auth_manager_all_admins"):
        return "no login needed"
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    path = SimpleAuthManager.get_generated_password_file()
    users = ", ".join(
        f"{user} / {word}" for user, word in SimpleAuthManager.get_passwords().items()
    )
    return f"login: {users} (from {path})"
