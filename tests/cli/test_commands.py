"""`airflow nats setup`, `check`, `queues list` and `workers list`, on a real nats-server."""

from __future__ import annotations

import csv
import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from airflow.cli.cli_parser import get_parser
from airflow.utils.platform import getuser

from nats_executor.cli import arguments, commands
from nats_executor.wire.queue_names import as_argument, as_text
from tests.cli.conftest import WELL
from tests.support.nats_server import free_port
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.broker.port import Broker, Config
    from tests.cli.conftest import Console
    from tests.support.fixtures import MakeNatsServer
    from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.integration

ODD = ["a.b", "a b", "*", ">", "größe", "x" * 200, "A", "a--" + "0" * 32]


def checked(console: Console) -> tuple[int, dict[str, tuple[str, str]]]:
    """Run `check` and return its exit code and rows, past what it says of the server's release."""
    code, output = console.run(commands.check, output="json")
    rows = {row["check"]: (row["status"], row["details"]) for row in json.loads(output)}
    if rows.pop("nats-server", ("ok", ""))[0] != "ok":
        assert code == WELL
        code = int(any(status != "ok" for status, _ in rows.values()))
    return code, rows


# setup


def test_setup_creates_everything_and_may_be_repeated(console: Console) -> None:
    names = console.settings.names

    code, output = console.run(commands.setup, queues="default,gpu")

    assert code == 0
    for made in ("tasks", "results", "dead_letters", "workers"):
        stream = getattr(names, f"{made}_stream")
        assert f"created stream {stream}\n" in output
    assert "created consumer of queue 'gpu'\n" in output
    assert console.run(commands.setup, queues="default,gpu") == (
        0,
        "everything is as it should be\n",
    )
    assert console.run(commands.setup, queues="gpu", check=True)[0] == 0


def test_setup_takes_queue_names_of_any_text(console: Console) -> None:
    console.run(commands.setup, queues=",".join(ODD))

    infos = arguments.ask(
        console.settings, lambda broker: broker.consumer_infos(console.settings.names.tasks_stream)
    )
    assert sorted(info.queue for info in infos if not info.band) == sorted(ODD)
    assert len(infos) == 3 * len(ODD)
    assert console.run(commands.setup, queues=",".join(ODD))[1] == "everything is as it should be\n"


def test_setup_without_queues_takes_airflows_default(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_QUEUE", "standard")

    assert "consumer of queue 'standard'" in console.run(commands.setup, queues=" , ")[1]


def test_setup_check_changes_nothing_and_names_what_is_missing(console: Console) -> None:
    for _ in range(2):
        code, output = console.run(commands.setup, check=True)

        assert code == 1
        stream = console.settings.names.tasks_stream
        assert f"stream {stream}: does not exist\n" in output


def test_setup_check_names_a_setting_that_differs_and_setup_mends_it(console: Console) -> None:
    console.run(commands.setup)
    console.configure(ack_wait_seconds=77, max_stream_bytes=1_000_000)

    code, output = console.run(commands.setup, check=True)
    assert code == 1
    assert "consumer of queue 'default': ack_wait is 30000000000, should be 77000000000" in output
    assert "max_bytes is 536870912, should be 1000000" in output

    code, output = console.run(commands.setup)
    assert code == 0
    change = "changed consumer of queue 'default': ack_wait from 30000000000 to 77000000000"
    assert change in output
    assert console.run(commands.setup, check=True)[0] == 0


def test_setup_and_check_look_after_the_bucket_of_logs_where_logs_are_kept(
    console: Console,
) -> None:
    bucket = f"stream {console.settings.names.logs_stream}"
    assert bucket not in console.run(commands.setup)[1]
    assert bucket not in console.run(commands.setup, check=True)[1]
    console.patch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "nats://")

    assert f"{bucket}: does not exist\n" in console.run(commands.setup, check=True)[1]
    assert bucket in console.run(commands.check)[1]
    assert bucket in console.run(commands.setup)[1]
    console.configure(log_retention_seconds=3600, max_log_bucket_bytes=5_000_000)
    for command, options in ((commands.setup, {"check": True}), (commands.check, {})):
        code, output = console.run(command, **options)
        assert code == 1
        assert f"{bucket}: max_age is 2592000000000000, should be 3600000000000" in output
        assert f"{bucket}: max_bytes is 1073741824, should be 5000000" in output
    assert console.run(commands.setup)[0] == 0
    assert console.run(commands.setup, check=True)[0] == 0


def test_setup_looks_after_queues_that_it_is_not_told(console: Console) -> None:
    """Executors create consumers for queues that no option lists."""
    console.run(commands.setup, queues="gpu")
    console.configure(ack_wait_seconds=77)

    assert "consumer of queue 'gpu': ack_wait" in console.run(commands.setup, check=True)[1]


def test_setup_refuses_a_stream_that_cannot_be_mended(console: Console) -> None:
    names = console.settings.names
    create(console, {"name": names.tasks_stream, "subjects": [names.tasks()]})

    code, _ = console.run(commands.setup)

    assert code == 2
    (line,) = console.error.strip().splitlines()
    assert line.startswith(f"error: stream {names.tasks_stream}: retention is 'limits'")
    assert "nats stream rm" in line
    assert console.run(commands.setup, check=True)[0] == 1


def create(console: Console, config: Config) -> None:
    arguments.ask(
        console.settings, lambda broker: broker.create_stream({"storage": "file"} | config)
    )


# check


def test_check_of_a_system_that_is_well(console: Console) -> None:
    console.run(commands.setup, queues="default,gpu")
    console.announce("w1", "default", "gpu")
    console.send("gpu")

    code, rows = checked(console)

    assert code == 0
    assert rows == {
        "broker": ("ok", f"connected to {console.settings.servers[0]}"),
        "streams": ("ok", "as configured"),
        "dead letters": ("ok", "none"),
        "queue default": ("ok", "0 pending, served by w1"),
        "queue gpu": ("ok", "1 pending, served by w1"),
    }


def test_check_before_setup(console: Console) -> None:
    code, rows = checked(console)

    assert code == 1
    status, details = rows["streams"]
    assert status == "drift"
    assert details.endswith("does not exist: run `airflow nats setup`")


def test_check_of_a_queue_that_waits_for_a_worker(console: Console) -> None:
    console.run(commands.setup, queues="default,gpu")
    console.announce("w1", "default")
    console.announce("w2", "gpu", draining=True)
    console.send("gpu")

    code, rows = checked(console)

    assert code == 1
    status, details = rows["queue gpu"]
    assert status == "unserved"
    assert details == "1 pending and no worker; run: airflow nats worker -q gpu"


def test_check_of_a_queue_that_nobody_needs(console: Console) -> None:
    """A consumer stays when its queue is no longer used; that is no reason to worry for ever."""
    console.run(commands.setup, queues="old")

    assert checked(console) == (
        0,
        {
            "broker": ("ok", f"connected to {console.settings.servers[0]}"),
            "streams": ("ok", "as configured"),
            "dead letters": ("ok", "none"),
            "queue old": ("ok", "empty, no worker"),
        },
    )


def test_check_of_a_lost_worker(console: Console) -> None:
    console.run(commands.setup)
    console.announce("w1", "default")
    assert checked(console)[0] == 0
    console.configure(heartbeat_seconds=0.01, worker_lost_seconds=0.02)

    code, rows = block_until(lambda: lost(console), 5, "the worker to be lost")

    assert code == 1
    assert rows["worker w1"][0] == "lost"
    assert rows["worker w1"][1].startswith("silent for ")


def lost(console: Console) -> tuple[int, dict[str, Any]] | None:
    code, rows = checked(console)
    return (code, rows) if "worker w1" in rows else None


# A broker that cannot be asked

ALL = [commands.check, commands.setup, commands.queues_list, commands.workers_list]


@pytest.mark.parametrize("command", ALL)
def test_a_broker_that_is_down(console: Console, command: Any) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    console.configure(servers=url, connect_timeout_seconds=0.3)

    code, output = console.run(command)

    assert (code, output) == (2, "")
    (line,) = console.error.strip().splitlines()
    assert line.startswith(f"error: cannot reach NATS at {url}: ")
    assert line.endswith("check [nats_executor] servers")


def test_a_broker_that_hangs(console: Console, private_nats_server: NatsServer) -> None:
    console.configure(servers=private_nats_server.url, connect_timeout_seconds=0.3)
    private_nats_server.pause()

    code, _ = console.run(commands.check)

    private_nats_server.resume()
    assert code == 2
    (line,) = console.error.strip().splitlines()
    assert line.startswith("error: ")
    assert private_nats_server.url in line
    assert "check [nats_executor] servers" in line


def test_a_wrong_password(console: Console, make_nats_server: MakeNatsServer) -> None:
    server = make_nats_server(config="authorization { user: airflow, password: right }")
    console.configure(
        servers=server.url, user="airflow", password="wrong", connect_timeout_seconds=0.5
    )

    code, output = console.run(commands.check)

    assert (code, output) == (2, "")
    (line,) = console.error.strip().splitlines()
    assert line.startswith(f"error: NATS at {server.url} refuses user airflow: ")
    assert "check [nats_executor] user" in line
    assert "wrong" not in line
    console.configure(password="right")
    assert console.run(commands.setup)[0] == 0
    assert console.run(commands.check)[0] == WELL


def test_a_value_that_cannot_work(console: Console) -> None:
    console.configure(replicas=2)

    assert console.run(commands.check) == (2, "")
    assert console.error == "error: [nats_executor] replicas = 2: write 1, 3 or 5\n"


def test_a_teams_own_settings(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold their own servers; Airflow does not let a team inherit."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    for name, value in console.environment.items():
        monkeypatch.setenv(name.replace("AIRFLOW__", "AIRFLOW__RED___", 1), value + "-red")
    monkeypatch.setenv("AIRFLOW__RED___NATS_EXECUTOR__SERVERS", console.settings.servers[0])

    code, output = console.run(commands.setup, team_name="red")

    assert code == 0
    assert f"stream {console.settings.subject_prefix.upper()}-RED_TASKS" in output


def test_a_team_that_nothing_names_is_refused(console: Console) -> None:
    """With each option's default it asked another NATS, and named the global section."""
    code, output = console.run(commands.check, team_name="rot")

    assert (code, output) == (2, "")
    assert console.error == (
        "error: no team 'rot': [core] executor names none, and nothing is set in "
        "[rot=nats_executor], such as AIRFLOW__ROT___NATS_EXECUTOR__SERVERS; check --team-name\n"
    )


@pytest.mark.parametrize("executors", ["LocalExecutor;red=nats_executor.NatsExecutor", ""])
def test_an_error_of_a_team_names_its_section(console: Console, executors: str) -> None:
    """A team is known by its executor, or, as at a worker, by one of its options alone."""
    servers = f"nats://127.0.0.1:{free_port()}"
    if executors:
        console.patch.setenv("AIRFLOW__CORE__EXECUTOR", executors)
        console.patch.setattr(arguments, "variables_of", lambda _: "NOTHING")
    console.patch.setenv("AIRFLOW__RED___NATS_EXECUTOR__SERVERS", servers)

    assert console.run(commands.check, team_name="red") == (2, "")
    assert servers in console.error
    assert "check [red=nats_executor] servers" in console.error


# Paused queues


def pause(console: Console, *consumers: str, seconds: int) -> str:
    """Pause consumers as `nats consumer pause` does; return until when."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
    stream = console.settings.names.tasks_stream

    async def carry_out(broker: Broker) -> None:
        for consumer in consumers:
            await broker.pause_consumer(stream, consumer, until.timestamp())

    arguments.ask(console.settings, carry_out)
    return until.isoformat()


def test_check_names_a_paused_queue_until_when_and_how_to_resume_it(console: Console) -> None:
    """It has messages and a worker and seems well, but nothing of it runs."""
    console.run(commands.setup, queues="default,x1")
    console.announce("far", "default", "x1")
    for number in range(12):
        console.send("x1", f"d{number}")
    until = pause(console, "x1", "x1--b1", "x1--b2", seconds=3600)

    code, rows = checked(console)

    assert code == 1
    details = f"12 pending, paused until {until}; to resume now: airflow nats queues resume x1"
    assert rows["queue x1"] == ("paused", details)
    assert rows["queue default"][0] == "ok"
    pause(console, "x1", "x1--b1", "x1--b2", seconds=-1)
    code, rows = checked(console)
    assert code == 0
    assert rows["queue x1"] == ("ok", "12 pending, served by far")


def test_check_tells_which_bands_of_a_queue_are_paused(console: Console) -> None:
    console.run(commands.setup)
    console.announce("far", "default")
    until = pause(console, "default--b2", seconds=3600)

    code, rows = checked(console)

    assert code == 1
    status, details = rows["queue default"]
    assert status == "paused"
    assert details.startswith(f"0 pending, priority band 2 paused until {until}; to resume now: ")


def test_a_paused_queue_without_workers_has_both_faults(console: Console) -> None:
    console.run(commands.setup)
    console.send("default")
    pause(console, "default", seconds=3600)

    _, output = console.run(commands.check, output="json")

    found = {row["status"] for row in json.loads(output) if row["check"] == "queue default"}
    assert found == {"unserved", "paused"}


def test_the_list_of_queues_tells_of_a_pause(console: Console) -> None:
    console.run(commands.setup, queues="default,x1")
    until = pause(console, "x1", seconds=3600)

    rows = json.loads(console.run(commands.queues_list, output="json")[1])

    assert {row["queue"]: row["paused_until"] for row in rows} == {"default": None, "x1": until}
    assert until in console.run(commands.queues_list, output="plain")[1]


def test_an_operator_pauses_a_queue_and_resumes_it(console: Console) -> None:
    """Every band of it, with a name and a reason that everyone sees; running tasks go on."""
    console.run(commands.setup, queues="default,x1")
    console.announce("far", "x1")
    console.send("x1", "d1")
    console.send("x1", "d2")
    arguments.ask(console.settings, lambda broker: take_one(console, broker, "x1"))

    told = console.run(
        commands.queues_pause, paused_queues="x1", reason="new driver", duration=None
    )

    assert told == (0, "queue x1 is paused until it is resumed: 1 pending, 1 running\n")
    (row,) = [row for row in queues_of(console) if row["queue"] == "x1"]
    by = getuser()
    assert (row["paused_until"], row["paused_by"], row["reason"]) == ("resumed", by, "new driver")
    code, rows = checked(console)
    details = f"1 pending, paused by {by} until it is resumed (new driver); to resume now: "
    assert code == 1
    assert rows["queue x1"] == ("paused", f"{details}airflow nats queues resume x1")

    told = console.run(commands.queues_resume, paused_queues="x1")

    assert told == (0, "queue x1 goes on: 1 pending, 1 running\n")
    assert all(row["paused_until"] is row["paused_by"] is None for row in queues_of(console))
    code, lines = console.run(commands.queues_resume, paused_queues="x1,default")
    assert (code, lines.splitlines()) == (
        0,
        [
            "queue x1 was not paused: 1 pending, 1 running",
            "queue default was not paused: 0 pending, 0 running",
        ],
    )


def queues_of(console: Console) -> list[dict[str, Any]]:
    code, output = console.run(commands.queues_list, output="json")
    assert code == 0
    rows: list[dict[str, Any]] = json.loads(output)
    return rows


def test_a_pause_that_is_asked_for_again_has_the_new_time_and_reason(console: Console) -> None:
    console.run(commands.setup)
    console.run(commands.queues_pause, paused_queues="default", reason="a", duration=None)

    _, told = console.run(
        commands.queues_pause, paused_queues="default", reason="b", duration=7200.0
    )

    (row,) = queues_of(console)
    assert row["reason"] == "b"
    left = datetime.fromisoformat(row["paused_until"]) - datetime.now(UTC)
    assert timedelta(hours=1) < left < timedelta(hours=3)
    assert told == f"queue default is paused until {row['paused_until']}: 0 pending, 0 running\n"


def test_nobody_is_named_for_a_pause_of_another_tool(console: Console) -> None:
    """It has another end than the one that the operator asked for."""
    console.run(commands.setup)
    console.run(commands.queues_pause, paused_queues="default", reason="a", duration=60.0)
    pause(console, "default", "default--b1", "default--b2", seconds=3600)

    (row,) = queues_of(console)
    assert row["paused_until"]
    assert row["paused_by"] is None


def test_a_band_that_is_new_in_a_paused_queue_is_paused(console: Console) -> None:
    console.configure(priority_bands=1)
    console.run(commands.setup)
    console.run(commands.queues_pause, paused_queues="default", reason="", duration=None)
    console.configure(priority_bands=3)

    console.run(commands.setup)

    _, details = checked(console)[1]["queue default"]
    assert details.startswith("0 pending, paused by ")


@pytest.mark.parametrize("command", [commands.queues_pause, commands.queues_resume])
def test_no_queue_is_paused_if_one_is_unknown(console: Console, command: Any) -> None:
    console.run(commands.setup)

    code, output = console.run(command, paused_queues="default,gpu", reason="", duration=None)

    assert code == 2
    assert (output, console.error) == ("", "error: no queue is named 'gpu'; there are: default\n")
    assert queues_of(console)[0]["paused_until"] is None


# Queues of any name

STRANGE = [
    "a,b", " lead and trail ", '"', 'say "hi"', "it's $HOME `id`", "-x", "two\nlines", "[/bold]",
]  # fmt: skip


def typed(line: str) -> Namespace:
    """Parse a printed command as a shell and Airflow's own command line do."""
    shell = f"airflow() {{ printf '%s\\0' \"$@\"; }}\n{line}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    parsed: Namespace = get_parser().parse_args(done.stdout.removesuffix("\0").split("\0"))
    return parsed


def test_the_remedy_of_check_serves_a_queue_of_any_name(console: Console) -> None:
    console.run(commands.setup, queues=as_text(STRANGE))
    for name in STRANGE:
        console.send(name)

    _, output = console.run(commands.check, output="json")

    lines = [
        row["details"].partition("run: ")[2]
        for row in json.loads(output)
        if row["status"] == "unserved"
    ]
    served = [arguments.named_queues(typed(line)) for line in lines]
    assert sorted(served) == sorted([name] for name in STRANGE)


def test_every_command_takes_a_list_of_names_of_any_text(console: Console) -> None:
    """Spaces and commas stand in quotes, as in a CSV file."""
    argument = as_argument(as_text(STRANGE))

    for words in ("worker -q", "setup --queues", "auth --user u -q", "standalone -q"):
        assert arguments.named_queues(typed(f"airflow nats {words} {argument}")) == STRANGE
    one = typed("airflow nats workers add-queue w ' lead and trail '")
    assert one.queue == " lead and trail "
    assert console.run(commands.setup, queues='"a') == (2, "")
    assert "cannot read the list of names" in console.error


@pytest.mark.parametrize("output", ["table", "plain", "json", "yaml"])
def test_what_is_shown_of_a_queue_is_its_name_and_no_markup(console: Console, output: str) -> None:
    console.run(commands.setup, queues="[/bold] :smile: [b]")
    console.announce("w1", "[/bold] :smile: [b]", "a,b")

    for command in (commands.check, commands.queues_list, commands.workers_list):
        assert "[/bold] :smile: [b]" in console.run(command, output=output)[1]


# Lists


@pytest.fixture
def busy(console: Console) -> Console:
    """Two queues and two workers with something to show."""
    console.run(commands.setup, queues="default,gpu")
    console.announce("w1", "default", "gpu")
    console.announce("w2", "default", draining=True, running=0)
    for number in range(3):
        console.send("default", f"d{number}")
    console.publish(console.settings.names.task("default", "urgent", band=2), b"urgent")
    arguments.ask(console.settings, lambda broker: take_one(console, broker))
    return console


async def take_one(console: Console, broker: Broker, queue: str = "default") -> None:
    names = console.settings.names
    pulls = await broker.pull(names.tasks_stream, names.consumer(queue))
    assert await pulls.take(1)
    await pulls.close()


QUEUES = [
    ["default", 3, [2, 0, 1], 1, None, None, 0, 1, 4, None, None, None],
    ["gpu", 0, [0, 0, 0], 0, None, None, 0, 1, 4, None, None, None],
]
QUEUE_COLUMNS = [
    "queue",
    "pending",
    "pending_by_band",
    "in_flight",
    "in_per_s",
    "out_per_s",
    "redelivered",
    "workers",
    "slots",
    "paused_until",
    "paused_by",
    "reason",
]
WORKERS = [
    ["w1", "running", ["default", "gpu"], 1, 4, "host-7", 7],
    ["w2", "draining", ["default"], 0, 4, "host-7", 7],
]
WORKER_COLUMNS = [
    "worker", "state", "queues", "running", "concurrency", "host", "pid", "last_seen_seconds",
    "version", "airflow", "python", "differs", "drained_by", "reason",
]  # fmt: skip


def rows_of(output: str, kind: str, columns: list[str]) -> list[list[Any]]:
    """Read a list back, header included; Airflow sorts the fields of YAML."""
    match kind:
        case "json":
            rows = json.loads(output)
        case "yaml":
            rows = yaml.safe_load(output)
        case "plain":
            return [line.split() for line in output.splitlines()]
        case _:
            lines = [line for line in output.splitlines() if "|" in line]
            return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter="|")]
    assert all(set(row) == set(columns) for row in rows)
    return [columns, *[[row[column] for column in columns] for row in rows]]


def as_shown(rows: list[list[Any]], kind: str) -> list[list[Any]]:
    """Return rows as a kind of output has them: JSON and YAML keep numbers and lists."""
    return rows if kind in {"json", "yaml"} else [list(map(arguments.cell, row)) for row in rows]


@pytest.mark.parametrize("kind", ["table", "json", "yaml", "plain"])
def test_the_lists(busy: Console, kind: str) -> None:
    code, queues = busy.run(commands.queues_list, output=kind)
    assert code == 0
    assert rows_of(queues, kind, QUEUE_COLUMNS) == [QUEUE_COLUMNS, *as_shown(QUEUES, kind)]

    code, workers = busy.run(commands.workers_list, output=kind)
    assert code == 0
    header, *rows = rows_of(workers, kind, WORKER_COLUMNS)
    assert header == WORKER_COLUMNS
    # The age of the record may differ by a moment.
    assert [row[:7] for row in rows] == as_shown(WORKERS, kind)


@pytest.mark.parametrize("command", [commands.queues_list, commands.workers_list])
def test_the_lists_of_nothing(console: Console, command: Any) -> None:
    assert console.run(command, output="table") == (0, "No data found\n")
    assert console.run(command, output="json") == (0, "[]\n")


def test_a_worker_that_left_is_not_listed(console: Console) -> None:
    console.run(commands.setup)
    console.announce("w1", "default")
    console.publish(console.settings.names.presence("default", "w1"), b"")

    assert console.run(commands.workers_list, output="json") == (0, "[]\n")
