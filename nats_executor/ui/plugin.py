"""Adds the page "NATS" to Airflow's UI, and the tab "Delivery" to that of a task instance.

Every process of Airflow loads this module, and only API servers need what it leads to.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

__all__ = ["NatsPlugin"]

MOUNTED_AT = "nats"


class NatsPlugin(AirflowPlugin):
    """What Airflow asks of a plugin; properties, so that only who asks loads FastAPI and NATS."""

    name = "nats_executor"

    @property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        from nats_executor.ui.app import the_app

        return [{"app": the_app(), "url_prefix": f"/{MOUNTED_AT}", "name": "NATS executor"}]

    @property
    def react_apps(self) -> list[Any]:  # type: ignore[override]
        # A relative address, for an Airflow behind a path such as https://host/airflow/.
        return [
            {
                "name": "NATS",
                "bundle_url": f"{MOUNTED_AT}/static/page.js",
                "destination": "nav",
                "category": "admin",
                "url_route": MOUNTED_AT,
            },
            {
                "name": "Delivery",
                "bundle_url": f"{MOUNTED_AT}/static/delivery.js",
                "destination": "task_instance",
                "url_route": f"{MOUNTED_AT}-delivery",
            },
        ]
