"""Stores the logs of ended tasks, in a process that alone has the login."""

from __future__ import annotations
