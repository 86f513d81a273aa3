"""Starts the processes of a worker: its fork server, its supervisors, its tasks."""

from __future__ import annotations
