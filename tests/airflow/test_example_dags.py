"""Airflow's own example Dags, and ours, through the real scheduler, API server and a worker."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from tests.airflow.deployed import Airflow
from tests.airflow.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.airflow, pytest.mark.examples, pytest.mark.timeout(900)]

INTERNET = "asks a server in the internet"
INDEX = "installs packages from an index while it runs"
CLASH = "its asset has two names in the examples, of which the first that is parsed is valid"
# Those that nothing on this machine can bring to the end that their authors meant.
LEFT_OUT = {
    "asset_with_extra_by_context": CLASH,
    "asset_with_extra_by_yield": CLASH,
    "asset_with_extra_from_classic_operator": CLASH,
    "child_dag": "is triggered by example_external_task",
    "example_analytics": "reads S3",
    "example_branch_operator": INDEX,
    "example_branch_python_operator_decorator": INDEX,
    "example_dag_decorator": INTERNET,
    "example_external_task_marker_child": "waits for a task group that no Dag has",
    "example_hitl_operator": "waits for a person's answer",
    "example_passing_params_via_test_command": "is meant for `airflow tasks test`",
    "example_python_decorator": INDEX,
    "example_python_operator": INDEX,
    "example_retry_policy": INTERNET,
    "example_sensors": "needs connections, and looks once a minute for a file in /tmp",
    "example_trigger_target_dag": "is triggered by example_trigger_controller_dag",
    "read_asset_event": CLASH,
    "read_asset_event_from_classic": CLASH,
    "tutorial_objectstorage": INTERNET,
    "tutorial_taskflow_api_virtualenv": INDEX,
}
if not AIRFLOW_V_3_4_PLUS:
    LEFT_OUT["example_task_state_store_async"] = "calls what this release's SDK does not have"
# Files without a Dag where the provider for Kubernetes is missing: example_kubernetes_executor.py,
# example_local_kubernetes_executor.py.

SUCCEED = {
    "aggregate_regional_sales", "asset1_producer", "asset2_producer",
    "asset_alias_example_alias_consumer",
    "asset_alias_example_alias_consumer_with_no_taskflow",
    "asset_alias_example_alias_producer",
    "asset_alias_example_alias_producer_with_no_taskflow", "asset_consumes_1",
    "asset_consumes_1_and_2", "asset_consumes_1_never_scheduled",
    "asset_consumes_unknown_never_scheduled", "asset_produces_1", "asset_produces_2",
    "asset_s3_bucket_consumer", "asset_s3_bucket_consumer_with_no_taskflow",
    "asset_s3_bucket_producer", "asset_s3_bucket_producer_with_no_taskflow",
    "clean_and_combine_player_stats", "compute_player_odds",
    "conditional_asset_and_time_based_timetable", "consume_1_and_2_with_asset_expressions",
    "consume_1_or_2_with_asset_expressions",
    "consume_1_or_both_2_and_3_with_asset_expressions", "consumes_asset_decorator",
    "daily_inference", "daily_team_a_rollup", "example_asset_state_store_consumer",
    "example_asset_state_store_producer", "example_asset_with_watchers",
    "example_bash_decorator", "example_bash_operator", "example_branch_datetime_operator",
    "example_branch_datetime_operator_2", "example_branch_datetime_operator_3",
    "example_branch_dop_operator_v3", "example_branch_labels", "example_complex",
    "example_custom_weight", "example_display_name", "example_dynamic_task_mapping",
    "example_dynamic_task_mapping_with_no_taskflow_operators", "example_external_task",
    "example_external_task_marker_parent", "example_failed_dag",
    "example_measurement_correction_decorator", "example_measurement_correction_operator",
    "example_nested_branch_dag", "example_params_trigger_ui", "example_params_ui_tutorial",
    "example_sensor_decorator", "example_setup_teardown", "example_setup_teardown_taskflow",
    "example_short_circuit_decorator", "example_short_circuit_operator",
    "example_simplest_dag", "example_skip_dag", "example_task_group",
    "example_task_group_decorator", "example_task_group_mapping",
    "example_task_mapping_second_order", "example_task_state_store",
    "example_task_state_store_mapped",
    "example_time_delta_sensor_async", "example_trigger_controller_dag",
    "example_weekday_branch_operator", "example_workday_timetable", "example_xcom",
    "example_xcom_args", "example_xcom_args_with_operators", "ingest_region_stats",
    "ingest_regional_sales", "ingest_team_a_player_stats", "latest_only",
    "latest_only_with_trigger", "live_region_player_stats", "monthly_team_a_rollup",
    "multi_region_player_stats", "nats_demo", "player_odds_quality_check_wont_ever_to_trigger",
    "regional_stats_breakdown", "scatter_live_region_to_segments",
    "segment_region_stats_early_rollup", "segment_region_stats_rollup",
    "summarize_live_region_stats", "team_analytics_producer", "team_b_player_stats",
    "team_c_player_stats", "team_ml_consumer", "trailing_week_inference", "train_weekly_model",
    "tutorial", "tutorial_dag", "tutorial_taskflow_api", "tutorial_taskflow_templates",
}  # fmt: skip
if AIRFLOW_V_3_4_PLUS:
    SUCCEED |= {
        "example_deadline_alert", "example_task_state_store_async", "fixed_task_loop",
        "mapped_task_loop", "partial_override_loop", "refine_estimate",
    }  # fmt: skip

FAIL = {"example_failed_dag"}
# What does not run because its Dag says so.
SKIPS: dict[str, set[str]] = {
    "example_bash_decorator": {"sleep_in", "this_will_skip"},
    "example_bash_operator": {"run_this_last", "this_will_skip"},
    "example_nested_branch_dag": {"branch_2", "false_1", "false_2", "false_3", "join_2", "true_2"},
    "example_short_circuit_decorator": {"false_1", "false_2", "task_4", "task_6"},
    "example_short_circuit_operator": {"false_1", "false_2", "task_4", "task_6"},
    "example_skip_dag": {"all_success", "final_1", "skip_operator_1", "skip_operator_2"},
}
# Which branch they take depends on the clock or on chance.
BRANCHES = {
    "example_branch_datetime_operator",
    "example_branch_datetime_operator_2",
    "example_branch_datetime_operator_3",
    "example_branch_dop_operator_v3",
    "example_weekday_branch_operator",
}
RETRIED = {"example_task_state_store", "example_task_state_store_async", "nats_demo"}
PARAMETERS = {"example_params_ui_tutorial": {"required_field": "a value that is long enough"}}

# One date for all: some wait for the run of another Dag that has the same.
DATE = "2026-01-01T00:00:00Z"
OVER = {"success", "failed"}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """One Airflow for all of them, which makes no runs by itself."""
    home = tmp_path_factory.mktemp("examples")
    (home / "dags").mkdir()
    settings: dict[str, object] = {
        "CORE__DAGS_FOLDER": home / "dags",
        "CORE__EXECUTOR": "nats_executor.NatsExecutor",
        "CORE__LOAD_EXAMPLES": True,
        "DAG_PROCESSOR__PARSING_PROCESSES": 2,
        "SCHEDULER__USE_JOB_SCHEDULE": False,
        # All at once keep it busy, and Airflow repeats a request whose answer is late; a second one
        # to trigger a Dag is refused (3.4.0b2), and the task fails.
        "WORKERS__EXECUTION_API_TIMEOUT": 30,
    }
    with (
        PostgresServer() as postgres,
        Airflow(
            home, database=postgres.url, dags=(), settings=settings, workers=start_one_worker
        ) as airflow,
    ):
        yield airflow
    shutil.rmtree(home, ignore_errors=True)


def start_one_worker(airflow: Airflow) -> None:
    airflow.add_worker("worker-1", queues="default,heavy", concurrency=16)


def test_every_example_ends_as_its_authors_meant(examples: Airflow) -> None:
    """At its first try, if it does not ask for a second one."""
    examples.wait(lambda: known(examples) >= SUCCEED | FAIL, "the Dags to be parsed")
    for dag_id in sorted(SUCCEED | FAIL):
        examples.trigger(dag_id, logical_date=DATE, conf=PARAMETERS.get(dag_id, {}))
    examples.wait(lambda: set(states(examples).values()) <= OVER, "the runs to end", seconds=600)

    wrong = [line for dag_id in examples.runs for line in amiss(examples, dag_id)]
    assert not wrong, "\n".join(wrong)


def test_every_example_is_run_or_left_out_for_a_reason(examples: Airflow) -> None:
    """A new one has to be looked at. That follows the other test, when all of them are parsed."""
    assert known(examples) == SUCCEED | FAIL | set(LEFT_OUT)


def known(airflow: Airflow) -> set[str]:
    return {row["dag_id"] for row in airflow.rows("SELECT dag_id FROM dag")}


def states(airflow: Airflow) -> dict[str, str]:
    """Return the state of the test's own run of each Dag."""
    rows = airflow.rows("SELECT dag_id, run_id, state FROM dag_run")
    return {r["dag_id"]: r["state"] for r in rows if airflow.runs.get(r["dag_id"]) == r["run_id"]}


def amiss(airflow: Airflow, dag_id: str) -> list[str]:
    """Return what is not as it was meant, in words."""
    meant = "failed" if dag_id in FAIL else "success"
    state = states(airflow)[dag_id]
    found = [] if state == meant else [f"{dag_id} {state}"]
    for task_id, rows in airflow.tasks(dag_id).items():
        for row in rows:
            allowed = {"skipped"} if task_id in SKIPS.get(dag_id, ()) else {meant}
            if dag_id in BRANCHES:
                allowed = {"success", "skipped"}
            is_retried = row["try_number"] > 1 and dag_id not in RETRIED
            if row["state"] not in allowed or is_retried:
                found.append(f"{dag_id}: {task_id} {row['state']}, try {row['try_number']}")
    return found
