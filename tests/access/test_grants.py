"""Every grant of every role, literally: a right that is added or lost shows here first."""

from __future__ import annotations

import pytest

from nats_executor.access.permissions import Role, permissions
from nats_executor.wire.names import Names
from tests.support.fixtures import settings_for

# A worker of the queue `a` with its three bands. Each of these is needed, and nothing else may be
# there: `docs/reference/permissions.md` says what each one is for.
WORKER = (
    "$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a--b2",
    "$JS.API.DIRECT.GET.AIRFLOW_TASKS.airflow.tasks.a--b2.*",
    "$JS.ACK.AIRFLOW_TASKS.a--b2.*.*.*.*.*",
    "$JS.ACK.*.*.AIRFLOW_TASKS.a--b2.*.*.*.*.>",
    "$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a--b1",
    "$JS.API.DIRECT.GET.AIRFLOW_TASKS.airflow.tasks.a--b1.*",
    "$JS.ACK.AIRFLOW_TASKS.a--b1.*.*.*.*.*",
    "$JS.ACK.*.*.AIRFLOW_TASKS.a--b1.*.*.*.*.>",
    "$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a",
    "$JS.API.DIRECT.GET.AIRFLOW_TASKS.airflow.tasks.a.*",
    "$JS.ACK.AIRFLOW_TASKS.a.*.*.*.*.*",
    "$JS.ACK.*.*.AIRFLOW_TASKS.a.*.*.*.*.>",
    "airflow.results.a.*",
    "$JS.API.DIRECT.GET.AIRFLOW_RESULTS.airflow.results.a.*",
    "airflow.dead.a.*",
    "$KV.airflow_workers.a.*",
    "$JS.API.DIRECT.GET.KV_airflow_workers.$KV.airflow_workers.a.*",
    "$O.airflow_logs.C.a.>",
    "$JS.API.DIRECT.GET.KV_airflow_holds.$KV.airflow_holds.worker.a.*",
    "$JS.API.DIRECT.GET.KV_airflow_workers.$KV.airflow_workers.*",
    "airflow.peers.*",
    "$O.airflow_logs.M.>",
    "$JS.API.STREAM.INFO.AIRFLOW_RESULTS",
    "$JS.API.STREAM.INFO.KV_airflow_workers",
    "$JS.API.STREAM.INFO.KV_airflow_holds",
)
# The same worker behind a leaf node, with its streams in the domain `hub`.
WORKER_OF_A_DOMAIN = (
    "$JS.hub.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a--b2",
    "$JS.hub.API.DIRECT.GET.AIRFLOW_TASKS.airflow.tasks.a--b2.*",
    "$JS.ACK.AIRFLOW_TASKS.a--b2.*.*.*.*.*",
    "$JS.ACK.*.*.AIRFLOW_TASKS.a--b2.*.*.*.*.>",
    "$JS.hub.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a--b1",
    "$JS.hub.API.DIRECT.GET.AIRFLOW_TASKS.airflow.tasks.a--b1.*",
    "$JS.ACK.AIRFLOW_TASKS.a--b1.*.*.*.*.*",
    "$JS.ACK.*.*.AIRFLOW_TASKS.a--b1.*.*.*.*.>",
    "$JS.hub.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a",
    "$JS.hub.API.DIRECT.GET.AIRFLOW_TASKS.airflow.tasks.a.*",
    "$JS.ACK.AIRFLOW_TASKS.a.*.*.*.*.*",
    "$JS.ACK.*.*.AIRFLOW_TASKS.a.*.*.*.*.>",
    "airflow.results.a.*",
    "$JS.hub.API.DIRECT.GET.AIRFLOW_RESULTS.airflow.results.a.*",
    "airflow.dead.a.*",
    "$JS.hub.API.$KV.airflow_workers.a.*",
    "$JS.hub.API.DIRECT.GET.KV_airflow_workers.$KV.airflow_workers.a.*",
    "$O.airflow_logs.C.a.>",
    "$JS.hub.API.DIRECT.GET.KV_airflow_holds.$KV.airflow_holds.worker.a.*",
    "$JS.hub.API.DIRECT.GET.KV_airflow_workers.$KV.airflow_workers.*",
    "airflow.peers.*",
    "$O.airflow_logs.M.>",
    "$JS.hub.API.STREAM.INFO.AIRFLOW_RESULTS",
    "$JS.hub.API.STREAM.INFO.KV_airflow_workers",
    "$JS.hub.API.STREAM.INFO.KV_airflow_holds",
)
GRANTS: dict[Role, tuple[str, ...]] = {
    Role.ADMIN: (
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.AIRFLOW_TASKS",
        "$JS.API.STREAM.INFO.AIRFLOW_RESULTS",
        "$JS.API.STREAM.INFO.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.INFO.KV_airflow_workers",
        "$JS.API.STREAM.INFO.KV_airflow_holds",
        "$JS.API.STREAM.INFO.OBJ_airflow_logs",
        "$JS.API.CONSUMER.LIST.AIRFLOW_TASKS",
        "$JS.API.CONSUMER.INFO.AIRFLOW_TASKS.*",
        "$JS.API.DIRECT.GET.KV_airflow_workers",
        "$JS.API.DIRECT.GET.KV_airflow_holds",
        "$JS.API.STREAM.CREATE.AIRFLOW_TASKS",
        "$JS.API.STREAM.UPDATE.AIRFLOW_TASKS",
        "$JS.API.STREAM.CREATE.AIRFLOW_RESULTS",
        "$JS.API.STREAM.UPDATE.AIRFLOW_RESULTS",
        "$JS.API.STREAM.CREATE.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.UPDATE.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.CREATE.KV_airflow_workers",
        "$JS.API.STREAM.UPDATE.KV_airflow_workers",
        "$JS.API.STREAM.CREATE.KV_airflow_holds",
        "$JS.API.STREAM.UPDATE.KV_airflow_holds",
        "$JS.API.STREAM.CREATE.OBJ_airflow_logs",
        "$JS.API.STREAM.UPDATE.OBJ_airflow_logs",
        "$JS.API.CONSUMER.CREATE.AIRFLOW_TASKS.>",
        "$JS.API.CONSUMER.DELETE.AIRFLOW_TASKS.*",
        "$JS.API.STREAM.PURGE.KV_airflow_holds",
        "airflow.ctl.*.set-concurrency",
        "airflow.ctl.*.add-queue",
        "airflow.ctl.*.remove-queue",
        "airflow.ctl.*.drain",
        "airflow.ctl.*.undrain",
        "airflow.ctl.*.shut-down",
        "airflow.schedulers.*.state",
        "airflow.schedulers.*.probe",
    ),
    Role.OPERATOR: (
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.AIRFLOW_TASKS",
        "$JS.API.STREAM.INFO.AIRFLOW_RESULTS",
        "$JS.API.STREAM.INFO.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.INFO.KV_airflow_workers",
        "$JS.API.STREAM.INFO.KV_airflow_holds",
        "$JS.API.STREAM.INFO.OBJ_airflow_logs",
        "$JS.API.CONSUMER.LIST.AIRFLOW_TASKS",
        "$JS.API.CONSUMER.INFO.AIRFLOW_TASKS.*",
        "$JS.API.DIRECT.GET.KV_airflow_workers",
        "$JS.API.DIRECT.GET.KV_airflow_holds",
        "$JS.API.DIRECT.GET.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.PURGE.AIRFLOW_RESULTS",
        "$JS.API.STREAM.PURGE.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.PURGE.KV_airflow_workers",
        "$JS.API.STREAM.PURGE.OBJ_airflow_logs",
        "$JS.API.CONSUMER.PAUSE.AIRFLOW_TASKS.*",
        "$KV.airflow_holds.>",
        "$JS.API.STREAM.PURGE.KV_airflow_holds",
        "airflow.ctl.*.set-concurrency",
        "airflow.ctl.*.add-queue",
        "airflow.ctl.*.remove-queue",
        "airflow.ctl.*.drain",
        "airflow.ctl.*.undrain",
        "airflow.ctl.*.shut-down",
        "airflow.schedulers.*.state",
        "airflow.schedulers.*.probe",
        "airflow.ctl.*.describe",
        "airflow.ctl.*.ping",
    ),
    Role.SCHEDULER: (
        "airflow.tasks.>",
        "airflow.results.>",
        "airflow.ctl.*.ping",
        "airflow.ctl.*.stop",
        "$JS.API.STREAM.INFO.AIRFLOW_TASKS",
        "$JS.API.STREAM.INFO.AIRFLOW_RESULTS",
        "$JS.API.STREAM.INFO.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.INFO.KV_airflow_workers",
        "$JS.API.STREAM.INFO.KV_airflow_holds",
        "$JS.API.STREAM.INFO.OBJ_airflow_logs",
        "$JS.API.CONSUMER.LIST.AIRFLOW_TASKS",
        "$JS.API.CONSUMER.INFO.AIRFLOW_TASKS.*",
        "$JS.API.CONSUMER.CREATE.AIRFLOW_TASKS.>",
        "$KV.airflow_holds.history.*",
        "$JS.API.DIRECT.GET.AIRFLOW_TASKS",
        "$JS.API.DIRECT.GET.AIRFLOW_RESULTS",
        "$JS.API.DIRECT.GET.KV_airflow_workers",
        "$JS.API.DIRECT.GET.KV_airflow_holds",
        "$JS.API.DIRECT.GET.AIRFLOW_TASKS.airflow.tasks.>",
        "$JS.API.DIRECT.GET.AIRFLOW_RESULTS.airflow.results.>",
        "$JS.API.STREAM.MSG.DELETE.AIRFLOW_TASKS",
        "$JS.API.CONSUMER.CREATE.AIRFLOW_RESULTS",
        "$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_RESULTS.*",
    ),
    Role.WORKER: WORKER,
    Role.API_SERVER: (
        "airflow.ctl.*.log",
        "airflow.ctl.*.describe",
        "airflow.ctl.*.ping",
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.AIRFLOW_TASKS",
        "$JS.API.STREAM.INFO.AIRFLOW_RESULTS",
        "$JS.API.STREAM.INFO.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.INFO.KV_airflow_workers",
        "$JS.API.STREAM.INFO.KV_airflow_holds",
        "$JS.API.STREAM.INFO.OBJ_airflow_logs",
        "$JS.API.CONSUMER.LIST.AIRFLOW_TASKS",
        "$JS.API.CONSUMER.INFO.AIRFLOW_TASKS.*",
        "$JS.API.DIRECT.GET.KV_airflow_workers",
        "$JS.API.DIRECT.GET.KV_airflow_holds",
        "$JS.API.DIRECT.GET.OBJ_airflow_logs",
        "$JS.API.DIRECT.GET.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.PURGE.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.PURGE.KV_airflow_workers",
        "$JS.API.CONSUMER.PAUSE.AIRFLOW_TASKS.*",
        "$KV.airflow_holds.>",
        "$JS.API.STREAM.PURGE.KV_airflow_holds",
        "airflow.ctl.*.set-concurrency",
        "airflow.ctl.*.add-queue",
        "airflow.ctl.*.remove-queue",
        "airflow.ctl.*.drain",
        "airflow.ctl.*.undrain",
        "airflow.ctl.*.shut-down",
        "airflow.schedulers.*.state",
    ),
    Role.TRIGGERER: (
        "$O.airflow_logs.C.>",
        "$O.airflow_logs.M.>",
    ),
    Role.MONITOR: (
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.AIRFLOW_TASKS",
        "$JS.API.STREAM.INFO.AIRFLOW_RESULTS",
        "$JS.API.STREAM.INFO.AIRFLOW_DEAD_LETTERS",
        "$JS.API.STREAM.INFO.KV_airflow_workers",
        "$JS.API.STREAM.INFO.KV_airflow_holds",
        "$JS.API.STREAM.INFO.OBJ_airflow_logs",
        "$JS.API.CONSUMER.LIST.AIRFLOW_TASKS",
        "$JS.API.CONSUMER.INFO.AIRFLOW_TASKS.*",
        "$JS.API.DIRECT.GET.KV_airflow_workers",
        "$JS.API.DIRECT.GET.KV_airflow_holds",
    ),
    Role.SITE: (
        *WORKER,
        "_INBOX_admin.*.*",
        "_INBOX_operator.*.*",
        "_INBOX_scheduler.*.*",
        "_INBOX_api-server.*.*",
        "_INBOX_worker-a.*.*",
    ),
}
HEARD = {
    Role.WORKER: ("airflow.ctl.*.*", "airflow.peers.*"),
    Role.SITE: ("airflow.ctl.*.*", "airflow.peers.*"),
    Role.SCHEDULER: ("airflow.schedulers.*.*",),
}
LANES = settings_for("nats://127.0.0.1:4222").lanes("a")


@pytest.mark.parametrize("role", Role)
def test_a_role_may_publish_exactly_this(role: Role) -> None:
    granted = permissions(role, Names(), "_INBOX_x", lanes=LANES)

    assert granted.publish == GRANTS[role]
    assert granted.subscribe == ("_INBOX_x.>", *HEARD.get(role, ()))
    assert granted.answers is (role in {Role.WORKER, Role.SCHEDULER})


def test_a_worker_of_another_domain_may_publish_exactly_this() -> None:
    granted = permissions(Role.WORKER, Names(), "_INBOX_w", lanes=LANES, domain="hub")

    assert granted.publish == WORKER_OF_A_DOMAIN
    assert granted.subscribe == ("_INBOX_w.>", "airflow.ctl.*.*", "airflow.peers.*")


@pytest.mark.parametrize("inbox", ["_INBOX", "A", "zz", "airflows", "inbox.airflow"])
def test_any_inbox_but_one_below_the_names_is_private(inbox: str) -> None:
    granted = permissions(Role.MONITOR, Names(), inbox)

    assert granted.subscribe == (f"{inbox}.>",)
