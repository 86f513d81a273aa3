"""The tries of tasks in Airflow's database, as something to select from.

3.4 keeps the spent ones beside the live ones, and calls the column of the index otherwise.
"""

from __future__ import annotations

from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS

__all__ = ["LIVE", "SPENT"]

LIVE, SPENT = "task_instance", "task_instance_history"
if AIRFLOW_V_3_4_PLUS:
    INDEXED = "SELECT *, region_index AS map_index FROM task_instance"
    LIVE = f"({INDEXED} WHERE working_set) AS live"
    SPENT = f"({INDEXED} WHERE working_set IS NULL) AS spent"
