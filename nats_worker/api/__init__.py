"""How tasks reach Airflow's API server, and what its answers mean."""

from __future__ import annotations
