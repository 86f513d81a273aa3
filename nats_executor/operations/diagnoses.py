"""Judges what an examination of a deployment has found, each finding with its remedy. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nats_executor.operations.survey import check_row
from nats_executor.text import presentable
from nats_executor.wire.sizes import ANSWER_BYTES, WORKLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats_executor.broker.port import ServerOffer
    from nats_executor.fleet.presences import Record
    from nats_executor.fleet.queues import Row
    from nats_executor.operations.schedulers import AskedExecutor

__all__ = [
    "ApiLook",
    "BrokerLook",
    "FileLook",
    "TimedAnswer",
    "api_findings",
    "broker_findings",
    "clock_findings",
    "file_findings",
    "is_fine",
    "scheduler_findings",
    "version_findings",
]

DAY = 86400.0
# A certificate that ends sooner has to be renewed now.
EXPIRY_DAYS = 14.0
# Beyond what a busy machine and its network need; Airflow's tokens are judged with 10 s to spare.
SKEW_SECONDS = 5.0
NOT_FOUND, UNAUTHORIZED, FORBIDDEN = 404, 401, 403
# Others than the owner who may read or write a file.
OTHERS = 0o077
# Statuses that need no person.
FINE = frozenset({"ok", "unknown"})


@dataclass(frozen=True, slots=True)
class BrokerLook:
    """NATS as seen from this machine.

    Attributes:
        seconds: from a question to its answer.
        clock: by how many seconds the server's clock is ahead of this machine's; None if no stream
            told it.
    """

    seconds: float
    clock: float | None
    offer: ServerOffer


@dataclass(frozen=True, slots=True)
class ApiLook:
    """Airflow's API server as seen from this machine.

    Attributes:
        url: without a login.
        error: why there was no answer, '' if there was one.
        is_api: whether the answer can only be the Execution API's.
        clock: by how many seconds its clock is ahead, to the second; None if it does not tell.
        token_error: why no token was made here, '' if one was.
        token_status: of the answer to a request with the token; 0 without one.
        token_detail: what that answer says.
    """

    url: str
    error: str = ""
    seconds: float = 0.0
    is_api: bool = False
    clock: float | None = None
    token_error: str = ""
    token_status: int = 0
    token_detail: Any = None


@dataclass(frozen=True, slots=True)
class FileLook:
    """A file of `[nats_executor]` on this machine.

    Attributes:
        option: which names it.
        mode: its permissions, None if it cannot be looked at.
        is_secret: whether others must not read it.
        ends: when its certificate expires, in epoch seconds; None if it holds none.
    """

    option: str
    path: str
    mode: int | None
    is_secret: bool
    ends: float | None = None


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """The answer of a scheduler's executor, and by how many seconds its clock is ahead."""

    asked: AskedExecutor
    clock: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def is_fine(row: Row) -> bool:
    """Whether a row needs no person."""
    return row["status"] in FINE


def version_findings(here: Mapping[str, str], workers: Mapping[str, str]) -> list[Row]:
    """Return the versions of this machine, and the workers of another release.

    Args:
        here: the versions by their name; `airflow-nats-executor` is this package's.
        workers: the release of each worker, by its name.
    """
    ours = here["airflow-nats-executor"]
    rows = [check_row("versions", "ok", ", ".join(f"{n} {v}" for n, v in here.items()))]
    for name, version in sorted(workers.items()):
        if version != ours:
            details = f"release {presentable(version)}, {ours} here; update it, or this machine"
            rows.append(check_row(f"worker {presentable(name)}", "other version", details))
    return rows


def scheduler_findings(
    answers: Sequence[TimedAnswer] | None, here: Mapping[str, str], database: str
) -> list[Row]:
    """Return a row or more for each scheduler.

    Args:
        answers: None where the database was not asked, or gave no answer.
        database: why not.
    """
    if answers is None:
        return [check_row("schedulers", "unknown", presentable(database))]
    if not answers:
        return [check_row("schedulers", "none", "no scheduler is alive; run: airflow scheduler")]
    return [row for answer in answers for row in of_scheduler(answer, here)]


def of_scheduler(answer: TimedAnswer, here: Mapping[str, str]) -> list[Row]:
    what, state = f"scheduler {answer.asked.job}", answer.asked.state
    if state is None:
        details = f"{presentable(answer.asked.silence)}; look into its log"
        return [check_row(what, "silent", details)]
    rows: list[Row] = []
    wanted = {
        "airflow-nats-executor": state.version,
        "apache-airflow": state.airflow_version,
        "python": state.python_version,
    }
    for name, version in wanted.items():
        if differs(name, here[name], version):
            details = f"{name} {presentable(version)}, {here[name]} here; use the same everywhere"
            rows.append(check_row(what, "other version", details))
    if state.trouble:
        details = f"it cannot send workloads: {presentable(state.trouble)}"
        rows.append(check_row(what, "trouble", details))
    rows += [check_row(what, "refused", presentable(text)) for text in state.refused]
    limit = state.parallelism or "no limit"
    figures = (
        f"{state.waiting} waiting to be sent, {state.running} of {limit} slots used, "
        f"{state.tracked} sent and not over"
    )
    return rows or [check_row(what, "ok", f"on {presentable(state.host)}: {figures}")]


def differs(name: str, ours: str, theirs: str) -> bool:
    """Whether two versions must not meet; of Python the last number does not count."""
    if name == "python":
        return ours.split(".")[:2] != theirs.split(".")[:2]
    return ours != theirs


def broker_findings(look: BrokerLook, now: float) -> list[Row]:
    """Return how long NATS takes to answer, what it allows, and its certificate's days."""
    rows = [check_row("broker answer", "ok", f"within {1000 * look.seconds:.1f} ms")]
    limit = look.offer.max_payload
    if limit < ANSWER_BYTES:
        details = (
            f"max_payload is {limit} bytes: logs of running tasks do not fit; "
            f"set it to {WORKLOAD_BYTES} in the server's configuration"
        )
        rows.append(check_row("limits", "low", details))
    elif limit < WORKLOAD_BYTES:
        details = (
            f"max_payload is {limit} bytes, and a larger workload fails; "
            f"{WORKLOAD_BYTES} is the most that is of use"
        )
        rows.append(check_row("limits", "ok", details))
    else:
        rows.append(check_row("limits", "ok", f"max_payload is {limit} bytes"))
    if ends := look.offer.certificate_ends:
        rows.append(expiry("the server's certificate", "on the server", ends, now))
    return rows


def expiry(what: str, where: str, ends: float, now: float) -> Row:
    days = (ends - now) / DAY
    if days < 0:
        return check_row(what, "expired", f"{-days:.0f} days ago; renew it {where}")
    if days < EXPIRY_DAYS:
        return check_row(what, "expires soon", f"in {days:.1f} days; renew it {where}")
    return check_row(what, "ok", f"valid for {days:.0f} days")


def file_findings(looks: Sequence[FileLook], now: float) -> list[Row]:
    """Return which files others may read, and how long certificates are valid."""
    rows: list[Row] = []
    for look in looks:
        what = f"[nats_executor] {look.option}"
        if look.mode is None:
            details = f"cannot look at {look.path!r}; name a file that this process can read"
            rows.append(check_row(what, "unreadable", details))
            continue
        if look.is_secret and look.mode & OTHERS:
            details = f"mode {look.mode:04o}: others may read it; run: chmod 600 {look.path}"
            rows.append(check_row(what, "readable by others", details))
        if look.ends is not None:
            rows.append(expiry(what, "on this machine", look.ends, now))
    return rows


def clock_findings(
    broker: float | None,
    workers: Sequence[Record],
    schedulers: Sequence[TimedAnswer],
) -> list[Row]:
    """Return which clocks differ from that of NATS, by whose clock ages are judged.

    Args:
        broker: by how many seconds the server's clock is ahead of this machine's.
    """
    if broker is None:
        return [check_row("clocks", "unknown", "NATS has no stream yet that tells its time")]
    clocks = {"this machine": -broker}
    for record in workers:
        if record.presence.at:
            name = f"worker {presentable(record.presence.name)}"
            clocks[name] = record.presence.at - record.at
    for answer in schedulers:
        if answer.clock is not None:
            clocks[f"scheduler {answer.asked.job}"] = answer.clock - broker
    rows = [
        check_row(
            f"clock of {name}",
            "skewed",
            f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} that of NATS; "
            "set both by NTP",
        )
        for name, ahead in sorted(clocks.items())
        if abs(ahead) > SKEW_SECONDS
    ]
    most = max(map(abs, clocks.values()))
    fine = f"{len(clocks)} within {SKEW_SECONDS:g} s of that of NATS, {most:.1f} s at most"
    return rows or [check_row("clocks", "ok", fine)]


def api_findings(look: ApiLook, *, leeway: float, named: Mapping[str, str]) -> list[Row]:
    """Return whether the API server is there, and whether it accepts a token made here.

    Args:
        leeway: seconds that it grants to clocks.
        named: what this machine's tokens name, by option; no secret is among it.
    """
    what, option = "API server", "[core] execution_api_server_url"
    if look.error:
        details = f"{look.url}: {presentable(look.error)}; start it, or set {option} as seen here"
        return [check_row(what, "unreachable", details)]
    if not look.is_api:
        details = f"what answers at {look.url} is not Airflow's Execution API; set {option}"
        return [check_row(what, "wrong address", details)]
    rows = [check_row(what, "ok", f"{look.url} answers within {1000 * look.seconds:.1f} ms")]
    return [*rows, token_finding(look, leeway=leeway, named=named)]


def token_finding(look: ApiLook, *, leeway: float, named: Mapping[str, str]) -> Row:
    """Return the row of the token."""
    what = "API token"
    if look.token_error:
        details = (
            f"none can be made here: {presentable(look.token_error)}; set [api_auth] jwt_secret to "
            "the same text for API servers and schedulers. A worker needs none"
        )
        return check_row(what, "missing", details)
    if is_accepted(look.token_status, look.token_detail):
        return check_row(what, "ok", "the API server accepts a token made here")
    if look.token_status not in {UNAUTHORIZED, FORBIDDEN}:
        details = f"the API server answers {look.token_status} to it; look into its log"
        return check_row(what, "unclear", details)
    said = f"the API server refuses a token made here ({look.token_status})"
    if look.clock is not None and abs(look.clock) > leeway:
        side = "ahead" if look.clock > 0 else "behind"
        details = f"{said}: its clock is {abs(look.clock):.0f} s {side}; set both clocks by NTP"
        return check_row(what, "refused", details)
    options = ", ".join(f"{option} = {value!r}" for option, value in named.items())
    details = (
        f"{said}, and the clocks agree: [api_auth] jwt_secret must be the same there and here, and "
        f"so must {options}"
    )
    return check_row(what, "refused", details)


def is_accepted(status: int, detail: Any) -> bool:
    """Whether the API server has read a token of a workload, and then refused the route to it.

    Such a token opens a start alone, so a question with it is harmless. The refusal names the
    token's type only after the token itself was found valid.
    """
    if status == FORBIDDEN:
        return isinstance(detail, str) and detail.startswith("Token type")
    return status == NOT_FOUND and isinstance(detail, dict) and "reason" in detail
