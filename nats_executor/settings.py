"""Reads the settings of one process from Airflow's configuration, once, and checks them.

Beside this module only `local/standalone.py` reads `[nats_executor]`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from bisect import bisect_right
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from nats_executor.errors import ConfigError
from nats_executor.option import CONVERTERS, FORMS
from nats_executor.options import LOG_SCHEME, OPTIONS, SECTION
from nats_executor.wire.names import Lane, Names, token

if TYPE_CHECKING:
    from nats_executor.option import Option

__all__ = ["SEED", "Settings", "option_error", "without_userinfo"]

DEFAULT_PREFIX = next(str(o.default) for o in OPTIONS if o.name == "subject_prefix")
SENSITIVE = frozenset(option.name for option in OPTIONS if option.sensitive)
SCHEMES = frozenset({"nats", "tls", "ws", "wss"})
# Each one costs a pull for every free slot, and one that waits for every idle worker.
MOST_BANDS = 9
WHOLE = 100  # percent
# Each is tried before a worker takes anything.
MOST_MODULES = 50
# Two of the largest dead letters have to fit, or one would be refused for ever.
LEAST = {"max_results_bytes": 1024 * 1024, "max_dead_letters_bytes": 16 * 1024 * 1024}
LAST_PORT = 65_535
# An NKey of a user, as text.
SEED = r"SU[A-Z2-7]{56}"


class Configuration(Protocol):
    """The part of Airflow's `conf`, or of an executor's team-aware `conf`, that is used here."""

    def get(self, section: str, key: str, *, fallback: Any) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """Every option of `[nats_executor]`, named as in the configuration; durations in seconds.

    Attributes:
        stores_logs: whether Airflow is told to keep task logs in NATS.
    """

    servers: tuple[str, ...]
    user: str | None
    password: str | None
    token: str | None
    nkey_seed: str | None
    credentials_file: str | None
    tls_ca_file: str | None
    tls_certificate_file: str | None
    tls_key_file: str | None
    tls_handshake_first: bool
    inbox_prefix: str
    connect_timeout_seconds: float
    subject_prefix: str
    jetstream_domain: str | None
    replicas: int
    storage: str
    max_stream_bytes: int
    max_results_bytes: int
    max_dead_letters_bytes: int
    result_retention_seconds: int
    dead_letter_retention_seconds: int
    log_retention_seconds: int
    max_log_bucket_bytes: int
    publish_timeout_seconds: float
    ack_wait_seconds: float
    sweep_seconds: float
    explain_after_seconds: float
    max_attempts: int
    priority_bands: tuple[int, ...]
    queue_limits: tuple[tuple[str, int], ...] | None
    worker_concurrency: int
    starts_at_once: int | None
    pool_slots_as_weight: bool
    workloads_per_supervisor: int
    dag_zygotes: str
    preload_modules: tuple[str, ...] | None
    memory_high_percent: float
    memory_pressure_percent: float
    heartbeat_seconds: float
    worker_lost_seconds: float
    worker_forgotten_seconds: float
    start_timeout_seconds: float
    drain_seconds: float
    kill_seconds: float
    health_port: int
    health_address: str
    stores_logs: bool

    @classmethod
    def load(cls, conf: Configuration, *, team: str | None = None) -> Settings:
        """Read, convert and check every option.

        Args:
            conf: Airflow's configuration, or `ExecutorConf(team)` for a team; Airflow does not
                let a team's section inherit from the global one.
            team: the team whose section `conf` reads; it gets a subject prefix of its own.

        Raises:
            ConfigError: an option's value cannot work.
        """
        values = {option.name: parse(option, conf) for option in OPTIONS}
        if team and values["subject_prefix"] == DEFAULT_PREFIX:
            values["subject_prefix"] = Names(DEFAULT_PREFIX).for_team(team).prefix
        values["inbox_prefix"] = (
            values["inbox_prefix"] or f"_INBOX_{token(values['user'] or 'airflow')}"
        )
        folder = conf.get("logging", "remote_base_log_folder", fallback=None) or ""
        settings = cls(**values, stores_logs=folder.startswith(f"{LOG_SCHEME}:"))
        require_valid(settings)
        return settings

    @property
    def names(self) -> Names:
        return Names(self.subject_prefix)

    def limit(self, queue: str) -> int | None:
        """Return how many workloads of a queue may run at a time, None for any number."""
        return next((limit for name, limit in self.queue_limits or () if name == queue), None)

    def lanes(self, queue: str) -> list[Lane]:
        """Return the lanes of a queue, the most urgent one first.

        A limited queue has one: NATS limits consumers, and each lane has a consumer of its own.
        """
        return [Lane(queue, band) for band in range(self._highest_band(queue), -1, -1)]

    def lane(self, queue: str, priority: int | None) -> Lane:
        """Return the lane of a workload; without a priority, as callbacks are, the most urgent."""
        highest = self._highest_band(queue)
        if priority is None:
            return Lane(queue, highest)
        return Lane(queue, min(highest, bisect_right(self.priority_bands, priority)))

    def _highest_band(self, queue: str) -> int:
        return 0 if self.limit(queue) else len(self.priority_bands)

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={self.shown(f.name)}" for f in fields(self))
        return f"Settings({shown})"

    def shown(self, name: str) -> str:
        """Return an option's value for a person, without anything secret."""
        value = getattr(self, name)
        if name in SENSITIVE and value is not None:
            return "'***'"
        if name == "servers":
            return repr(self.shown_servers)
        return repr(as_written(value))

    @property
    def shown_servers(self) -> str:
        """The servers as a person writes them, without passwords."""
        return ", ".join(map(without_userinfo, self.servers))


def as_written(value: object) -> object:
    """Return a list as a person writes it, such as `gpu=4, a=1`; anything else as it is."""
    if not isinstance(value, tuple):
        return value
    return ", ".join("=".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in value)


def without_userinfo(server: str) -> str:
    """Cut a password off an address that need not be a valid one."""
    return re.sub(r"^([a-z]+://)?.*@", r"\1", server, flags=re.DOTALL | re.IGNORECASE)


def parse(option: Option, conf: Configuration) -> Any:
    """Read one option and convert it to its type.

    A value that came from a `_cmd` ends with that command's newline, hence the strip.
    """
    raw = conf.get(SECTION, option.name, fallback=option.default)
    text = "" if raw is None else str(raw).strip()
    if option.name == "servers":
        return tuple(server.strip() for server in text.split(",") if server.strip())
    if not text:
        return None if option.default is None else convert(option, option.default)
    return convert(option, text)


def convert(option: Option, text: str) -> Any:
    form = option.form or option.type
    try:
        return CONVERTERS[form](text)
    except ValueError as exc:
        remedy = f"write {FORMS[form]}, for example {option.example}"
        raise option_error(option.name, text, remedy) from exc


def option_error(name: str, value: object, remedy: str) -> ConfigError:
    # A refused address need not be one, so its password cannot be told from the rest.
    is_secret = name in SENSITIVE or (name == "servers" and "@" in str(value))
    shown = "***" if is_secret else repr(as_written(value))
    return ConfigError(f"[{SECTION}] {name} = {shown}: {remedy}")


def require_valid(settings: Settings) -> None:
    """Raise `ConfigError` for the first option that cannot work, with the remedy."""
    for name, is_valid, remedy in checks(settings):
        if not is_valid:
            raise option_error(name, getattr(settings, name), remedy)


def checks(s: Settings) -> list[tuple[str, bool, str]]:
    """Return every rule as (option, whether it holds, what to do if not)."""
    return [
        *connection_checks(s),
        *name_checks(s),
        *limit_checks(s),
        *start_checks(s),
        *health_checks(s),
    ]


def connection_checks(s: Settings) -> list[tuple[str, bool, str]]:
    paths = ("credentials_file", "tls_ca_file", "tls_certificate_file", "tls_key_file")
    ways = [n for n in ("user", "token", "nkey_seed", "credentials_file") if getattr(s, n)]
    seed = "write the seed of a user (SU...), or name a file that this process can read"
    choice = f"choose one way to log in, not {' and '.join(ways)}"
    return [
        ("servers", bool(s.servers), "name at least one server, such as nats://nats-1:4222"),
        ("servers", all(map(is_server, s.servers)), "write nats://host:port, separated by commas"),
        ("user", bool(s.user) == bool(s.password), "set user and password together"),
        *[(n, False, choice) for n in ways[1:]],
        ("nkey_seed", is_seed(s.nkey_seed), seed),
        *[(n, is_readable(getattr(s, n)), "name a file that this process can read") for n in paths],
        (
            "tls_key_file",
            bool(s.tls_key_file) == bool(s.tls_certificate_file),
            "set tls_certificate_file and tls_key_file together",
        ),
    ]


def name_checks(s: Settings) -> list[tuple[str, bool, str]]:
    return [
        (
            "subject_prefix",
            bool(re.fullmatch(r"[a-z0-9_-]{1,100}", s.subject_prefix)),
            "use lower-case letters, digits, - and _",
        ),
        (
            "inbox_prefix",
            bool(re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", s.inbox_prefix)),
            "use tokens of letters, digits, - and _, joined by dots",
        ),
    ]


def limit_checks(s: Settings) -> list[tuple[str, bool, str]]:
    positive = (
        "connect_timeout_seconds", "publish_timeout_seconds", "sweep_seconds", "heartbeat_seconds",
        "result_retention_seconds", "dead_letter_retention_seconds", "log_retention_seconds",
        "max_log_bucket_bytes", "max_attempts", "worker_concurrency", "workloads_per_supervisor",
    )  # fmt: skip
    is_size = s.max_stream_bytes == -1 or s.max_stream_bytes > 0
    return [
        ("replicas", s.replicas in {1, 3, 5}, "write 1, 3 or 5"),
        ("storage", s.storage in {"file", "memory"}, "write file or memory"),
        ("dag_zygotes", s.dag_zygotes in {"off", "auto", "on"}, "write off, auto or on"),
        ("max_stream_bytes", is_size, "write -1 or a size"),
        *[(n, getattr(s, n) >= least, f"write at least {least}") for n, least in LEAST.items()],
        *[(n, getattr(s, n) > 0, "write a number above 0") for n in positive],
        *[
            (n, 0 <= getattr(s, n) <= WHOLE, "write a number from 0 to 100")
            for n in ("memory_high_percent", "memory_pressure_percent")
        ],
        (
            "priority_bands",
            list(s.priority_bands) == sorted(set(s.priority_bands))
            and len(s.priority_bands) <= MOST_BANDS,
            f"write at most {MOST_BANDS} numbers, each greater than the one before",
        ),
        # Below a second the renewals of a busy worker would arrive too late.
        ("ack_wait_seconds", s.ack_wait_seconds >= 1, "write at least 1"),
        (
            "worker_lost_seconds",
            s.worker_lost_seconds >= 2 * s.heartbeat_seconds,
            f"write at least twice heartbeat_seconds ({s.heartbeat_seconds:g})",
        ),
        ("explain_after_seconds", s.explain_after_seconds >= 0, "write 0 or more"),
        ("worker_forgotten_seconds", s.worker_forgotten_seconds >= 0, "write 0 or more"),
        ("drain_seconds", s.drain_seconds >= 0, "write 0 or more"),
        ("kill_seconds", s.kill_seconds >= 0, "write 0 or more"),
    ]


def start_checks(s: Settings) -> list[tuple[str, bool, str]]:
    return [
        (
            "preload_modules",
            len(s.preload_modules or ()) <= MOST_MODULES,
            f"name at most {MOST_MODULES} modules",
        ),
        (
            "starts_at_once",
            s.starts_at_once is None or s.starts_at_once > 0,
            f"write {FORMS['auto']}",
        ),
        ("start_timeout_seconds", s.start_timeout_seconds >= 1, "write at least 1"),
    ]


def health_checks(s: Settings) -> list[tuple[str, bool, str]]:
    port = f"write a port up to {LAST_PORT}, or 0 for none"
    address = "write an IP address of this machine, 0.0.0.0 for all of them"
    return [
        ("health_port", 0 <= s.health_port <= LAST_PORT, port),
        ("health_address", is_address(s.health_address), address),
    ]


def is_server(address: str) -> bool:
    try:
        parts = urlsplit(address if "://" in address else f"nats://{address}")
        is_host = re.fullmatch(r"[\w.:%-]+", parts.hostname or "")
        return parts.scheme in SCHEMES and bool(is_host) and parts.port != 0
    except ValueError:
        return False


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_seed(seed: str | None) -> bool:
    return seed is None or bool(re.fullmatch(SEED, seed)) or is_readable(seed)


def is_readable(path: str | None) -> bool:
    is_directory = path is not None and os.path.isdir(path)  # noqa: PTH112 - os is what is let in
    return path is None or (os.access(path, os.R_OK) and not is_directory)
